/** Rotary positions against float64, forward and back, and the columns that must not turn. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { NO_ROW } from "../../src/kernels/embedding.ts";
import { ropeBackward, ropeForward } from "../../src/kernels/float64/rope.ts";
import { partialRope, rope, ropeIntoCache } from "../../src/kernels/rope.ts";
import { LONG_SEQUENCE, type RopeScaling, ropeRegimes, ropeTable } from "../../src/kernels/rope-table.ts";
import { EPSILON, expectWithin, float64, normals, seeded, storedBound } from "../helpers/compare.ts";
import { ACTIVATION_FORMATS, sharedDevice } from "../helpers/device.ts";
import { f32, runKernel, stored, u32 } from "../helpers/gpu.ts";

const device = await sharedDevice();
const POSITIONS = 1024;

const shapes = fc.record({
  T: fc.constantFrom(1, 2, 5, 17),
  heads: fc.constantFrom(1, 2, 3, 9),
  headSize: fc.constantFrom(2, 4, 6, 8, 48),
  /** Value heads beside the rotated ones. */
  rest: fc.constantFrom(0, 3, 8),
  theta: fc.constantFrom(10000, 500000),
  scaling: fc.constantFrom<RopeScaling>(
    { type: "none" },
    { type: "linear", factor: 3 },
    { type: "llama3", factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalContextLength: 256 },
  ),
  direction: fc.constantFrom(1, -1),
  seed: fc.integer({ min: 0, max: 2 ** 31 }),
});

describe.each(ACTIVATION_FORMATS)("rope of %s", (format) => {
  it("turns the first heads of every row by its own position, and leaves the other columns alone", async () => {
    await fc.assert(
      fc.asyncProperty(shapes, async ({ T, heads, headSize, rest, theta, scaling, direction, seed }) => {
        const random = seeded(seed);
        const width = heads * headSize + rest;
        const { array, values: x } = stored(format, [T, width], normals(random, T * width));
        const positions = Array.from({ length: T }, () => random.below(POSITIONS));
        const half = headSize / 2;
        const result = await runKernel(device, rope, {
          positions: u32([T], positions),
          table: f32([POSITIONS, 2, half], ropeTable(POSITIONS, { rotated: headSize, theta, scaling })),
          x: array,
          heads,
          direction,
        });
        const rotated = Float64Array.from({ length: T * heads * headSize }, (_, i) => {
          const row = Math.floor(i / (heads * headSize));
          return x[row * width + (i % (heads * headSize))] ?? Number.NaN;
        });
        const inputs = { positions, heads, headSize, theta, scaling };
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
            const bound = 4 * EPSILON * (Math.abs(rotated[i] ?? 0) + Math.abs(rotated[partner] ?? 0));
            return storedBound(format, wanted[i] ?? Number.NaN, bound);
          },
        );
        const others = indices.filter((i) => !inside(i));
        expect(others.map((i) => y[i])).toEqual(others.map((i) => x[i]));
      }),
      { seed: 21, numRuns: 40 },
    );
  });
});

describe.each(ACTIVATION_FORMATS)("partial rope of %s", (format) => {
  const partial = fc.record({
    T: fc.constantFrom(1, 2, 5, 17),
    heads: fc.constantFrom(1, 2, 3, 9),
    // Rotated channels and channels of a head; the last pair in vectors.
    sizes: fc.constantFrom([2, 4], [6, 6], [6, 9], [12, 16], [24, 32]),
    rest: fc.constantFrom(0, 3, 8),
    long: fc.boolean(),
    direction: fc.constantFrom(1, -1),
    seed: fc.integer({ min: 0, max: 2 ** 31 }),
  });

  it("turns the first channels of each head, by the table of the row's regime, and leaves the others alone", async () => {
    await fc.assert(
      fc.asyncProperty(partial, async ({ T, heads, sizes, rest, long, direction, seed }) => {
        const [rotated = 0, headSize = 0] = sizes;
        const random = seeded(seed);
        const width = heads * headSize + rest;
        const { array, values: x } = stored(format, [T, width], normals(random, T * width));
        const positions = Array.from({ length: T }, () => random.below(POSITIONS));
        const isLong = positions.map((_, t) => long && t % 2 === 0);
        const factors = (from: number) => Array.from({ length: rotated / 2 }, (_, pair) => from + pair);
        const scaling: RopeScaling = long
          ? {
              ...{ type: "longrope", shortFactors: factors(1), longFactors: factors(2), magnitude: 1.25 },
              originalContextLength: 100,
            }
          : { type: "none" };
        const turns = { rotated, theta: 10000, scaling };
        const regimes = ropeRegimes(turns);
        const result = await runKernel(device, partialRope, {
          positions: u32(
            [T],
            positions.map((position, t) => (isLong[t] ? (position | LONG_SEQUENCE) >>> 0 : position)),
          ),
          table: f32([regimes * POSITIONS, 2, rotated / 2], ropeTable(POSITIONS, turns)),
          x: array,
          ...{ heads, headSize, regimes, direction },
        });
        const wanted = Float64Array.from(x);
        const bound = new Float64Array(x.length);
        for (let t = 0; t < T; t++) {
          const inputs = { positions: [positions[t] ?? 0], heads, headSize, ...turns, length: isLong[t] ? 101 : 100 };
          const row = Float64Array.from(x.subarray(t * width, t * width + heads * headSize));
          const y = (direction === 1 ? ropeForward : ropeBackward)({ ...inputs, x: row });
          for (const [c, value] of y.entries()) {
            const [at, channel] = [t * width + c, c % headSize];
            wanted[at] = value;
            if (channel >= rotated) continue;
            const partner = channel < rotated / 2 ? c + rotated / 2 : c - rotated / 2;
            // Four roundings of terms no larger than the pair times the magnitude.
            bound[at] = 5 * EPSILON * (Math.abs(row[c] ?? 0) + Math.abs(row[partner] ?? 0));
          }
        }
        expectWithin("x", result("x"), wanted, (i) =>
          (bound[i] ?? 0) === 0 ? 0 : storedBound(format, wanted[i] ?? Number.NaN, bound[i] ?? 0),
        );
      }),
      { seed: 23, numRuns: 40 },
    );
  });
});

