/** The intervals against published and independently computed values, and what a win rate counts. */
import { describe, expect, test } from "vitest";
import { Random } from "../../../src/engine/random.ts";
import { ConfigError } from "../../../src/errors.ts";
import {
  differenceInterval,
  disjoint,
  meanInterval,
  wilsonInterval,
  winRate,
} from "../../../src/kto/report/statistics.ts";

describe("wilsonInterval", () => {
  // Newcombe 1998, table I, method 3 (Wilson without continuity correction), 95%.
  test.each([
    [81, 263, 0.2553, 0.3662],
    [15, 148, 0.0624, 0.1605],
    [0, 20, 0, 0.1611],
    [1, 29, 0.0061, 0.1718],
  ])("%i of %i", (successes, trials, low, high) => {
    const interval = wilsonInterval(successes, trials);
    expect(interval.share).toBe(successes / trials);
    expect(interval.low).toBeCloseTo(low, 4);
    expect(interval.high).toBeCloseTo(high, 4);
  });

  test("is the set of shares p for which the observed one lies within 1.96 standard errors of p", () => {
    const { share, low, high } = wilsonInterval(37, 120);
    for (const p of [low, high]) {
      expect(Math.abs(share - p) / Math.sqrt((p * (1 - p)) / 120)).toBeCloseTo(1.959964, 6);
    }
  });

  test("of all and of none it ends exactly at 1 and at 0, and mirrors itself", () => {
    expect(wilsonInterval(0, 7).low).toBe(0);
    expect(wilsonInterval(7, 7).high).toBe(1);
    expect(wilsonInterval(7, 7).low).toBeCloseTo(1 - wilsonInterval(0, 7).high, 12);
  });

  test.each([
    [1, 0],
    [-1, 5],
    [6, 5],
    [Number.NaN, 5],
    [1, 2.5],
  ])("%d of %d is refused", (successes, trials) => {
    expect(() => wilsonInterval(successes, trials)).toThrow(ConfigError);
  });
});

describe("meanInterval", () => {
  // Student 1908, hours of sleep gained by one drug over the other; R's t.test gives [0.7001142, 2.4598858].
  const sleep = [1.2, 2.4, 1.3, 1.3, 0, 1, 1.8, 0.8, 4.6, 1.4];

  test("is Student's", () => {
    const { mean, low, high } = meanInterval(sleep);
    expect(mean).toBeCloseTo(1.58, 12);
    expect(low).toBeCloseTo(0.7001142, 7);
    expect(high).toBeCloseTo(2.4598858, 7);
  });

  // Fisher and Yates, table of t at 5%.
  test.each([
    [1, 12.706],
    [2, 4.303],
    [3, 3.182],
    [4, 2.776],
    [7, 2.365],
    [30, 2.042],
    [120, 1.98],
  ])("uses t for %i degrees of freedom", (freedom, t) => {
    // +-a about 0 has the variance a^2 (freedom + 1) / freedom if all values are +-a; with an odd count one is 0.
    const values: number[] = Array.from({ length: freedom + 1 }, (_, i) =>
      i === freedom && i % 2 === 0 ? 0 : i % 2 ? 1 : -1,
    );
    const squares = values.reduce((sum, value) => sum + value ** 2, 0);
    const { mean, high } = meanInterval(values);
    expect(mean).toBeCloseTo(0, 12);
    expect(high / Math.sqrt(squares / freedom / (freedom + 1))).toBeCloseTo(t, 3);
  });

  test("an overlap widens it by sqrt(1 + n overlap), Nadeau and Bengio's correction", () => {
    const [plain, wide] = [meanInterval(sleep), meanInterval(sleep, 1 / 3)];
    expect((wide.high - wide.mean) / (plain.high - plain.mean)).toBeCloseTo(Math.sqrt(1 + 10 / 3), 12);
  });

  test("one value has none", () => {
    expect(() => meanInterval([1])).toThrow(ConfigError);
    expect(() => meanInterval([1, 2], Number.NaN)).toThrow(ConfigError);
  });
});

test("winRate counts the second model's wins, ties by half", () => {
  const result = winRate([
    [0, 1],
    [0, 1],
    [1, 1],
    [1, 0],
  ]);
  expect(result).toMatchObject({ wins: 2, ties: 1, losses: 1, share: 0.625 });
  expect(result.low).toBeLessThan(0.625);
});

test("disjoint: no point in common", () => {
  const interval = (low: number, high: number) => ({ share: (low + high) / 2, low, high });
  expect(disjoint(interval(0.1, 0.2), interval(0.3, 0.4))).toBe(true);
  expect(disjoint(interval(0.3, 0.4), interval(0.1, 0.2))).toBe(true);
  expect(disjoint(interval(0.1, 0.3), interval(0.3, 0.4))).toBe(false);
  expect(disjoint(interval(0.1, 0.9), interval(0.3, 0.4))).toBe(false);
});

describe("differenceInterval", () => {
  const group = (first: readonly number[], second: readonly number[]) => {
    const sum = (values: readonly number[]) => values.reduce((all, value) => all + value, 0);
    return { counts: [first.length, second.length], sums: [sum(first), sum(second)] } as const;
  };

  test("with a row of each class in every group it is the interval of the paired differences", () => {
    const [first, second] = [
      [0.3, 1.2, -0.4, 0.9, 0.1],
      [-0.2, 0.5, 0.1, -0.7, 0.4],
    ] as const;
    const found = differenceInterval(first.map((value, i) => group([value], [second[i] ?? 0])));
    const wanted = meanInterval(first.map((value, i) => value - (second[i] ?? 0)));
    for (const bound of ["mean", "low", "high"] as const) expect(found?.[bound]).toBeCloseTo(wanted[bound], 12);
  });

  test("holds the true difference in 95 of 100 samples, also where rows of a group are alike and classes unequal", () => {
    const random = new Random(5, 0);
    const uniform = () => random.uint32() / 2 ** 32 - 0.5;
    const trials = 2000;
    let held = 0;
    for (let trial = 0; trial < trials; trial++) {
      const groups = Array.from({ length: 24 }, () => {
        const common = uniform();
        const draw = (size: number, mean: number) => Array.from({ length: size }, () => mean + common + uniform());
        return group(draw(random.uint32() % 3, 0.3), draw(5, 0));
      });
      const { low = 0, high = 0 } = differenceInterval(groups) ?? {};
      if (low <= 0.3 && 0.3 <= high) held++;
    }
    expect(held / trials).toBeGreaterThan(0.93);
    expect(held / trials).toBeLessThan(0.97);
  });

  test("there is none for one group, and none without both classes", () => {
    expect(differenceInterval([group([1], [2])])).toBeUndefined();
    expect(differenceInterval([group([1], []), group([2], [])])).toBeUndefined();
  });
});
