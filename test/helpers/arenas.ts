/** Arenas seen as one tensor, which they are for the small f32 models of the tests. */
import type { Arena, ParameterLayout } from "../../src/engine/gpu/arena.ts";
import type { Tensor } from "../../src/engine/gpu/tensor.ts";

/** The only segment. */
export function wholeArena(arena: Arena): Tensor {
  const [segment, ...more] = arena.segments;
  if (segment === undefined || more.length > 0) throw new Error(`the arena has ${arena.segments.length} segments`);
  return segment;
}

/** All numbers of an arena in however many buffers: parameters lie in the same order in one and in several. */
export async function arenaNumbers(arena: Arena): Promise<Float32Array<ArrayBuffer>> {
  const parts: number[] = [];
  for (const segment of arena.segments) for (const value of await arena.device.download(segment)) parts.push(value);
  return Float32Array.from(parts);
}

/** Uploads numbers for all elements of an arena, in the order of `arenaNumbers`. */
export function fillArena(arena: Arena, numbers: Float32Array<ArrayBuffer>): void {
  let from = 0;
  for (const segment of arena.segments) {
    const size = segment.shape[0] ?? 0;
    arena.device.upload(segment, numbers.slice(from, from + size));
    from += size;
  }
}

/** Elements of an arena of this layout, padding included. */
export function arenaSize(layout: ParameterLayout): number {
  return layout.segments.reduce((sum, { size }) => sum + size, 0);
}
