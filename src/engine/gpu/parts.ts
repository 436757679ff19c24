/**
 * Parts of parameters: what a rank keeps of an optimizer's state, and what is exchanged at once. A part begins where a
 * block of coded moments may begin, so that blocks are the same however a parameter is divided.
 */
import { MOMENT_BLOCK } from "../../kernels/dynamic-map.ts";
import type { Arena } from "./arena.ts";
import { byteLength, type Tensor, WINDOW_ALIGNMENT } from "./tensor.ts";

/** Elements [from, from + size) of a parameter. */
export interface ParameterSlice {
  /** The parameter's. */
  readonly name: string;
  /** A multiple of `PART_STEP`. */
  readonly from: number;
  readonly size: number;
}

/** Elements at whose multiples a parameter may be divided: whole blocks of moments, and whole windows. */
export const PART_STEP = Math.max(MOMENT_BLOCK, WINDOW_ALIGNMENT / 4);

/** Elements of a part in an f32 arena, with the padding behind the parameter's last one. */
export function paddedSize(size: number): number {
  const step = WINDOW_ALIGNMENT / 4;
  return Math.ceil(size / step) * step;
}

/** A part with its padding in an f32 arena that holds the parameter. */
export function partWindow(arena: Arena, { name, from, size }: ParameterSlice): Tensor {
  const { segment, offset } = arena.layout.place(name);
  return arena.at({ segment, offset: offset + from }, [paddedSize(size)]);
}

/** The windows of parts in an f32 arena, those that follow one another in memory as one. */
export function partWindows(arena: Arena, parts: readonly ParameterSlice[]): Tensor[] {
  const windows: Tensor[] = [];
  for (const part of parts) {
    const window = partWindow(arena, part);
    const last = windows.at(-1);
    if (last && last.buffer === window.buffer && last.offset + byteLength(last) === window.offset) {
      windows[windows.length - 1] = { ...last, shape: [(byteLength(last) + byteLength(window)) / 4] };
    } else windows.push(window);
  }
  return windows;
}
