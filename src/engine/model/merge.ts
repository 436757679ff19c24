/**
 * A whole model of a base and a LoRA adapter, W + scale B A, made on the host from the files of both: no device is
 * needed, and one tensor at a time is in memory.
 */
import { isQuantized, type StoredFormat } from "../../kernels/kernel.ts";
import type { ModelConfig } from "./config/config.ts";
import { DTYPE_NAMES, readModelConfig, writeCompanions, writeTokenizerFiles } from "./config/folder.ts";
import type { LoraModule } from "./lora-modules.ts";
import { type AdapterFile, openAdapter } from "./peft-tensors.ts";
import { checkTensors, ignoredHead } from "./weights/check-tensors.ts";
import { parameterSpecs, tensorName, writtenPrefix } from "./weights/parameters.ts";
import { leftSentence, type Quantization, quantizedPieces, weightFormats } from "./weights/quantization.ts";
import { openWeights, writeWeights } from "./weights/weight-files.ts";
import { checkedTensor, finitePieces, storedPieces } from "./weights/weight-transfer.ts";

export interface MergeOptions {
  /**
   * Numbers in the files; default: as the base model's files store them, f32 where these differ, and bf16 for a base
   * that is quantised.
   */
  readonly dtype?: StoredFormat;
  /**
   * How the base was quantised when the adapter was trained: its numbers are then what the quantised ones stand for.
   */
  readonly quantization?: Quantization | undefined;
  readonly maxShardBytes?: number;
  /** Takes sentences on tensors that are left out, and on a base that is quantised; default console.warn. */
  readonly onWarning?: (sentence: string) => void;
}

/** The weights of a model folder on the host, to be read tensor by tensor. Close them. */
export interface HostWeights {
  readonly config: ModelConfig;
  /** What the files store matrices as, f32 where these differ, and bf16 for a base that is quantised. */
  readonly stored: StoredFormat;
  readonly isQuantised: boolean;
  readonly tensors: readonly HostTensor[];
  close(): Promise<void>;
}

/** A tensor by its Hugging Face name, without the prefix of the class ("layers.0.mlp.up_proj.weight") and with it. */
export interface HostTensor {
  readonly part: string;
  readonly name: string;
  readonly shape: readonly number[];
  /** The values, from the first on. */
  readonly pieces: () => AsyncIterable<Float32Array<ArrayBuffer>>;
}

/**
 * Opens a model's weights, with an adapter merged into them if one is given: W + scale B A for the adapter's layers,
 * the other tensors as they are.
 *
 * @throws ModelFormatError for a base or adapter that cannot be used or do not fit each other; FileError
 */
export async function openHostWeights(
  baseFolder: string,
  adapterFolder: string | undefined,
  { quantization = {}, onWarning = console.warn }: Pick<MergeOptions, "quantization" | "onWarning"> = {},
): Promise<HostWeights> {
  const config = await readModelConfig(baseFolder);
  const base = await openWeights(baseFolder);
  let adapter: AdapterFile | undefined;
  const close = async () => {
    await adapter?.close();
    await base.close();
  };
  try {
    const { prefix, stored } = checkTensors(config, base);
    if (adapterFolder !== undefined) {
      adapter = await openAdapter(adapterFolder, { config, folder: baseFolder }, onWarning);
    }
    const headWarning = await ignoredHead(config, base);
    if (headWarning !== undefined) onWarning(headWarning);
    const fullName = (part: string) => tensorName(prefix, part);
    const { formats, left } = weightFormats(config, base, fullName, quantization);
    const leftWarning = leftSentence(left, base.path);
    if (leftWarning !== undefined) onWarning(leftWarning);
    const { modules = [] } = adapter ?? {};
    const changed = new Map(modules.map((module) => [`${module.name}.weight`, module]));
    const basePieces = (parameter: string, name: string) => {
      const to = formats.get(parameter);
      if (to === undefined || !isQuantized(to) || checkedTensor(base, name).saved) return storedPieces(base, name);
      return quantizedPieces(base, name, { format: to, double: quantization.double ?? false, dtype: stored });
    };
    const tensors = parameterSpecs(config).flatMap(({ name: parameter, parts }) =>
      parts.map(({ name: part, shape }) => {
        const source = fullName(part);
        // A text model leaves the model of text and images that it was read out of.
        const name = tensorName(config.wrapper === undefined ? prefix : writtenPrefix(config), part);
        const [merging, module] = [adapter, changed.get(part)];
        const pieces =
          merging && module
            ? () => mergedWeight(basePieces(parameter, source), merging, config, module)
            : () => basePieces(parameter, source);
        return { part, name, shape, pieces };
      }),
    );
    const isQuantised = formats.size > 0;
    return { config, stored: isQuantised ? "bf16" : stored, isQuantised, tensors, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/**
 * Writes base + adapter as a whole model, with the adapter's tokenizer files before the base's. Runs on the host, tensor
 * by tensor; no device is needed.
 *
 * @throws ModelFormatError for a base or adapter that cannot be used or do not fit each other; FileError; NumericError
 */
export async function mergeAdapter(
  baseFolder: string,
  adapterFolder: string,
  outFolder: string,
  { dtype, quantization = {}, maxShardBytes, onWarning = console.warn }: MergeOptions = {},
): Promise<void> {
  const weights = await openHostWeights(baseFolder, adapterFolder, { quantization, onWarning });
  try {
    const format = dtype ?? weights.stored;
    if (weights.isQuantised) {
      onWarning(
        `The base ${baseFolder} is quantised: the merged model is written as ${DTYPE_NAMES[format]}, from the numbers that its codes stand for.`,
      );
    }
    const tensors = weights.tensors.map(({ name, shape, pieces }) => ({
      name,
      shape,
      format,
      data: () => finitePieces(name, pieces(), format, OVERFLOW),
    }));
    await writeCompanions(baseFolder, outFolder, format);
    // What the adapter was trained with goes before what the base came with.
    await writeTokenizerFiles(adapterFolder, outFolder);
    await writeWeights(outFolder, tensors, maxShardBytes);
  } finally {
    await weights.close();
  }
}

/** Why a merged weight may not be finite. */
const OVERFLOW = "base and adapter overflow f32 together";

/** W + scale B A of one layer; W is [out, in], or [in, out] in GPT-2. Sums in float64. */
async function* mergedWeight(
  base: AsyncIterable<Float32Array<ArrayBuffer>>,
  adapter: AdapterFile,
  config: ModelConfig,
  { name: module, inputs, outputs, rank, scale }: LoraModule,
): AsyncGenerator<Float32Array<ArrayBuffer>> {
  const a = await adapter.read(`${module}.lora_A.weight`);
  const b = await adapter.read(`${module}.lora_B.weight`);
  const delta = new Float64Array(inputs);
  const weight = new Float32Array(inputs * outputs);
  let filled = 0;
  for await (const piece of base) {
    weight.set(piece, filled);
    filled += piece.length;
  }
  const [rowStride, columnStride] = config.inOutWeights ? [1, outputs] : [inputs, 1];
  for (let row = 0; row < outputs; row++) {
    delta.fill(0);
    for (let r = 0; r < rank; r++) {
      const factor = scale * (b[row * rank + r] ?? 0);
      for (let i = 0; i < inputs; i++) delta[i] = (delta[i] as number) + factor * (a[r * inputs + i] as number);
    }
    for (let i = 0; i < inputs; i++) {
      const at = row * rowStride + i * columnStride;
      weight[at] = (weight[at] as number) + (delta[i] as number);
    }
  }
  yield weight;
}
