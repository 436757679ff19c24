/**
 * Quantised matrices of a model: which they are, and how they are filled, from numbers that are quantised on the way or
 * from codes that the files hold. Numbers come by pieces, so that the host never holds a matrix in 16 bits; codes and
 * scales themselves are made in `quantized-formats.ts`.
 */
import { ConfigError, ModelFormatError, shown } from "../../../errors.ts";
import { dequantized } from "../../../kernels/float64/stored.ts";
import {
  isQuantized,
  QUANTIZED,
  type QuantizedFormat,
  type StoredFormat,
  type WeightFormat,
} from "../../../kernels/kernel.ts";
import type { Arena, ParameterSpec } from "../../gpu/arena.ts";
import { elementCount, type Tensor } from "../../gpu/tensor.ts";
import { firstNotFinite, fromF32 } from "../../number-formats.ts";
import { nested, quantized, unnested } from "../../quantized-formats.ts";
import type { ModelConfig } from "../config/config.ts";
import { parameterSpecs } from "./parameters.ts";
import type { WeightFiles } from "./weight-files.ts";
import { checkedTensor, savedScales, storedPieces } from "./weight-transfer.ts";

/** How matrices are quantised while a model is loaded. What the files hold in 4 bits stays as it is. */
export interface Quantization {
  /** Format of the linear layers' matrices; default: as the files have them. */
  readonly format?: QuantizedFormat | undefined;
  /**
   * Quantise the scales of nf4 a second time, as bitsandbytes does, and compute with what they stand for then. They are
   * kept as f32 all the same. Default false.
   */
  readonly double?: boolean | undefined;
  /** The embedding's matrix and the head's as int8. Default false. */
  readonly embeddings?: boolean | undefined;
}

/** The parameters that are no linear layer's, of those that may be quantised. */
const EMBEDDINGS = ["embedding", "head"];
/** Columns of which any 64 rows, the least that the head walks, have scales that start a window. */
const EMBEDDING_COLUMNS = 64;

/**
 * The formats of the matrices that are not stored as the others are: quantised, or, where a matrix that we store as one
 * is quantised in part or its parts share blocks, f32 for what the files hold in 4 bits. `left` are the matrices that
 * should be quantised and are not, since their parts share blocks.
 *
 * @throws ConfigError for files that are quantised otherwise than is asked for, and embeddings that cannot be
 */
export function weightFormats(
  config: ModelConfig,
  files: WeightFiles,
  fullName: (part: string) => string,
  { format, embeddings = false }: Quantization,
): { formats: ReadonlyMap<string, WeightFormat>; left: readonly string[] } {
  const formats = new Map<string, WeightFormat>();
  const left: string[] = [];
  for (const spec of parameterSpecs(config)) {
    if (spec.shape.length < 2) continue;
    const saved = spec.parts.filter(({ name }) => files.tensors.get(fullName(name))?.saved !== undefined).length;
    const wanted = saved > 0 ? "nf4" : wantedFormat(spec, format, embeddings);
    if (wanted === undefined) continue;
    if (saved > 0 && format !== undefined && format !== "nf4") {
      throw new ConfigError(`${files.path} is quantised in 4 bits already; leave load_in_8bit out.`);
    }
    const isWalked = EMBEDDINGS.includes(spec.name);
    const fits = !isWalked || config.hiddenSize % EMBEDDING_COLUMNS === 0;
    if (!fits && saved === 0) {
      throw new ConfigError(
        `Embeddings of ${config.hiddenSize} columns cannot be quantised, only those of a multiple of ${EMBEDDING_COLUMNS}; leave quantize_embeddings out.`,
      );
    }
    const { block } = QUANTIZED[wanted];
    const apart = spec.parts.slice(0, -1).every(({ shape }) => elementCount(shape) % block === 0);
    if (fits && apart && (saved === 0 || saved === spec.parts.length)) formats.set(spec.name, wanted);
    else if (saved > 0) formats.set(spec.name, "f32");
    else left.push(fullName(spec.parts[0]?.name ?? spec.name));
  }
  return { formats, left };
}

function wantedFormat({ name }: ParameterSpec, format: QuantizedFormat | undefined, embeddings: boolean) {
  if (EMBEDDINGS.includes(name)) return embeddings ? "int8" : undefined;
  return name.startsWith("layers.") ? format : undefined;
}

