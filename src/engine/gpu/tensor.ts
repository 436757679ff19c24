/**
 * A tensor: shape, element type and a window into a device buffer. Tensors own nothing; buffers come from
 * `device.allocate`, which counts their bytes by category.
 */
import type { ElementType } from "../../kernels/kernel.ts";

export interface Tensor {
  readonly buffer: GPUBuffer;
  /** Bytes from the start of the buffer; a multiple of 256 wherever the tensor is bound. */
  readonly offset: number;
  readonly shape: readonly number[];
  readonly dtype: ElementType;
}

/** Bytes of one element of a type. */
export function elementBytes(dtype: ElementType): number {
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

/** Rows [first, first + rows) of a tensor whose first axis counts rows. */
export function sliceRows(tensor: Tensor, first: number, rows: number): Tensor {
  const [total = 0, ...rest] = tensor.shape;
  if (first < 0 || rows < 0 || first + rows > total) {
    throw new Error(`rows [${first}, ${first + rows}) are outside a tensor of ${total} rows`);
  }
  const rowBytes = elementCount(rest) * elementBytes(tensor.dtype);
  return { ...tensor, offset: tensor.offset + first * rowBytes, shape: [rows, ...rest] };
}

/** Splits a tensor of rows into windows of at most `maxBytes`, all aligned, each with the number of its first row. */
export function rowWindows(tensor: Tensor, maxBytes: number): { readonly first: number; readonly window: Tensor }[] {
  const [total = 0, ...rest] = tensor.shape;
  const perElement = elementBytes(tensor.dtype);
  const step = WINDOW_ALIGNMENT / perElement;
  const most = Math.max(1, Math.floor(maxBytes / (elementCount(rest) * perElement) / step)) * step;
  return Array.from({ length: Math.ceil(total / most) }, (_, index) => {
    const first = index * most;
    return { first, window: sliceRows(tensor, first, Math.min(most, total - first)) };
  });
}

/** The same bytes under another shape of the same size, or of a smaller one that starts at the same byte. */
export function reshape(tensor: Tensor, shape: readonly number[]): Tensor {
  if (elementCount(shape) > elementCount(tensor.shape)) {
    throw new Error(`cannot see [${tensor.shape.join(", ")}] as [${shape.join(", ")}]`);
  }
  return { ...tensor, shape };
}
