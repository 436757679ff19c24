/** NEFTune's noise against its twin, to the bit of the hash, and what it is drawn by. */
import { expect, it } from "vitest";
import * as twin from "../../src/kernels/float64/uniform-noise.ts";
import { addUniformNoise, NOISE_STREAM } from "../../src/kernels/uniform-noise.ts";
import { expectWithin, normals, seeded } from "../helpers/compare.ts";
import { sharedDevice } from "../helpers/device.ts";
import { f32, runKernel, u32 } from "../helpers/gpu.ts";

const device = await sharedDevice();
const keys = Array.from({ length: 150 }, (_, row) => (row * 2654435761) >>> 0);

async function run(y: Float32Array, shape: [number, number], amplitude: number, state: number[]) {
  const args = {
    keys: u32([shape[0]], keys),
    state: u32([2], state),
    amplitude: f32([1], [amplitude]),
    y: f32(shape, y),
    stream: NOISE_STREAM,
  };
  return (await runKernel(device, addUniformNoise, args))("y");
}

it("adds what the twin draws, even within the amplitude, another for another update", async () => {
  const shape: [number, number] = [150, 71];
  const before = normals(seeded(1), shape[0] * shape[1]);
  const state = [42, 70000] as const;
  const found = await run(before, shape, 0.25, [...state]);
  const noise = twin.uniformNoise(keys, shape[1], 0.25, NOISE_STREAM, state);
  expectWithin(
    "noise",
    found,
    noise.map((value, i) => value + (before[i] ?? 0)),
    () => 1e-6,
  );
  const mean = noise.reduce((sum, value) => sum + value, 0) / noise.length;
  const square = noise.reduce((sum, value) => sum + value * value, 0) / noise.length;
  // An even distribution within a has a variance of a^2 / 3; five standard deviations of its mean.
  expect(Math.abs(mean)).toBeLessThan((5 * 0.25) / Math.sqrt(3 * noise.length));
  expect(Math.abs(square / (0.25 ** 2 / 3) - 1)).toBeLessThan(0.05);
  expect(noise.every((value) => Math.abs(value) <= 0.25)).toBe(true);
  expect(await run(before, shape, 0.25, [42, 70001])).not.toEqual(found);
});
