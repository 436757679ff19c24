/** Arenas seen as one tensor, which they are for the small f32 models of the tests. */
import type { Arena, ParameterLayout } from "../../src/engine/gpu/arena.ts";
import type { Tensor } from "../../src/engine/gpu/tensor.ts";

/** The only segment. */
export function wholeArena(arena: Arena): Tensor {
  const [segment, ...more] = arena.segments;
  if (segment === undefined || more.length > 0) throw new Error(`the arena has ${arena.segments.length} segments`);
  return segment;
}

/** Elements of an arena of this layout, padding included. */
export function arenaSize(layout: ParameterLayout): number {
  return layout.segments.reduce((sum, { size }) => sum + size, 0);
}
