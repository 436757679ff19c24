/** Moving rows: gather, scatter, and the deterministic sum of embedding gradients over the host's buckets. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { bucketRows, embeddingBackward, gatherRows, NO_ROW, scatterRows } from "../../src/kernels/embedding.ts";
import * as twin from "../../src/kernels/float64/embedding.ts";
import { bits, EPSILON, expectWithin, float64, normals, SMALLEST_NORMAL, seeded } from "../helpers/compare.ts";
import { sharedDevice } from "../helpers/device.ts";
import { f32, runKernel, stored, u32, unset } from "../helpers/gpu.ts";

const device = await sharedDevice();

const shapes = fc.record({
  T: fc.constantFrom(1, 2, 7, 64, 65),
  V: fc.constantFrom(1, 2, 13, 97),
  C: fc.constantFrom(1, 3, 8, 65),
  seed: fc.integer({ min: 0, max: 2 ** 31 }),
});

const at = (values: ArrayLike<number>, index: number) => values[index] ?? Number.NaN;

/** The gradient of a table [V, C], computed at once or, like a table too large to bind, in two windows. */
async function checkBackward(
  ids: Uint32Array,
  used: number,
  V: number,
  C: number,
  seed: number,
  firstOfSecond = V,
): Promise<void> {
  const T = ids.length;
  const random = seeded(seed);
  const dy = normals(random, T * C);
  const before = normals(random, V * C);
  const { order, bucketIds, bucketStarts } = bucketRows(ids, used);
  const args = {
    dy: f32([T, C], dy),
    order: u32([T], order),
    bucketIds: u32([T], bucketIds),
    bucketStarts: u32([T + 1], bucketStarts),
  };
  const run = async () => {
    const windows = [
      [0, firstOfSecond],
      [firstOfSecond, V],
    ].filter(([from = 0, to = 0]) => to > from);
    const parts: number[] = [];
    for (const [from = 0, to = 0] of windows) {
      const dTable = f32([to - from, C], before.subarray(from * C, to * C));
      parts.push(...(await runKernel(device, embeddingBackward, { ...args, dTable, firstRow: from }))("dTable"));
    }
    return Float32Array.from(parts);
  };
  const result = await run();
  const usedIds = ids.subarray(0, used);
  const usedDy = float64(dy.subarray(0, used * C));
  const wanted = twin.embeddingBackward(usedDy, usedIds, V, C);
  const terms = twin.embeddingBackward(usedDy.map(Math.abs), usedIds, V, C);
  expectWithin(
    "dTable",
    result,
    wanted.map((value, i) => value + at(before, i)),
    // A sum of at most `used` terms and what was there: one rounding per addition, like a random walk.
    (i) => 2 * Math.sqrt(used + 1) * EPSILON * (at(terms, i) + Math.abs(at(before, i))),
  );
  expect(bits(await run())).toEqual(bits(result));
}

describe("embedding backward", () => {
  it("adds the gradient of every row to its token's, whatever the buckets' sizes, with the same bits twice", async () => {
    await fc.assert(
      fc.asyncProperty(shapes, async ({ T, V, C, seed }) => {
        const random = seeded(seed);
        // Squared, so that few tokens are frequent and many are rare.
        const ids = Uint32Array.from({ length: T }, () => Math.floor(V * random.float() ** 2));
        await checkBackward(ids, T, V, C, seed, V > 2 ? random.below(V) : V);
      }),
      { seed: 41, numRuns: 25 },
    );
  });

  it("all tokens equal: one bucket takes every row", async () => {
    await checkBackward(new Uint32Array(65).fill(12), 65, 13, 3, 1);
  });

  it("rows beyond the used ones take no part, whatever they hold", async () => {
    await checkBackward(Uint32Array.of(3, 0, 3, 5, 5, 5, 2), 4, 6, 5, 2);
    await checkBackward(Uint32Array.of(3, 0, 3), 0, 6, 5, 3);
  });
});

describe("buckets", () => {
  it("hold each row once, ordered by id and then by row, with one bucket per id", () => {
    const { order, bucketIds, bucketStarts } = bucketRows(Uint32Array.of(7, 2, 7, 0, 2, 9), 5);
    expect([...order]).toEqual([3, 1, 4, 0, 2, 0]);
    expect([...bucketIds]).toEqual([0, 2, 7, NO_ROW, NO_ROW, NO_ROW]);
    expect([...bucketStarts]).toEqual([0, 1, 3, 5, 5, 5, 5]);
  });
});

