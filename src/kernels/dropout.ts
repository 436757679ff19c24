/**
 * Dropout. Its random numbers follow from a counter, so the backward pass computes them a second time and keeps no
 * mask:
 *
 *   y[t, c] = x[t, c] keptScale   if hash(keys[t], c, stream, state) >= threshold, else 0
 *
 * The hash is PCG4D (Jarzynski and Olano, "Hash Functions for GPU Rendering", 2020), its first word. A row's key follows
 * from its token and those before it in its sequence (`packRows`), so a row draws the same numbers in whichever
 * microbatch, and on whichever rank, it is computed. `state` is the seed and the update, written by the host before each
 * pass, and `stream` tells layers apart. threshold = p 2^32 and keptScale = 1 / (1 - p) for a share p left out.
 */
import { inFormats, kernel } from "./kernel.ts";
import { activationBinding, storedBytes } from "./stored.ts";
import { rowElements, rowElementsGrid } from "./wgsl.ts";

const UNIFORMS = { T: "u32", C: "u32", stream: "u32", threshold: "u32", keptScale: "f32" } as const;

/** WGSL: `hash(key, column)`, of the binding `state` and the uniform `stream`. */
export const dropoutHash = /* wgsl */ `
fn hash(key: u32, column: u32) -> u32 {
  var v = vec4u(key, column + u.stream * 0x9e3779b9u, state[0], state[1]);
  v = v * 1664525u + 1013904223u;
  v.x += v.y * v.w;
  v.y += v.z * v.x;
  v.z += v.x * v.y;
  v.w += v.y * v.z;
  v ^= v >> vec4u(16u);
  v.x += v.y * v.w;
  return v.x;
}
`;

const kept = /* wgsl */ `${dropoutHash}
fn kept(row: u32, column: u32) -> f32 {
  return select(0.0, f32(x[row * u.C + column]) * u.keptScale, hash(keys[row], column) >= u.threshold);
}
`;

function dropoutKernel(name: string, assign: "=" | "+=") {
  return inFormats((format) =>
    kernel({
      name,
      read: { x: activationBinding(format, "T, C", false), keys: "u32[T]", state: "u32[2]" },
      write: { y: "f32[T, C]" },
      uniforms: UNIFORMS,
      wgsl: /* wgsl */ `${kept}
fn element(row: u32, column: u32) {
  y[row * u.C + column] ${assign} kept(row, column);
}
${rowElements("u.T", "u.C")}`,
      grid: ({ T = 0, C = 0 }) => rowElementsGrid(T, C),
      cost: ({ T = 0, C = 0 }) => ({ flops: 16 * T * C, bytes: (4 + storedBytes(format)) * T * C }),
    }),
  );
}

/** y [T, C] = dropout(x); x is an activation in any format. */
export const dropout = dropoutKernel("dropout", "=");

/** y [T, C] += dropout(x): the backward pass, which is the same mask and scale. */
export const addDropout = dropoutKernel("addDropout", "+=");
