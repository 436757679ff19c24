/** Factors of rows and by position, and the soft cap of logits, against float64, over odd shapes. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import * as twin from "../../src/kernels/float64/scale.ts";
import { scaleByPosition, scaleRows, softCap } from "../../src/kernels/scale.ts";
import { EPSILON, expectWithin, normals, seeded, storedBound, tanhError } from "../helpers/compare.ts";
import { ACTIVATION_FORMATS, sharedDevice } from "../helpers/device.ts";
import { f32, runKernel, stored, u32 } from "../helpers/gpu.ts";

const device = await sharedDevice();
const POSITIONS = 40;

const shapes = fc.record({
  T: fc.constantFrom(1, 2, 7, 33),
  columns: fc.constantFrom(1, 3, 4, 8, 65),
  /** Columns behind those that are scaled. */
  rest: fc.constantFrom(0, 3, 4),
  seed: fc.nat(1e9),
});

describe("scale", () => {
  it("multiplies whole rows", async () => {
    await fc.assert(
      fc.asyncProperty(shapes, async ({ T, columns, seed }) => {
        const x = normals(seeded(seed), T * columns);
        const result = await runKernel(device, scaleRows, { x: f32([T, columns], x), factor: 12 });
        expect([...result("x")]).toEqual([...x].map((value) => Math.fround(12 * value)));
      }),
      { seed: 81, numRuns: 12 },
    );
  });

  it.each(ACTIVATION_FORMATS)(
    "multiplies the first columns of rows in %s by their positions, and no others",
    async (format) => {
      const factors = Float64Array.from({ length: POSITIONS }, (_, p) => twin.positionFactor(p, 0.1, 16));
      expect([factors[15], factors[16], factors[39]]).toEqual([1, 1 + 0.1 * Math.log(2), 1 + 0.1 * Math.log(3)]);
      await fc.assert(
        fc.asyncProperty(shapes, async ({ T, columns, rest, seed }) => {
          const random = seeded(seed);
          const width = columns + rest;
          const { array, values: x } = stored(format, [T, width], normals(random, T * width));
          // One position is beyond the table, as padding's never is.
          const positions = Array.from({ length: T }, (_, t) => (t === 1 ? POSITIONS + 9 : random.below(POSITIONS)));
          const result = await runKernel(device, scaleByPosition, {
            positions: u32([T], positions),
            factors: f32([POSITIONS], factors),
            x: array,
            columns,
          });
          const scaled = twin.scaleByPosition(
            x,
            positions.map((position) => Math.min(position, POSITIONS - 1)),
            factors,
          );
          const wanted = x.map((value, i) => (i % width < columns ? (scaled[i] ?? Number.NaN) : value));
          expectWithin("x", result("x"), wanted, (i) =>
            i % width < columns
              ? storedBound(format, wanted[i] ?? Number.NaN, 2 * EPSILON * Math.abs(wanted[i] ?? 0))
              : Number.MIN_VALUE,
          );
        }),
        { seed: 82, numRuns: 20 },
      );
    },
  );

  it("caps logits softly, from where tanh is straight to where exp overflows", async () => {
    const values = [0, 1e-20, 0.1, -0.1, 5, -30, 29, 300, -300, 1e4, -1e30];
    const result = await runKernel(device, softCap(30), { x: f32([1, values.length], values) });
    const wanted = values.map((value) => twin.softCapped(Math.fround(value), 30));
    expectWithin("x", result("x"), wanted, (i) => 30 * (tanhError((values[i] ?? 0) / 30) + 4 * EPSILON));
    expect([...result("x")].slice(7)).toEqual([30, -30, 30, -30].map((value) => expect.closeTo(value, 4)));
    expect(twin.softCapped(7, undefined)).toBe(7);
  });
});
