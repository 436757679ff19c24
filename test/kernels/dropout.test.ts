/**
 * Dropout against its twin: the same elements are left out, the others are scaled, and what is drawn depends on all
 * that it should.
 */
import { describe, expect, it } from "vitest";
import { addDropout, dropout } from "../../src/kernels/dropout.ts";
import * as twin from "../../src/kernels/float64/dropout.ts";
import { expectWithin, float64, normals, seeded } from "../helpers/compare.ts";
import { ACTIVATION_FORMATS, sharedDevice } from "../helpers/device.ts";
import { f32, type HostArray, runKernel, stored, u32, unset } from "../helpers/gpu.ts";

const device = await sharedDevice();
type State = [number, number, number, number];

async function run(x: HostArray, p: number, stream: number, state: State, firstRow = 0) {
  const args = { x, state: u32([4], state), stream, firstRow };
  const values = { threshold: Math.round(p * 2 ** 32), keptScale: 1 / (1 - p) };
  return (await runKernel(device, dropout, { ...args, ...values, y: unset(...x.shape) }))("y");
}

describe("dropout", () => {
  it.each([
    [[1, 1], 0.5],
    [[37, 71], 0.05],
    [[64, 128], 0.5],
    [[3, 1000], 0.99],
  ] as const)("of %j with a share of %d is the twin's, of activations in any format", async ([rows, columns], p) => {
    const given = normals(seeded(rows), rows * columns);
    const state: State = [0xfedcba98, 70000, 3, 1];
    for (const format of ACTIVATION_FORMATS) {
      const { array, values } = stored(format, [rows, columns], given);
      const y = await run(array, p, 11, state);
      const wanted = twin.dropout(values, p, 11, state);
      expectWithin(format, y, wanted, (i) => 2 ** -22 * Math.abs(wanted[i] ?? 0));
    }
  });

  it("leaves out its share, and other elements for another seed, update, microbatch or layer", async () => {
    const ones = f32([200, 100], new Float32Array(200 * 100).fill(1));
    const states: [number, State][] = [
      [0, [1, 0, 0, 0]],
      [0, [2, 0, 0, 0]],
      [0, [1, 1, 0, 0]],
      [0, [1, 0, 1, 0]],
      [1, [1, 0, 0, 0]],
    ];
    const kept = await Promise.all(
      states.map(async ([stream, state]) => (await run(ones, 0.3, stream, state)).map((y) => (y === 0 ? 0 : 1))),
    );
    const [first = new Float32Array()] = kept;
    for (const [index, mask] of kept.entries()) {
      // Five standard deviations of a binomial of 20,000.
      expect(Math.abs(mask.reduce((sum, one) => sum + one, 0) / 20_000 - 0.7)).toBeLessThan(0.0163);
      if (index === 0) continue;
      // Independent masks agree where both keep or both leave out: 0.7^2 + 0.3^2.
      const agree = mask.reduce((sum, one, i) => sum + (one === first[i] ? 1 : 0), 0) / 20_000;
      expect(Math.abs(agree - 0.58)).toBeLessThan(0.0175);
    }
    expect(await run(ones, 0.3, 0, [1, 0, 0, 0])).toEqual(await run(ones, 0.3, 0, [1, 0, 0, 0]));
  });

  it("of a slice of rows is that of these among all", async () => {
    const [rows, columns, first] = [40, 33, 17];
    const values = normals(seeded(4), rows * columns);
    const state: State = [9, 1, 2, 0];
    const slice = f32([rows - first, columns], values.slice(first * columns));
    const wanted = twin.dropout(float64(values), 0.4, 3, state).slice(first * columns);
    const y = await run(slice, 0.4, 3, state, first);
    expectWithin("slice", y, wanted, (i) => 2 ** -22 * Math.abs(wanted[i] ?? 0));
  });

  it("adds the same mask of a gradient to what was there", async () => {
    const [x, before] = [normals(seeded(1), 15 * 9), normals(seeded(2), 15 * 9)];
    const state: State = [5, 6, 7, 0];
    const args = {
      x: f32([15, 9], x),
      state: u32([4], state),
      firstRow: 0,
      stream: 2,
      threshold: 2 ** 31,
      keptScale: 2,
    };
    const y = (await runKernel(device, addDropout, { ...args, y: f32([15, 9], before) }))("y");
    const wanted = twin.dropout(float64(x), 0.5, 2, state);
    expect([...y]).toEqual([...wanted].map((value, i) => Math.fround(value + (before[i] ?? 0))));
  });
});