/** A sentence on matrices that are not quantised although they should be; undefined where there are none. */
export function leftSentence(left: readonly string[], path: string): string | undefined {
  const [first, ...more] = left;
  if (first === undefined) return undefined;
  const others = more.length === 0 ? "" : ` and ${more.length} more`;
  return `${path}: the matrix of ${shown(first)}${others} is kept as the files store it: its tensors, which are stored as one matrix, are no whole blocks of numbers.`;
}

/**
 * Fills a quantised tensor with its parts, one after another.
 *
 * @param names of the parts in the weight files; @param dtype what numbers are rounded to before they are quantised
 * @throws ModelFormatError for numbers that are not finite, or too large for their scales' format
 */
export async function fillQuantized(
  arena: Arena,
  window: Tensor,
  files: WeightFiles,
  names: readonly string[],
  { dtype, double }: { readonly dtype: StoredFormat; readonly double: boolean },
): Promise<void> {
  const format = window.dtype;
  if (!isQuantized(format) || window.scales === undefined) throw new Error("the tensor is not quantised");
  const { bits, scales: scaleFormat } = QUANTIZED[format];
  let at = 0;
  const take = (codes: Uint8Array<ArrayBuffer>) => {
    const shape = [(8 / bits) * codes.length];
    arena.device.upload({ ...window, offset: window.offset + at, shape }, wholeWords(codes));
    at += codes.length;
  };
  const all: Float32Array<ArrayBuffer>[] = [];
  for (const name of names) {
    const { saved, shape } = checkedTensor(files, name);
    if (saved === undefined) {
      const pieces = storedPieces(files, name, dtype);
      all.push(await quantizePieces(pieces, { format, double }, take, files.path, name));
      continue;
    }
    const bytes = Math.ceil((elementCount(shape) * bits) / 8);
    for (let first = 0; first < bytes; first += SAVED_PIECE) {
      take(await saved.codes(first, Math.min(SAVED_PIECE, bytes - first)));
    }
    all.push(await savedScales(checkedTensor(files, name), name));
  }
  arena.device.upload(window.scales, wholeWords(fromF32(joined(all), scaleFormat)));
}

/** Bytes of saved codes that are on the host at once. */
const SAVED_PIECE = 2 ** 23;

/**
 * Quantises a tensor that comes by pieces of whole blocks, the last one excepted.
 *
 * @param take is given the codes of each piece; @returns the scales of all blocks
 */
async function quantizePieces(
  pieces: AsyncIterable<Float32Array<ArrayBuffer>>,
  { format, double }: { readonly format: QuantizedFormat; readonly double: boolean },
  take: (codes: Uint8Array<ArrayBuffer>) => void,
  path: string,
  name: string,
): Promise<Float32Array<ArrayBuffer>> {
  const parts: Float32Array<ArrayBuffer>[] = [];
  for await (const values of pieces) {
    const { codes, scales } = quantized(format, values);
    if (firstNotFinite(scales) >= 0) {
      throw new ModelFormatError(`${path}: tensor "${name}" holds numbers too large for 8 bit; load it in 4 bits.`);
    }
    take(codes);
    parts.push(scales);
  }
  const scales = joined(parts);
  return double && format === "nf4" ? unnested(nested(scales)) : scales;
}

/**
 * The f32 values that a tensor of the files has once it is quantised, by pieces. Its codes are on the host as a whole,
 * since a double quantisation looks at all scales first.
 */
export async function* quantizedPieces(
  files: WeightFiles,
  name: string,
  options: { readonly format: QuantizedFormat; readonly double: boolean; readonly dtype: StoredFormat },
): AsyncGenerator<Float32Array<ArrayBuffer>> {
  const { format, double, dtype } = options;
  const { block, bits } = QUANTIZED[format];
  const parts: Uint8Array<ArrayBuffer>[] = [];
  const pieces = storedPieces(files, name, dtype);
  const scales = await quantizePieces(pieces, { format, double }, (codes) => parts.push(codes), files.path, name);
  const count = elementCount(checkedTensor(files, name).shape);
  let first = 0;
  for (const codes of parts) {
    const size = Math.min((8 / bits) * codes.length, count - first);
    yield dequantized(format, codes, scales.subarray(first / block), size);
    first += size;
  }
}

function joined(parts: readonly Float32Array<ArrayBuffer>[]): Float32Array<ArrayBuffer> {
  const [first = new Float32Array(0), ...more] = parts;
  if (more.length === 0) return first;
  const all = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

function wholeWords(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  if (bytes.length % 4 === 0) return bytes;
  const padded = new Uint8Array(4 * Math.ceil(bytes.length / 4));
  padded.set(bytes);
  return padded;
}
