/** Rewards over a run: how they are spread, and which rows stand out. */
import { describe, expect, test } from "vitest";
import { ticks } from "../../src/dashboard/page/value-picture.ts";
import { RewardHistory } from "../../src/dashboard/reward-history.ts";

const line = (step: number, rows: readonly (readonly [number, boolean, number | null])[]) =>
  JSON.stringify({
    ...{ step, beta: 0.5, index: rows.map(([index]) => index) },
    ...{ label: rows.map(([, label]) => label), log_ratio: rows.map(([, , ratio]) => ratio) },
  });

describe("the spread", () => {
  test("has a column for each logged update, counts by class, and medians; what is damaged or no number is passed over", () => {
    const history = new RewardHistory();
    expect(history.spread).toBeUndefined();
    history.add(line(1, [[0, true, 0], [1, true, 6], [2, false, -3]])); // biome-ignore format: rows
    history.add("{half");
    history.add(line(5, [[0, true, 3], [2, false, null]])); // biome-ignore format: rows
    const spread = history.spread;
    expect([spread?.low, spread?.high]).toEqual([-1.5, 3]);
    expect([spread?.from, spread?.to]).toEqual([
      [1, 5],
      [1, 5],
    ]);
    const places = (counts: readonly number[] = []) =>
      counts.flatMap((count, bin) => (count > 0 ? [[bin, count]] : []));
    // 30 bins of 0.15 each; the highest reward belongs to the last one.
    expect(spread?.up.map(places)).toEqual([[[10, 1], [29, 1]], [[20, 1]]]); // biome-ignore format: pairs
    expect(spread?.down.map(places)).toEqual([[[0, 1]], []]);
    expect(spread?.upMedian).toEqual([1.5, 1.5]);
    expect(spread?.downMedian).toEqual([-1.5, null]);
  });

  test("before training all rewards are 0, and the range has a width", () => {
    const history = new RewardHistory();
    history.add(line(1, [[0, true, 0]]));
    expect(history.spread).toMatchObject({ low: -0.5, high: 0.5, upMedian: [0] });
  });

  test("of 1000 updates has at most 60 columns, which lose no example", () => {
    const history = new RewardHistory();
    for (let step = 10; step <= 10_000; step += 10) history.add(line(step, [[step, step % 20 === 0, step]]));
    const { from = [], to = [], up = [], down = [] } = history.spread ?? {};
    expect(from.length).toBeLessThanOrEqual(60);
    expect([from[0], to.at(-1)]).toEqual([10, 10_000]);
    expect([...up, ...down].flat().reduce((sum, count) => sum + count, 0)).toBe(1000);
  });
});

test("rows stand out by their last reward, and by how far they moved since the first", () => {
  const history = new RewardHistory();
  const rows = Array.from({ length: 12 }, (_, index) => [index, index < 8, index] as const);
  history.add(line(1, rows));
  history.add(line(2, [[7, true, 7.5], [0, true, 20]])); // biome-ignore format: rows
  const { rows: count, groups } = history.standingOut;
  expect(count).toBe(12);
  const told = groups.map(({ kind, label, rows: some }) => [kind, label, some.map(({ index }) => index)]);
  expect(told).toEqual([
    ["highest", true, [0, 7, 6, 5, 4]],
    ["lowest", true, [1, 2, 3, 4, 5]],
    ["highest", false, [11, 10, 9, 8]],
    ["lowest", false, [8, 9, 10, 11]],
    ["moved", undefined, [0, 7]],
  ]);
  expect(groups.at(-1)?.rows[0]?.rewards).toEqual({ steps: [1, 2], values: [0, 10] });
  history.clear();
  expect(history.standingOut).toEqual({ rows: 0, groups: [] });
});

test.each([
  [0, 10, 4, [0, 5, 10]],
  [-1.5, 3, 4, [0, 2]],
  [1, 12, 4, [5, 10]],
  [3, 3, 4, [3]],
])("an axis from %d to %d", (low, high, about, wanted) => {
  expect(ticks(low, high, about)).toEqual(wanted);
});
