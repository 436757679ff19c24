/** Moves weights between files and device memory in pieces, so that the host never holds a whole tensor. */
import { ModelFormatError, NumericError } from "../../../errors.ts";
import { dequantized } from "../../../kernels/float64/stored.ts";
import { isQuantized, QUANTIZED, type StoredFormat } from "../../../kernels/kernel.ts";
import { storedFormat } from "../../files/safetensors.ts";
import type { Arena, Place } from "../../gpu/arena.ts";
import type { Device } from "../../gpu/device.ts";
import { elementBytes, elementCount, type Tensor } from "../../gpu/tensor.ts";
import { firstNotFinite, firstNotFiniteStored, fromF32, toF32 } from "../../number-formats.ts";
import { DTYPE_NAMES } from "../config/folder.ts";
import type { WeightFiles } from "./weight-files.ts";
import type { WeightTensor } from "./weight-tensor.ts";

/** Elements that are on the host at once while weights are read or written. */
const PIECE = 2 ** 23;

/**
 * Fills the tensor of a parameter, which is not quantised, with its parts, one after another. Uploads start and end at
 * whole words of 4 bytes: the half word that an odd number of 16-bit numbers leaves is put before the next part's
 * numbers.
 *
 * @param names of the parts in the weight files; @param dtype what the numbers are rounded to on the way; @param piece
 * elements that are on the host at once
 * @throws ModelFormatError for numbers that are not finite, or too large for the format
 */
export async function fillTensor(
  arena: Arena,
  window: Tensor,
  files: WeightFiles,
  names: readonly string[],
  dtype: StoredFormat,
  piece: number = PIECE,
): Promise<void> {
  const format = window.dtype as StoredFormat;
  let at = 0;
  let rest: Uint8Array<ArrayBuffer> = new Uint8Array(0);
  const upload = (bytes: Uint8Array<ArrayBuffer>) => {
    if (bytes.byteLength > 0)
      arena.device.upload({ ...window, offset: window.offset + at, shape: uploadShape(bytes, format) }, bytes);
    at += bytes.byteLength;
  };
  for (const name of names) {
    for await (const read of readPieces(files, name, { dtype, format, piece })) {
      const bytes = rest.byteLength > 0 ? joined(rest, read) : read;
      const whole = bytes.byteLength - (bytes.byteLength % 4);
      upload(bytes.subarray(0, whole));
      rest = bytes.slice(whole);
    }
  }
  if (rest.byteLength > 0) upload(joined(rest, new Uint8Array(4 - rest.byteLength)));
}

function uploadShape(bytes: Uint8Array, format: StoredFormat): readonly number[] {
  return [bytes.byteLength / elementBytes(format)];
}

function joined(first: Uint8Array, second: Uint8Array): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(first.byteLength + second.byteLength);
  whole.set(first);
  whole.set(second, first.byteLength);
  return whole;
}

/**
 * A tensor of the weight files by pieces: rounded to `dtype`, as bytes in `format`. Throws ModelFormatError if not
 * finite.
 */
async function* readPieces(
  files: WeightFiles,
  name: string,
  { dtype, format, piece }: { readonly dtype: StoredFormat; readonly format: StoredFormat; readonly piece: number },
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const tensor = checkedTensor(files, name);
  if (tensor.saved !== undefined) {
    for await (const values of savedPieces(tensor, name, piece)) yield fromF32(values, format);
    return;
  }
  const { file } = tensor;
  const stored = storedFormat(file.path, name, tensor.dtype);
  const count = elementCount(tensor.shape);
  for (let first = 0; first < count; first += piece) {
    const bytes = await file.read(name, first, Math.min(piece, count - first));
    checkFinite(file.path, name, bytes, stored, first);
    if (stored === dtype && stored === format) {
      yield bytes;
      continue;
    }
    const values = toF32(bytes, stored);
    const rounded = dtype === "f32" || dtype === stored ? values : toF32(fromF32(values, dtype), dtype);
    const result = fromF32(rounded, format);
    const lost = firstNotFiniteStored(result, format);
    if (lost >= 0) {
      const narrow = dtype === "f32" ? format : dtype;
      throw new ModelFormatError(
        `${file.path}: tensor "${name}" holds ${values[lost]} (element ${first + lost}), too large for ${DTYPE_NAMES[narrow]}; load it as ${wider(narrow)}.`,
      );
    }
    yield result;
  }
}

/** A tensor of the weight files that was found there before. */
export function checkedTensor(files: WeightFiles, name: string): WeightTensor {
  const tensor = files.tensors.get(name);
  if (tensor === undefined) throw new Error(`tensor ${name} was checked and is gone`);
  return tensor;
}

/**
 * The f32 values of a quantised tensor, by pieces of whole blocks. Throws ModelFormatError for scales that are not
 * finite.
 */
