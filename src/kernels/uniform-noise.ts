/**
 * Noise on embeddings (NEFTune, Jain et al. 2023):
 *
 *   y[t, c] += amplitude (2 u - 1)      u = hash(t C + c) / 2^32, even in [0, 1)
 *
 * The hash is dropout's, of a stream that no layer has, and so the noise follows from seed, update and microbatch: a run
 * that is resumed draws the same. Its gradient passes on what it gets.
 */
import { dropoutHash } from "./dropout.ts";
import { kernel } from "./kernel.ts";
import { rowElements, rowElementsGrid } from "./wgsl.ts";

/** The stream of the noise: adapters number theirs from 0. */
export const NOISE_STREAM = 0xffffffff;

/** y [T, C] += the noise; state is dropout's, u32[4], amplitude one number that the host writes with it. */
export const addUniformNoise = kernel({
  name: "addUniformNoise",
  read: { state: "u32[4]", amplitude: "f32[1]" },
  write: { y: "f32[T, C]" },
  uniforms: { T: "u32", C: "u32", stream: "u32" },
  wgsl: /* wgsl */ `${dropoutHash}
fn element(row: u32, column: u32) {
  let i = row * u.C + column;
  y[i] += amplitude[0] * (f32(hash(i) >> 8u) * ${1 / 2 ** 23} - 1.0);
}
${rowElements("u.T", "u.C")}`,
  grid: ({ T = 0, C = 0 }) => rowElementsGrid(T, C),
  cost: ({ T = 0, C = 0 }) => ({ flops: 16 * T * C, bytes: 8 * T * C }),
});
