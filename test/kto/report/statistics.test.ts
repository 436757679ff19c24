/** Wilson's interval against published and independently computed values, and what a win rate counts. */
import { describe, expect, test } from "vitest";
import { ConfigError } from "../../../src/errors.ts";
import { disjoint, wilsonInterval, winRate } from "../../../src/kto/report/statistics.ts";

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