async function* savedPieces(
  tensor: WeightTensor,
  name: string,
  piece: number,
): AsyncGenerator<Float32Array<ArrayBuffer>> {
  const { block, bits } = QUANTIZED.nf4;
  const scales = await savedScales(tensor, name);
  const count = elementCount(tensor.shape);
  for (let first = 0; first < count; first += piece) {
    const size = Math.min(piece, count - first);
    const codes = await tensor.saved?.codes((first * bits) / 8, Math.ceil((size * bits) / 8));
    if (codes !== undefined) yield dequantized("nf4", codes, scales.subarray(first / block), size);
  }
}

/** The scales of a quantised tensor. Throws ModelFormatError for one that is not finite. */
export async function savedScales({ file, saved }: WeightTensor, name: string): Promise<Float32Array<ArrayBuffer>> {
  const scales = (await saved?.scales()) ?? new Float32Array(0);
  const at = firstNotFinite(scales);
  if (at < 0) return scales;
  throw new ModelFormatError(
    `${file.path}: the scale of block ${at} of tensor "${name}" is ${scales[at]}; the file is damaged.`,
  );
}

/**
 * A tensor of the weight files as f32 values, by pieces. Throws ModelFormatError for numbers that are not finite.
 *
 * @param dtype what the numbers are rounded to on the way; default not at all
 */
export async function* storedPieces(
  files: WeightFiles,
  name: string,
  dtype: StoredFormat = "f32",
): AsyncGenerator<Float32Array<ArrayBuffer>> {
  for await (const bytes of readPieces(files, name, { dtype, format: "f32", piece: PIECE })) yield toF32(bytes, "f32");
}

/** A tensor of an arena as f32 values, by pieces of at most `piece` elements. */
export async function* arenaPieces(
  arena: Arena,
  { segment, offset, shape }: Place & { readonly shape: readonly number[] },
  piece: number = PIECE,
): AsyncGenerator<Float32Array<ArrayBuffer>> {
  const count = elementCount(shape);
  for (let first = 0; first < count; first += piece) {
    const size = Math.min(piece, count - first);
    const window = arena.at({ segment, offset: offset + first }, [size]);
    yield await valuesOf(arena.device, window, size);
  }
}

async function valuesOf(device: Device, window: Tensor, count: number): Promise<Float32Array<ArrayBuffer>> {
  const bytes = await bytesOf(device, window);
  if (!isQuantized(window.dtype)) return toF32(bytes, window.dtype as StoredFormat);
  if (window.scales === undefined) throw new Error("a quantised tensor has no scales");
  const { scales } = QUANTIZED[window.dtype];
  return dequantized(window.dtype, bytes, toF32(await bytesOf(device, window.scales), scales), count);
}

/** A tensor's own bytes; those that are copied with it, of a word that it does not begin or end, are left out. */
async function bytesOf(device: Device, window: Tensor): Promise<Uint8Array<ArrayBuffer>> {
  const before = window.offset % 4;
  const size = Math.ceil(elementCount(window.shape) * elementBytes(window.dtype));
  const words = {
    ...window,
    offset: window.offset - before,
    dtype: "u32",
    shape: [Math.ceil((before + size) / 4)],
  } as const;
  return new Uint8Array(await device.downloadBytes(words), before, size);
}

/** Passes pieces on. Throws NumericError for NaN, infinities and numbers that the file's format cannot hold. */
export async function* finitePieces(
  name: string,
  pieces: AsyncIterable<Float32Array<ArrayBuffer>>,
  dtype: StoredFormat,
  cause = "the training diverged; lower learning_rate",
): AsyncGenerator<Float32Array<ArrayBuffer>> {
  for await (const values of pieces) {
    const at = firstNotFinite(values);
    if (at >= 0) {
      throw new NumericError(`The model cannot be saved: its "${name}" holds ${values[at]}, so ${cause}.`);
    }
    const lost = dtype === "f32" ? -1 : firstNotFiniteStored(fromF32(values, dtype), dtype);
    if (lost >= 0) {
      throw new NumericError(
        `The model cannot be saved as ${DTYPE_NAMES[dtype]}: its "${name}" holds ${values[lost]}, which is too large; save it as ${wider(dtype)}.`,
      );
    }
    yield values;
  }
}

/** The formats that hold larger numbers than this one, for messages. */
function wider(format: StoredFormat): string {
  return format === "f16" ? `${DTYPE_NAMES.bf16} or ${DTYPE_NAMES.f32}` : DTYPE_NAMES.f32;
}

/** Throws ModelFormatError for NaN and infinities: one such weight spoils every log-probability. */
function checkFinite(
  path: string,
  name: string,
  bytes: Uint8Array<ArrayBuffer>,
  format: StoredFormat,
  first: number,
): void {
  const at = firstNotFiniteStored(bytes, format);
  if (at < 0) return;
  const [value] = toF32(bytes.slice(at * elementBytes(format), (at + 1) * elementBytes(format)), format);
  throw new ModelFormatError(
    `${path}: tensor "${name}" holds ${value} (element ${first + at}); the file is damaged, or the training that wrote it diverged.`,
  );
}
