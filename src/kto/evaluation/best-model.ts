/**
 * The best weights of a run, kept beside it: what is trained, in f32, as one file that is replaced as a whole. Not a
 * checkpoint: there are no moments and no place in the data in it.
 */

import { openSafetensors, writeSafetensors } from "../../engine/files/safetensors.ts";
import { elementCount } from "../../engine/gpu/tensor.ts";
import type { Model } from "../../engine/model/model.ts";
import { arenaPieces } from "../../engine/model/weights/weight-transfer.ts";
import { platform } from "../../engine/platform/index.ts";
import { FileError, ModelFormatError } from "../../errors.ts";

/** Elements on the host at once while the file is read. */
const PIECE = 2 ** 22;

/** In the folder of the run. */
export const BEST_FOLDER = "best";

export class BestModel {
  readonly #model: Model;
  readonly #folder: string;

  /** @param folder is made when the first weights are kept */
  constructor(model: Model, folder: string) {
    this.#model = model;
    this.#folder = folder;
  }

  get path(): string {
    return platform.joinPath(this.#folder, "trained.safetensors");
  }

  /**
   * Keeps the trained weights as they are now, in place of those before.
   *
   * @param about the step, the metric and its value, for people
   * @throws FileError, after which the file before is there still
   */
  async keep(about: { readonly step: number; readonly metric: string; readonly value: number }): Promise<void> {
    const arena = this.#model.trained;
    await platform.makeFolder(this.#folder);
    const tensors = [...arena.layout.parts()].map((part) => ({
      name: part.name,
      shape: part.shape,
      data: () => arenaPieces(arena, part),
    }));
    const { step, metric, value } = about;
    await writeSafetensors(this.path, tensors, { format: "pt", step: String(step), [metric]: String(value) });
  }

  /**
   * Puts the kept weights back into the model.
   *
   * @param step that they must be of: a run that was resumed from an earlier checkpoint may find those of a later one
   * @throws FileError if there are none, or of another step; ModelFormatError if the file is not the one that was written
   */
  async restore(step: number): Promise<void> {
    const arena = this.#model.trained;
    const file = await openSafetensors(this.path);
    try {
      if (file.metadata.step !== String(step)) {
        throw new FileError(`${file.path} holds the weights of step ${file.metadata.step}, not of step ${step}.`);
      }
      for (const { name, shape, segment, offset } of arena.layout.parts()) {
        const stored = file.tensors.get(name);
        if (stored?.dtype !== "F32" || stored.shape.join() !== shape.join()) {
          throw new ModelFormatError(`${file.path}: tensor "${name}" is missing or of another shape than the model's.`);
        }
        const count = elementCount(shape);
        for (let first = 0; first < count; first += PIECE) {
          const size = Math.min(PIECE, count - first);
          const bytes = await file.read(name, first, size);
          arena.device.upload(arena.at({ segment, offset: offset + first }, [size]), bytes);
        }
      }
      await arena.device.idle();
    } finally {
      await file.close();
    }
  }
}
