/** Rotary positions against float64, forward and back, and the columns that must not turn. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ropeBackward, ropeForward } from "../../src/kernels/reference/rope.ts";
import { rope, ropeTable } from "../../src/kernels/rope.ts";
import { EPSILON, expectWithin, normals, seeded } from "../helpers/compare.ts";
import { sharedDevice } from "../helpers/device.ts";
import { f32, runKernel, u32 } from "../helpers/gpu.ts";

const device = await sharedDevice();
const POSITIONS = 1024;

const shapes = fc.record({
  T: fc.constantFrom(1, 2, 5, 17),
  heads: fc.constantFrom(1, 2, 3, 9),
  headSize: fc.constantFrom(2, 4, 6, 8, 48),
  /** Value heads beside the rotated ones. */
  rest: fc.constantFrom(0, 3, 8),
  theta: fc.constantFrom(10000, 500000),
  direction: fc.constantFrom(1, -1),
  seed: fc.integer({ min: 0, max: 2 ** 31 }),
});

describe("rope", () => {
  it("turns the first heads of every row by its own position, and leaves the other columns alone", async () => {
    await fc.assert(
      fc.asyncProperty(shapes, async ({ T, heads, headSize, rest, theta, direction, seed }) => {
        const random = seeded(seed);
        const width = heads * headSize + rest;
        const x = normals(random, T * width);
        const positions = Array.from({ length: T }, () => random.below(POSITIONS));
        const half = headSize / 2;
        const result = await runKernel(device, rope, {
          positions: u32([T], positions),
          table: f32([POSITIONS, half, 2], ropeTable(POSITIONS, headSize, theta)),
          x: f32([T, width], x),
          heads,
          direction,
        });
        const rotated = Float64Array.from({ length: T * heads * headSize }, (_, i) => {
          const row = Math.floor(i / (heads * headSize));
          return x[row * width + (i % (heads * headSize))] ?? Number.NaN;
        });
        const inputs = { positions, heads, headSize, theta };
        const wanted =
          direction === 1 ? ropeForward({ ...inputs, x: rotated }) : ropeBackward({ ...inputs, x: rotated });
        const y = result("x");
        const inside = (i: number) => i % width < heads * headSize;
        const indices = Array.from({ length: T * width }, (_, i) => i);
        // Two products of rounded cosines and one addition: four roundings of terms no larger than |x1| and |x2|.
        expectWithin(
          "rotated",
          indices.filter(inside).map((i) => y[i] ?? Number.NaN),
          wanted,
          (i) => {
            const partner = i % headSize < half ? i + half : i - half;
            return 4 * EPSILON * (Math.abs(rotated[i] ?? 0) + Math.abs(rotated[partner] ?? 0));
          },
        );
        const others = indices.filter((i) => !inside(i));
        expect(others.map((i) => y[i])).toEqual(others.map((i) => x[i]));
      }),
      { seed: 21, numRuns: 40 },
    );
  });

  it("the table holds cosines and sines of float64 angles, each rounded once", () => {
    const table = ropeTable(POSITIONS, 8, 10000);
    const [position, pair] = [1023, 1];
    const angle = position * 10000 ** (-2 / 8);
    const entry = (position * 4 + pair) * 2;
    expect([table[entry], table[entry + 1]]).toEqual([Math.fround(Math.cos(angle)), Math.fround(Math.sin(angle))]);
  });
});
