/** Which rows stand out among logged examples. */
import { expect, test } from "vitest";
import type { ExampleLine } from "../../../src/kto/run/example-line.ts";
import { StandingOut } from "../../../src/kto/run/row-line.ts";

/** A line with these log-ratios by row; rows with an even number are thumbs up. */
function line(step: number, ratios: Readonly<Record<number, number | null>>): ExampleLine {
  const index = Object.keys(ratios).map(Number);
  const of = <T>(value: T) => index.map(() => value);
  return {
    ...{ step, beta: 0.1, desirable_weight: 1, undesirable_weight: 1, rows: index.length },
    ...{ z0: [0], z0_unclamped: [0], pairs: [1], index, label: index.map((row) => row % 2 === 0), group: of(0) },
    ...{ log_ratio: index.map((row) => ratios[row] ?? null), u: of(0), v: of(0), saturated: of(false) },
  };
}

const sorted = (rows: readonly number[]) => [...rows].sort((a, b) => a - b);

test("of each class the three with the highest rewards and the three with the lowest, each once in a run", () => {
  const rows = new StandingOut();
  // Thumbs up 0, 2, ..., 38 with rewards that rise with the row; one thumb down.
  const ups = Array.from({ length: 20 }, (_, i) => [2 * i, i] as const);
  const found = rows.take(line(1, Object.fromEntries([...ups, [1, 5]])));
  expect(sorted(found)).toEqual([0, 1, 2, 4, 34, 36, 38]);
  expect(rows.take(line(2, Object.fromEntries(ups)))).toEqual([]);
});

test("a row that moved farther than others is named though its reward is neither high nor low", () => {
  const rows = new StandingOut();
  const before = Object.fromEntries(Array.from({ length: 20 }, (_, i) => [2 * i, i]));
  rows.take(line(1, before));
  // Row 20, in the middle, goes to the other side of the middle; the others stay.
  expect(rows.take(line(2, { ...before, 20: 8.5 }))).toEqual([20]);
});

test("rows without a number and rows that were named before are passed over; an update of any size names few", () => {
  const rows = new StandingOut([4]);
  expect(rows.take(line(1, { 2: null, 4: 1, 6: 2 }))).toEqual([6]);
  const all = Object.fromEntries(Array.from({ length: 256 }, (_, i) => [10 + i, i]));
  expect(rows.take(line(2, all))).toHaveLength(12);
  expect(
    rows.take(line(3, Object.fromEntries(Object.keys(all).map((row, i) => [row, -i])))).length,
  ).toBeLessThanOrEqual(18);
});