describe("gather and scatter", () => {
  it.each(["bf16", "f16", "nf4", "int8"] as const)(
    "gather unpacks rows stored as %s, whatever the width",
    async (format) => {
      await fc.assert(
        fc.asyncProperty(shapes, async ({ T: N, V, C, seed }) => {
          const random = seeded(seed);
          const { array, values } = stored(format, [V, C], normals(random, V * C));
          const rows = Array.from({ length: N }, () => random.below(V));
          const args = { table: array, rows: u32([N], rows), y: unset(N, C), firstRow: 0, accumulate: 0 };
          const y = (await runKernel(device, gatherRows(format), args))("y");
          expect(Float64Array.from(y)).toEqual(twin.gatherRows(values, rows, C));
        }),
        { seed: 43, numRuns: 20 },
      );
    },
  );

  it.each([
    ["bf16", 7, 127],
    ["f16", 10, 15],
  ] as const)("gather unpacks every finite number of %s", async (format, fractionBits, bias) => {
    const exponentOf = (pattern: number) => (pattern & 0x7fff) >> fractionBits;
    const patterns = Uint16Array.from({ length: 65536 }, (_, pattern) => pattern).filter(
      (pattern) => exponentOf(pattern) <= 2 * bias,
    );
    const wanted = Array.from(patterns, (pattern) => {
      const fraction = (pattern & (2 ** fractionBits - 1)) / 2 ** fractionBits;
      const exponent = exponentOf(pattern);
      const size = exponent === 0 ? fraction * 2 ** (1 - bias) : (1 + fraction) * 2 ** (exponent - bias);
      return pattern & 0x8000 ? -size : size;
    });
    const shape = [patterns.length / 256, 256];
    const y = await runKernel(device, gatherRows(format), {
      table: { shape, dtype: format, data: patterns },
      rows: u32(
        [shape[0] ?? 0],
        Array.from({ length: shape[0] ?? 0 }, (_, row) => row),
      ),
      y: unset(...shape),
      firstRow: 0,
      accumulate: 0,
    });
    // What f32 has no normal number for, an implementation may flush to zero: the lowest of bf16, none of f16.
    const flushed = (value: number) => (Math.abs(value) < SMALLEST_NORMAL ? 0 : value);
    expect([...y("y")].map((value) => flushed(value) + 0)).toEqual(wanted.map((value) => flushed(value) + 0));
  });

  it("gather copies rows, gives zeros for NO_ROW, and adds on request", async () => {
    await fc.assert(
      fc.asyncProperty(shapes, fc.boolean(), async ({ T: N, V, C, seed }, accumulate) => {
        const random = seeded(seed);
        const table = normals(random, V * C);
        const before = normals(random, N * C);
        const rows = Array.from({ length: N }, () => random.below(V));
        const missing = rows.map(() => random.below(4) === 0);
        const ids = u32(
          [N],
          rows.map((row, n) => (missing[n] ? NO_ROW : row)),
        );
        // The table in two windows, as one too large to bind: the second adds to what the first wrote.
        const split = V > 2 ? random.below(V) : 0;
        let y = accumulate ? f32([N, C], before) : unset(N, C);
        let adds = accumulate;
        for (const [from, to] of [
          [0, split],
          [split, V],
        ] as const) {
          if (to === from) continue;
          const window = f32([to - from, C], table.subarray(from * C, to * C));
          const arguments_ = { table: window, rows: ids, y, firstRow: from, accumulate: Number(adds) };
          y = f32([N, C], (await runKernel(device, gatherRows(), arguments_))("y"));
          adds = true;
        }
        const gathered = twin.gatherRows(float64(table), rows, C);
        const wanted = gathered.map((value, i) => {
          const moved = missing[Math.floor(i / C)] ? 0 : value;
          return accumulate ? Math.fround(moved + at(before, i)) : moved;
        });
        expect([...y.data]).toEqual([...wanted]);
      }),
      { seed: 42, numRuns: 25 },
    );
  });

  const offsets = fc.nat(3);
  it("gather reaches rows beyond one row of workgroups", async () => {
    const count = 4 * 32768 + 3;
    const rows = Uint32Array.from({ length: count }, (_, n) => n % 3);
    const arguments_ = {
      table: f32([3, 1], Float32Array.of(1, 2, 3)),
      rows: u32([count], [...rows]),
      y: unset(count, 1),
    };
    const y = (await runKernel(device, gatherRows(), { ...arguments_, firstRow: 0, accumulate: 0 }))("y");
    expect([...y].findIndex((value, n) => value !== 1 + (n % 3))).toBe(-1);
  });

  it("scatter moves a range of columns to rows that do not repeat, and leaves the others alone", async () => {
    await fc.assert(
      fc.asyncProperty(shapes, offsets, offsets, fc.boolean(), async ({ T, V, C: drawn, seed }, first, last, fours) => {
        // Half of the cases in multiples of 4, for which columns move as vectors.
        const [C = 1, from = 0, after = 0] = [drawn, first, last].map((size) => (fours ? 4 * size : size));
        const N = Math.min(T, V);
        const random = seeded(seed);
        const width = from + C + after;
        const x = normals(random, N * width);
        const before = normals(random, V * C);
        const rows = random.shuffle(Array.from({ length: V }, (_, v) => v)).slice(0, N);
        const missing = rows.map(() => random.below(4) === 0);
        const result = await runKernel(device, scatterRows, {
          x: f32([N, width], x),
          rows: u32(
            [N],
            rows.map((row, n) => (missing[n] ? NO_ROW : row)),
          ),
          y: f32([V, C], before),
          xColumn: from,
        });
        const wanted = [...before];
        rows.forEach((row, n) => {
          for (let c = 0; c < C; c++) if (!missing[n]) wanted[row * C + c] = at(x, n * width + from + c);
        });
        expect([...result("y")]).toEqual(wanted);
      }),
      { seed: 43, numRuns: 25 },
    );
  });
});
