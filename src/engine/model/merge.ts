/**
 * A whole model of a base and a LoRA adapter, W + scale B A, made on the host from the files of both: no device is
 * needed, and one tensor at a time is in memory.
 */
import { isQuantized, type StoredFormat } from "../../kernels/kernel.ts";
import { basePart, partNames, unties } from "./adapter-specs.ts";
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
  /** Whether the adapter parts a head from the embedding with which it is tied in the base; the configuration says so. */
  readonly unties: boolean;
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
    const { modules = [], saved } = adapter ?? {};
    const own = saved !== undefined && unties(config, modules, saved);
    const written = own ? { ...config, tiedHead: false } : config;
    const changed = new Map(modules.map((module) => [`${module.name}.weight`, module]));
    const basePieces = (parameter: string, name: string) => {
      const to = formats.get(parameter);
      if (to === undefined || !isQuantized(to) || checkedTensor(base, name).saved) return storedPieces(base, name);
      return quantizedPieces(base, name, { format: to, double: quantization.double ?? false, dtype: stored });
    };
    const tensors = parameterSpecs(written).flatMap(({ name, parts }) =>
      parts.map(({ name: part, shape }) => {
        const source = fullName(basePart(config, part));
        const parameter = name === "head" && config.tiedHead ? "embedding" : name;
        // A text model leaves the model of text and images that it was read out of.
        const writtenName = tensorName(config.wrapper === undefined ? prefix : writtenPrefix(config), part);
        const [merging, module] = [adapter, changed.get(part)];
        const isSaved = saved?.parts.has(part) && merging?.has(part);
        if (merging && isSaved) {
          const whole = async function* () {
            yield await merging.read(part);
          };
          return { part, name: writtenName, shape, pieces: whole };
        }
        const pieces =
          merging && module
            ? () => mergedWeight(() => basePieces(parameter, source), merging, module)
            : () => basePieces(parameter, source);
        return { part, name: writtenName, shape, pieces };
      }),
    );
    const isQuantised = formats.size > 0;
    return { config: written, stored: isQuantised ? "bf16" : stored, isQuantised, unties: own, tensors, close };
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
    if (weights.unties) {
      onWarning(
        `The adapter ${adapterFolder} trains embedding or head, which are one in the base ${baseFolder}: the merged model has a head of its own (tie_word_embeddings is false).`,
      );
    }
    await writeCompanions(baseFolder, outFolder, format, weights);
    // What the adapter was trained with goes before what the base came with.
    await writeTokenizerFiles(adapterFolder, outFolder);
    await writeWeights(outFolder, tensors, maxShardBytes);
  } finally {
    await weights.close();
  }
}

/** Why a merged weight may not be finite. */
const OVERFLOW = "base and adapter overflow f32 together";

/**
 * W + scale B A of one layer, or with DoRA (m / n) (W + scale B A), by whole rows as they are stored: a row is an output's
 * or, in GPT-2 and the embedding, an input's. Sums in float64.
 */
async function* mergedWeight(
  base: () => AsyncIterable<Float32Array<ArrayBuffer>>,
  adapter: AdapterFile,
  module: LoraModule,
): AsyncGenerator<Float32Array<ArrayBuffer>> {
  const { inOut, inputs, outputs } = module;
  const added = await addedRows(adapter, module);
  const magnitude = adapter.options.dora ? await adapter.read(partNames(module).magnitude) : undefined;
  const gain = (o: number, squares: number) => (squares > 0 ? (magnitude?.[o] ?? 0) / Math.sqrt(squares) : 0);
  let gains: Float64Array | undefined;
  if (magnitude && inOut) {
    // A length is the sum over all stored rows, so they are read twice.
    const squares = new Float64Array(outputs);
    for await (const { row, values } of rowsOf(base(), outputs)) {
      added(row, values).forEach((value, o) => {
        squares[o] = (squares[o] ?? 0) + value * value;
      });
    }
    gains = squares.map((sum, o) => gain(o, sum));
  }
  for await (const { row, values } of rowsOf(base(), inOut ? outputs : inputs)) {
    const sums = added(row, values);
    if (gains) for (let o = 0; o < outputs; o++) sums[o] = (sums[o] as number) * (gains[o] as number);
    else if (magnitude) {
      const own = gain(
        row,
        sums.reduce((total, value) => total + value * value, 0),
      );
      for (let i = 0; i < inputs; i++) sums[i] = own * (sums[i] as number);
    }
    yield Float32Array.from(sums);
  }
}

/** What adds scale B A to a stored row of W; the same array every time. */
async function addedRows(
  adapter: AdapterFile,
  module: LoraModule,
): Promise<(row: number, values: Float32Array) => Float64Array> {
  const { inOut, inputs, outputs, rank, scale } = module;
  const { file } = partNames(module);
  const [a, b] = [await adapter.read(file.a), await adapter.read(file.b)];
  const columns = inOut ? outputs : inputs;
  /** [r, columns], the side that a stored row runs along. */
  const along = inOut ? transposed(b, outputs, rank) : a;
  const sums = new Float64Array(columns);
  return (row, values) => {
    sums.set(values);
    for (let r = 0; r < rank; r++) {
      const factor = scale * (inOut ? (a[r * inputs + row] ?? 0) : (b[row * rank + r] ?? 0));
      for (let i = 0; i < columns; i++) sums[i] = (sums[i] as number) + factor * (along[r * columns + i] as number);
    }
    return sums;
  };
}

function transposed(matrix: Float32Array, rows: number, columns: number): Float32Array {
  return Float32Array.from(matrix, (_, at) => matrix[(at % rows) * columns + Math.floor(at / rows)] as number);
}

/** Pieces of a matrix row by row. */
async function* rowsOf(
  pieces: AsyncIterable<Float32Array<ArrayBuffer>>,
  columns: number,
): AsyncGenerator<{ readonly row: number; readonly values: Float32Array }> {
  let rest = new Float32Array(0);
  let row = 0;
  for await (const piece of pieces) {
    const joined = rest.length === 0 ? piece : new Float32Array(rest.length + piece.length);
    if (joined !== piece) {
      joined.set(rest);
      joined.set(piece, rest.length);
    }
    let at = 0;
    for (; at + columns <= joined.length; at += columns)
      yield { row: row++, values: joined.subarray(at, at + columns) };
    rest = joined.slice(at);
  }
}
