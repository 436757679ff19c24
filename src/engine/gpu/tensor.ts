/**
 * A tensor: shape, element type and a window into a device buffer. Tensors own nothing; buffers come from
 * `device.allocate`, which counts their bytes by category.
 */
import { type ElementType, isQuantized, QUANTIZED, type QuantizedFormat } from "../../kernels/kernel.ts";

export interface Tensor {
  readonly buffer: GPUBuffer;
  /** Bytes from the start of the buffer; a multiple of 256 wherever the tensor is bound. */
  readonly offset: number;
  readonly shape: readonly number[];
  readonly dtype: ElementType;
  /** [blocks], of a quantised tensor, whose own bytes are codes. */
  readonly scales?: Tensor;
}

/** Bytes of one element of a type: half a byte of nf4, whose tensors have whole bytes. */
export function elementBytes(dtype: ElementType): number {
  if (isQuantized(dtype)) return QUANTIZED[dtype].bits / 8;
  return dtype === "f16" || dtype === "bf16" ? 2 : 4;
}

/** Windows must start at a multiple of this many bytes to be bound on every adapter. */
export const WINDOW_ALIGNMENT = 256;

export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** Bytes of a tensor's elements, in whole words of 4 bytes as WebGPU copies and binds them. */
export function byteLength({ shape, dtype }: Pick<Tensor, "shape" | "dtype">): number {
  return Math.ceil((elementCount(shape) * elementBytes(dtype)) / 4) * 4;
}

export function alignWindow(bytes: number): number {
  return Math.ceil(bytes / WINDOW_ALIGNMENT) * WINDOW_ALIGNMENT;
}

/**
 * Elements between places of quantised numbers whose codes and scales both start a window: 64 blocks of nf4 have scales
 * of 256 bytes, 128 of int8.
 */
export function quantizedAlignment(format: QuantizedFormat): number {
  const { block, scales } = QUANTIZED[format];
  return (WINDOW_ALIGNMENT / elementBytes(scales)) * block;
}

/** A tensor of this shape from element `first` on; of a quantised one the first of a block. */
export function tensorFrom(tensor: Tensor, first: number, shape: readonly number[]): Tensor {
  const { dtype, offset } = tensor;
  const moved = { ...tensor, offset: offset + first * elementBytes(dtype), shape };
  if (!isQuantized(dtype) || tensor.scales === undefined) return moved;
  const { block } = QUANTIZED[dtype];
  if (first % block !== 0) throw new Error(`element ${first} of a quantised tensor starts no block of ${block}`);
  const blocks = Math.ceil(elementCount(shape) / block);
  return { ...moved, scales: tensorFrom(tensor.scales, first / block, [blocks]) };
}

/** Rows [first, first + rows) of a tensor whose first axis counts rows. */
export function sliceRows(tensor: Tensor, first: number, rows: number): Tensor {
  const [total = 0, ...rest] = tensor.shape;
  if (first < 0 || rows < 0 || first + rows > total) {
    throw new Error(`rows [${first}, ${first + rows}) are outside a tensor of ${total} rows`);
  }
  return tensorFrom(tensor, first * elementCount(rest), [rows, ...rest]);
}

/** Splits a tensor of rows into windows of at most `maxBytes`, all aligned, each with the number of its first row. */
export function rowWindows(tensor: Tensor, maxBytes: number): { readonly first: number; readonly window: Tensor }[] {
  const [total = 0, ...rest] = tensor.shape;
  const perElement = elementBytes(tensor.dtype);
  const step = isQuantized(tensor.dtype)
    ? wholeRows(quantizedAlignment(tensor.dtype), elementCount(rest))
    : WINDOW_ALIGNMENT / perElement;
  const most = Math.max(1, Math.floor(maxBytes / (elementCount(rest) * perElement) / step)) * step;
  return Array.from({ length: Math.ceil(total / most) }, (_, index) => {
    const first = index * most;
    return { first, window: sliceRows(tensor, first, Math.min(most, total - first)) };
  });
}

/**
 * Rows of `columns` that make a multiple of `alignment` elements, a power of two; at least the 64 that sums go on by.
 */
function wholeRows(alignment: number, columns: number): number {
  let rows = 64;
  while ((rows * columns) % alignment !== 0) rows *= 2;
  return rows;
}

/**
 * A tensor over the bytes of a given one with another shape: of the same size, or of a smaller one from the same byte
 * on.
 */
export function reshape(tensor: Tensor, shape: readonly number[]): Tensor {
  if (elementCount(shape) > elementCount(tensor.shape)) {
    throw new Error(`cannot see [${tensor.shape.join(", ")}] as [${shape.join(", ")}]`);
  }
  return { ...tensor, shape };
}
