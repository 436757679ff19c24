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
type State = [number, number];

/** Keys of rows, of which no two are alike. */
const keysOf = (rows: number, first = 1) =>
  Array.from({ length: rows }, (_, row) => Math.imul(row + first, 2654435761) >>> 0);

async function run(x: HostArray, p: number, stream: number, state: State, keys = keysOf(x.shape[0] ?? 0)) {
  const args = { x, keys: u32([keys.length], keys), state: u32([2], state), stream };
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
    const state: State = [0xfedcba98, 70000];
    for (const format of ACTIVATION_FORMATS) {
      const { array, values } = stored(format, [rows, columns], given);
      const y = await run(array, p, 11, state);
      const wanted = twin.dropout(values, keysOf(rows), p, 11, state);
      expectWithin(format, y, wanted, (i) => 2 ** -22 * Math.abs(wanted[i] ?? 0));
    }
  });

  it("leaves out its share, and other elements for another seed, update, layer or key", async () => {
    const ones = f32([200, 100], new Float32Array(200 * 100).fill(1));
    const draws: [number, State, number[]?][] = [
      [0, [1, 0]],
      [0, [2, 0]],
      [0, [1, 1]],
      [1, [1, 0]],
      [0, [1, 0], keysOf(200, 2)],
    ];
    const kept = await Promise.all(
      draws.map(async ([stream, ...by]) => (await run(ones, 0.3, stream, ...by)).map((y) => (y === 0 ? 0 : 1))),
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
    expect(await run(ones, 0.3, 0, [1, 0])).toEqual(await run(ones, 0.3, 0, [1, 0]));
  });

  it("of a row depends on its key alone, wherever it stands", async () => {
    const [rows, columns] = [40, 33];
    const values = normals(seeded(4), rows * columns);
    const order = Array.from({ length: rows }, (_, row) => (7 * row + 3) % rows);
    const moved = order.flatMap((row) => [...values.subarray(row * columns, (row + 1) * columns)]);
    const keys = keysOf(rows);
    const whole = await run(f32([rows, columns], values), 0.4, 3, [9, 1], keys);
    const shuffled = await run(
      f32([rows, columns], moved),
      0.4,
      3,
      [9, 1],
      order.map((row) => keys[row] ?? 0),
    );
    for (const [at, row] of order.entries()) {
      const of = (y: Float32Array, place: number) => y.subarray(place * columns, (place + 1) * columns);
      expect(of(shuffled, at)).toEqual(of(whole, row));
    }
  });

  it("adds the same mask of a gradient to what was there", async () => {
    const [x, before] = [normals(seeded(1), 15 * 9), normals(seeded(2), 15 * 9)];
    const state: State = [5, 6];
    const args = {
      x: f32([15, 9], x),
      keys: u32([15], keysOf(15)),
      state: u32([2], state),
      stream: 2,
      threshold: 2 ** 31,
      keptScale: 2,
    };
    const y = (await runKernel(device, addDropout, { ...args, y: f32([15, 9], before) }))("y");
    const wanted = twin.dropout(float64(x), keysOf(15), 0.5, 2, state);
    expect([...y]).toEqual([...wanted].map((value, i) => Math.fround(value + (before[i] ?? 0))));
  });
});
