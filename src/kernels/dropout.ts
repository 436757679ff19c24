/**
 * Dropout. Its random numbers follow from a counter, so the backward pass computes them a second time and keeps no
 * mask:
 *
 *   y[t, c] = x[t, c] keptScale   if hash((firstRow + t) C + c, stream, state) >= threshold, else 0
 *
 * The hash is PCG4D (Jarzynski and Olano, "Hash Functions for GPU Rendering", 2020), its first word; `state` is the
 * seed, the update, the microbatch and a spare word, written by the host before each pass, and `stream` tells layers
 * apart. Rows may be a slice of others, from `firstRow` on. threshold = p 2^32 and keptScale = 1 / (1 - p) for a share p left out.
 */
import { inFormats, kernel } from "./kernel.ts";
import { activationBinding, storedBytes } from "./stored.ts";
import { rowElements, rowElementsGrid } from "./wgsl.ts";

const UNIFORMS = { T: "u32", C: "u32", firstRow: "u32", stream: "u32", threshold: "u32", keptScale: "f32" } as const;

/** WGSL: `hash(i)`, of the binding `state` and the uniform `stream`. */
export const dropoutHash = /* wgsl */ `
fn hash(i: u32) -> u32 {
  var v = vec4u(i, u.stream ^ (state[3] * 0x9e3779b9u), state[0], state[1] * 65536u + state[2]);
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
fn kept(i: u32) -> f32 {
  return select(0.0, f32(x[i]) * u.keptScale, hash(u.firstRow * u.C + i) >= u.threshold);
}
`;

function dropoutKernel(name: string, assign: "=" | "+=") {
  return inFormats((format) =>
    kernel({
      name,
      read: { x: activationBinding(format, "T, C", false), state: "u32[4]" },
      write: { y: "f32[T, C]" },
      uniforms: UNIFORMS,
      wgsl: /* wgsl */ `${kept}
fn element(row: u32, column: u32) {
  let i = row * u.C + column;
  y[i] ${assign} kept(i);
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
