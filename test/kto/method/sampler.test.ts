import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Random } from "../../../src/engine/random.ts";
import { ConfigError, DatasetError } from "../../../src/errors.ts";
import { epochSchedule, mismatchedPairs, rowsLeftOut, type SampledRow } from "../../../src/kto/method/sampler.ts";

const row = (prompt: number, completion: number, label: boolean): SampledRow => ({
  promptIds: [prompt],
  completionIds: Uint32Array.of(completion),
  label,
});

/** Rows whose texts repeat as often as `kinds` makes them. */
const rowsOf = (min: number, max: number, kinds: number) =>
  fc
    .array(fc.tuple(fc.nat(kinds - 1), fc.nat(kinds - 1), fc.boolean()), { minLength: min, maxLength: max })
    .map((list) => list.map(([prompt, completion, label]) => row(prompt, completion, label)));

const invalidPairs = (schedule: readonly (readonly number[])[], rows: readonly SampledRow[]) =>
  schedule
    .flatMap((batch) => mismatchedPairs(batch.map((index) => rows[index] as SampledRow)).valid)
    .filter((valid) => !valid).length;

describe("epochSchedule", () => {
  it("uses every row once, in microbatches of almost equal size with their share of both classes", () => {
    fc.assert(
      fc.property(
        rowsOf(2, 60, 6),
        fc.integer({ min: 2, max: 20 }),
        fc.nat(1000),
        fc.nat(5),
        fc.boolean(),
        (rows, batchSize, seed, epoch, groupByLength) => {
          const schedule = epochSchedule(rows, { batchSize, seed, epoch, groupByLength });
          const used = schedule.flat().sort((a, b) => a - b);
          expect(new Set(used).size).toBe(used.length);
          const left = rowsLeftOut(rows.length, schedule);
          expect(used.length + left).toBe(rows.length);
          expect(left).toBe(batchSize === 2 ? rows.length % 2 : 0);
          expect(schedule.length).toBe(Math.ceil(used.length / batchSize));

          const sizes = schedule.map((batch) => batch.length);
          expect(Math.max(...sizes) - Math.min(...sizes)).toBeLessThanOrEqual(1);
          expect(Math.min(...sizes)).toBeGreaterThanOrEqual(2);

          const desirable = used.filter((index) => rows[index]?.label).length;
          for (const batch of schedule) {
            const share = (batch.length * desirable) / used.length;
            expect(Math.abs(batch.filter((index) => rows[index]?.label).length - share)).toBeLessThan(1);
          }
        },
      ),
    );
  });

  it("is a function of data, seed and epoch, and each of them matters", () => {
    const rows = Array.from({ length: 40 }, (_, i) => row(i, i, i % 3 === 0));
    const schedule = (seed: number, epoch: number) => epochSchedule([...rows], { batchSize: 8, seed, epoch });
    expect(schedule(1, 3)).toEqual(schedule(1, 3));
    expect(schedule(1, 3)).not.toEqual(schedule(1, 4));
    expect(schedule(1, 3)).not.toEqual(schedule(2, 3));
  });

  it("finds an order without a self-pair wherever there is one (against all orders, up to 6 rows)", () => {
    fc.assert(
      fc.property(rowsOf(2, 6, 3), fc.integer({ min: 2, max: 6 }), fc.nat(1000), (rows, batchSize, seed) => {
        const schedule = epochSchedule(rows, { batchSize, seed, epoch: 0 });
        if (invalidPairs(schedule, rows) === 0) return;
        const labels = schedule.map((batch) => batch.filter((index) => rows[index]?.label).length);
        for (const order of permutations(schedule.flat())) {
          const rest = [...order];
          const other = schedule.map(({ length }) => rest.splice(0, length));
          const balanced = other.every((batch, k) => batch.filter((index) => rows[index]?.label).length === labels[k]);
          if (balanced) expect(invalidPairs(other, rows)).toBeGreaterThan(0);
        }
      }),
      { numRuns: 300, seed: 20 },
    );
  });

  it("has no self-pair in one microbatch while no text belongs to more than half of its rows", () => {
    fc.assert(
      fc.property(fc.integer({ min: 4, max: 64 }), fc.nat(1000), fc.boolean(), (size, seed, onPrompt) => {
        // One text in exactly half of the rows, the others in pairs of equals: the tightest case.
        const half = Math.floor(size / 2);
        const rows = Array.from({ length: size }, (_, i) => {
          const shared = i < half ? 0 : 1 + ((i - half) >> 1);
          return onPrompt ? row(shared, i, i % 2 === 0) : row(i, shared, i % 2 === 0);
        });
        expect(invalidPairs(epochSchedule(rows, { batchSize: size, seed, epoch: 0 }), rows)).toBe(0);
      }),
    );
  });

  it("exchanges rows between microbatches: two answers only, in even microbatches, never meet themselves", () => {
    const random = new Random(9);
    const rows = Array.from({ length: 256 }, (_, i) => row(i, i % 2, random.float() < 0.3));
    for (let epoch = 0; epoch < 5; epoch++) {
      expect(invalidPairs(epochSchedule(rows, { batchSize: 8, seed: 4, epoch }), rows)).toBe(0);
    }
  });

  it("grouped by length, rows of a microbatch are alike, in a seeded order without self-pairs", () => {
    const random = new Random(3);
    const rows = Array.from({ length: 1000 }, (_, i): SampledRow => {
      const ids = (length: number) => Array.from({ length }, () => random.below(1000));
      return { promptIds: ids(2 + random.below(40)), completionIds: ids(1 + random.below(200)), label: i % 4 !== 0 };
    });
    const lengthOf = (index: number) => (rows[index]?.promptIds.length ?? 0) + (rows[index]?.completionIds.length ?? 0);
    /** The share of padding if each microbatch were a rectangle, as in trainers that pad. */
    const paddingShare = (schedule: readonly number[][]) => {
      const padded = schedule.reduce((sum, batch) => sum + batch.length * Math.max(...batch.map(lengthOf)), 0);
      return 1 - schedule.flat().reduce((sum, index) => sum + lengthOf(index), 0) / padded;
    };
    const schedule = (groupByLength: boolean, epoch = 0) =>
      epochSchedule(rows, { batchSize: 8, seed: 4, epoch, groupByLength });
    const [grouped, mixed] = [schedule(true), schedule(false)];
    expect(paddingShare(mixed)).toBeGreaterThan(0.3);
    expect(paddingShare(grouped)).toBeLessThan(0.08);
    expect(invalidPairs(grouped, rows)).toBe(0);
    expect(schedule(true)).toEqual(grouped);
    expect(schedule(true, 1)).not.toEqual(grouped);
    // The microbatches come in a random order: no curriculum of lengths.
    const means = grouped.map((batch) => batch.reduce((sum, index) => sum + lengthOf(index), 0) / batch.length);
    const falls = means.slice(1).filter((mean, i) => mean < (means[i] ?? 0)).length;
    expect(falls).toBeGreaterThan(means.length / 3);
    expect(falls).toBeLessThan((means.length * 2) / 3);
  });

  it("mixes the rows of a preference pair among the others", () => {
    const rows = Array.from({ length: 200 }, (_, i) => row(i >> 1, i, i % 2 === 0));
    const schedule = epochSchedule(rows, { batchSize: 8, seed: 0, epoch: 0 });
    const together = schedule.flatMap((batch) =>
      batch.filter((index) => index % 2 === 0 && batch.includes(index + 1)),
    ).length;
    // Of 100 pairs, 100 * 7 / 199 = 3.5 are expected to meet by chance.
    expect(together).toBeLessThan(15);
    expect(invalidPairs(schedule, rows)).toBe(0);
  });

  it("marks what cannot be avoided: a single prompt, and more than half of the rows with one completion", () => {
    const onePrompt = Array.from({ length: 6 }, (_, i) => row(1, i, i % 2 === 0));
    expect(invalidPairs(epochSchedule(onePrompt, { batchSize: 3, seed: 0, epoch: 0 }), onePrompt)).toBe(6);
    // Five of eight alike: 2 * 5 - 8 pairs at least.
    const mostAlike = Array.from({ length: 8 }, (_, i) => row(i, i < 5 ? 0 : i, true));
    expect(invalidPairs(epochSchedule(mostAlike, { batchSize: 8, seed: 0, epoch: 0 }), mostAlike)).toBe(2);
  });

  it("leaves every row out once in n epochs when rows are odd and microbatches are pairs", () => {
    const rows = Array.from({ length: 7 }, (_, i) => row(i, i, i % 2 === 0));
    const leftOut = rows.map((_, epoch) => {
      const used = new Set(epochSchedule(rows, { batchSize: 2, seed: 3, epoch }).flat());
      expect(used.size).toBe(6);
      return rows.findIndex((_, index) => !used.has(index));
    });
    expect(leftOut.sort()).toEqual([0, 1, 2, 3, 4, 5, 6]);
  });

  it("gives 9 rows at 4 no microbatch of one", () => {
    const rows = Array.from({ length: 9 }, (_, i) => row(i, i, i % 2 === 0));
    expect(epochSchedule(rows, { batchSize: 4, seed: 0, epoch: 0 }).map((batch) => batch.length)).toEqual([3, 3, 3]);
  });

  it("keeps the file's order without shuffling, self-pairs included", () => {
    const rows = [row(1, 1, true), row(1, 2, true), row(2, 3, false), row(3, 4, true), row(4, 5, false)];
    const options = { seed: 5, epoch: 2, shuffle: false };
    expect(epochSchedule(rows, { ...options, batchSize: 8 })).toEqual([[0, 1, 2, 3, 4]]);
    expect(epochSchedule(rows, { ...options, batchSize: 3 }).flat()).toEqual([0, 1, 2, 3, 4]);
  });

  it("allows single rows where no reference point is estimated", () => {
    const rows = [row(1, 1, true), row(1, 2, false), row(2, 2, true)];
    const schedule = epochSchedule(rows, { batchSize: 1, seed: 0, epoch: 0, mismatched: false });
    expect(schedule.map((batch) => batch.length)).toEqual([1, 1, 1]);
    expect(schedule.flat().sort()).toEqual([0, 1, 2]);
  });

  it("says why one row is not enough", () => {
    const rows = [row(1, 1, true), row(2, 2, false)];
    expect(() => epochSchedule(rows, { batchSize: 1, seed: 0, epoch: 0 })).toThrow(ConfigError);
    expect(() => epochSchedule(rows, { batchSize: 1, seed: 0, epoch: 0 })).toThrow(/batch_size is 1.*reference point/);
    expect(() => epochSchedule(rows.slice(1), { batchSize: 4, seed: 0, epoch: 0 })).toThrow(DatasetError);
    expect(() => epochSchedule(rows, { batchSize: 2.5, seed: 0, epoch: 0 })).toThrow(/2\.5.*whole number/);
  });
});

describe("mismatchedPairs", () => {
  it("pairs row i with row (i + 1) mod m and refuses equal prompts and equal completions", () => {
    const rows = [row(1, 1, true), row(1, 2, true), row(2, 2, false), row(3, 3, false)];
    expect(mismatchedPairs(rows)).toEqual({ pair: [1, 2, 3, 0], valid: [false, false, true, true] });
  });

  it("does not take a prefix for an equal text, and a row alone for its own mismatch", () => {
    const long = { promptIds: [1, 2], completionIds: [1], label: true };
    expect(mismatchedPairs([row(1, 5, true), long]).valid).toEqual([true, true]);
    expect(mismatchedPairs([row(1, 5, true)])).toEqual({ pair: [0], valid: [false] });
  });
});

function* permutations(items: readonly number[]): Generator<number[]> {
  if (items.length <= 1) yield [...items];
  for (const [i, item] of items.entries()) {
    if (items.length <= 1) return;
    for (const rest of permutations(items.toSpliced(i, 1))) yield [item, ...rest];
  }
}
