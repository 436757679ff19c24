/**
 * Noise on embeddings (NEFTune, Jain et al. 2023):
 *
 *   y[t, c] += amplitude (2 u - 1)      u = hash(keys[t], c) / 2^32, even in [0, 1)
 *
 * Hash and keys are dropout's, of a stream that no layer has, and so the noise follows from the seed, the update and the
 * tokens up to this one: a run that is resumed draws the same. Its gradient passes on what it gets.
 */
import { dropoutHash } from "./dropout.ts";
import { kernel } from "./kernel.ts";
import { rowElements, rowElementsGrid } from "./wgsl.ts";

/** The stream of the noise: adapters number theirs from 0. */
export const NOISE_STREAM = 0xffffffff;

/** y [T, C] += the noise; keys u32[T] and state u32[2] are dropout's, amplitude one number that the host writes with it. */
export const addUniformNoise = kernel({
  name: "addUniformNoise",
  read: { keys: "u32[T]", state: "u32[2]", amplitude: "f32[1]" },
  write: { y: "f32[T, C]" },
  uniforms: { T: "u32", C: "u32", stream: "u32" },
  wgsl: /* wgsl */ `${dropoutHash}
fn element(row: u32, column: u32) {
  y[row * u.C + column] += amplitude[0] * (f32(hash(keys[row], column) >> 8u) * ${1 / 2 ** 23} - 1.0);
}
${rowElements("u.T", "u.C")}`,
  grid: ({ T = 0, C = 0 }) => rowElementsGrid(T, C),
  cost: ({ T = 0, C = 0 }) => ({ flops: 16 * T * C, bytes: 8 * T * C }),
});