describe("rope into a cache", () => {
  const cases = fc.record({
    T: fc.constantFrom(1, 2, 5, 17, 70),
    heads: fc.constantFrom(1, 2, 3, 9),
    keyHeads: fc.constantFrom(1, 2, 3),
    headSize: fc.constantFrom(2, 4, 6, 8, 48, 64),
    seed: fc.integer({ min: 0, max: 2 ** 31 }),
  });

  it("turns queries in place and puts turned keys and values into their rows, and writes nothing else", async () => {
    await fc.assert(
      fc.asyncProperty(cases, async ({ T, heads, keyHeads, headSize, seed }) => {
        const random = seeded(seed);
        const [queries, keyWidth, rows] = [heads * headSize, keyHeads * headSize, 2 * T + 3];
        const width = queries + 2 * keyWidth;
        const x = Float32Array.from(normals(random, T * width));
        const positions = Array.from({ length: T }, () => random.below(POSITIONS));
        // Every third row has no place in the cache; the others come in an order of their own.
        const cacheRows = Array.from({ length: T }, (_, t) => (t % 3 === 2 ? NO_ROW : rows - 1 - 2 * t));
        const before = Float32Array.from(normals(random, rows * keyWidth));
        const turns = { rotated: headSize, theta: 10000, scaling: { type: "none" } } as const;
        const result = await runKernel(device, ropeIntoCache, {
          positions: u32([T], positions),
          table: f32([POSITIONS, 2, headSize / 2], ropeTable(POSITIONS, turns)),
          cacheRows: u32([T], cacheRows),
          x: f32([T, width], x),
          keys: f32([rows, keyWidth], before),
          values: f32([rows, keyWidth], before),
          heads,
        });
        const turned = heads + keyHeads;
        const columnsOf = (t: number, from: number, count: number) =>
          x.subarray(t * width + from, t * width + from + count);
        const rotated = ropeForward({
          x: float64(Array.from({ length: T }, (_, t) => [...columnsOf(t, 0, turned * headSize)]).flat()),
          ...{ positions, heads: turned, headSize, theta: 10000 },
        });
        const [wantedX, wantedKeys, wantedValues] = [float64(x), float64(before), float64(before)];
        const boundX = new Float64Array(x.length);
        const boundKeys = new Float64Array(before.length);
        for (let t = 0; t < T; t++) {
          const cacheRow = cacheRows[t] ?? NO_ROW;
          for (let c = 0; c < turned * headSize; c++) {
            const value = rotated[t * turned * headSize + c] ?? Number.NaN;
            const partner = c % headSize < headSize / 2 ? c + headSize / 2 : c - headSize / 2;
            // As in `rope`: four roundings of terms no larger than the pair.
            const bound = 4 * EPSILON * (Math.abs(x[t * width + c] ?? 0) + Math.abs(x[t * width + partner] ?? 0));
            if (c < queries) [wantedX[t * width + c], boundX[t * width + c]] = [value, bound];
            else if (cacheRow !== NO_ROW) {
              const at = cacheRow * keyWidth + c - queries;
              [wantedKeys[at], boundKeys[at]] = [value, bound];
            }
          }
          if (cacheRow !== NO_ROW) wantedValues.set(columnsOf(t, queries + keyWidth, keyWidth), cacheRow * keyWidth);
        }
        expectWithin("x", result("x"), wantedX, boundX);
        expectWithin("keys", result("keys"), wantedKeys, boundKeys);
        expect([...result("values")]).toEqual([...wantedValues]);
      }),
      { seed: 22, numRuns: 25 },
    );
  });
});
