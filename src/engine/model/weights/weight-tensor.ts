/**
 * A tensor of a model folder, and the file that holds it. How the files of a folder are found is in `weight-files.ts`.
 */
import type { SafetensorsFile, TensorEntry } from "../../files/safetensors.ts";

/** What the codes of a quantised tensor are read by. */
export interface SavedCodes {
  /** `count` bytes of codes from byte `first` on. */
  readonly codes: (first: number, count: number) => Promise<Uint8Array<ArrayBuffer>>;
  /** The scales of all blocks. */
  readonly scales: () => Promise<Float32Array<ArrayBuffer>>;
}

export interface WeightTensor extends TensorEntry {
  readonly file: SafetensorsFile;
  /** The codes and scales that bitsandbytes saved, if the tensor is quantised (dtype "NF4"). */
  readonly saved?: SavedCodes;
}
