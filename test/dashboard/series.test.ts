/** Series from lines of metrics, and fewer points of them; the geometry of the value function's picture. */
import { describe, expect, test } from "vitest";
import { compact, histogramOf, pictureOf, SATURATED_FROM, smoothed } from "../../src/dashboard/page/value-picture.ts";
import { SeriesTable, thinned } from "../../src/dashboard/series.ts";

test("metrics become series; what is damaged, null or no number is passed over", () => {
  const table = new SeriesTable();
  for (const line of [
    '{"step":1,"loss":0.5,"kl":0}',
    '{"step":2,"loss":null,"kl":0.1,"note":"x"}',
    "{half",
    "[1,2]",
    '{"loss":3}',
    '{"step":3,"loss":0.4,"__proto__":1}',
  ]) {
    table.add(line);
  }
  expect(table.lines).toBe(3);
  expect(table.series("loss")).toEqual({ steps: [1, 3], values: [0.5, 0.4] });
  expect(table.series("kl")).toEqual({ steps: [1, 2], values: [0, 0.1] });
  expect(table.series("note")).toEqual({ steps: [], values: [] });
});

test("memory is bounded: of many lines a part is kept, of the whole run, with the last ones and the peaks", () => {
  const table = new SeriesTable(2000);
  const count = 9000;
  for (let step = 1; step <= count; step++) table.add(`{"step":${step},"loss":${step === 777 ? 9 : 1 / step}}`);
  const { steps, values } = table.series("loss");
  expect(table.lines).toBe(count);
  expect(steps.length).toBeLessThanOrEqual(2000);
  expect(steps[0]).toBe(1);
  expect(steps.slice(-200)).toEqual(Array.from({ length: 200 }, (_, i) => count - 199 + i));
  expect(values).toContain(9);
  const quarters = [0, 1, 2, 3].map((at) => steps.filter((step) => Math.floor((4 * step) / (count + 1)) === at).length);
  expect(Math.min(...quarters)).toBeGreaterThan(150);
});

test("those who know the first lines are given the others, every point of them, unless these are too many", () => {
  const table = new SeriesTable();
  for (let step = 1; step <= 3000; step++) table.add(`{"step":${step},"loss":${step / 8},"kl":${step % 2}}`);
  expect([...(table.since(2998) ?? [])]).toEqual([
    ["loss", { steps: [2999, 3000], values: [374.875, 375] }],
    ["kl", { steps: [2999, 3000], values: [1, 0] }],
  ]);
  expect([...(table.since(3000) ?? [["none", 0]])]).toEqual([]);
  expect(table.since(2500)?.get("loss")?.steps).toHaveLength(500);
  expect(table.since(3001)).toBeUndefined();
  expect(table.since(0)).toBeUndefined();
  table.clear();
  expect(table.since(1)).toBeUndefined();
});

describe("thinned", () => {
  test("keeps ends, peaks and order of 100,000 points in 2,000", () => {
    const values = Array.from({ length: 100_000 }, (_, i) => Math.sin(i / 5000));
    values[31_234] = 9;
    values[77_777] = -9;
    const steps = values.map((_, i) => i + 1);
    const found = thinned({ steps, values }, 2000);
    expect(found.steps.length).toBeLessThanOrEqual(2000);
    expect(found.steps.length).toBeGreaterThan(1900);
    expect([found.steps[0], found.steps.at(-1)]).toEqual([1, 100_000]);
    expect(found.values).toContain(9);
    expect(found.values).toContain(-9);
    expect(found.steps).toEqual([...found.steps].sort((a, b) => a - b));
    expect(found.values).toEqual(found.steps.map((step) => values[step - 1]));
  });

  test("gives every part of the run its points, also where some parts were logged more often", () => {
    const steps = [
      ...Array.from({ length: 100 }, (_, i) => 100 * i),
      ...Array.from({ length: 9000 }, (_, i) => 10_000 + i),
    ];
    const found = thinned({ steps, values: steps.map((step) => Math.sin(step)) }, 500);
    expect(found.steps.length).toBeLessThanOrEqual(500);
    expect(found.steps.filter((step) => step < 10_000).length).toBeGreaterThan(90);
  });

  test("of steps that go back stays bounded", () => {
    const steps = Array.from({ length: 5000 }, (_, i) => i % 7);
    expect(thinned({ steps, values: steps }, 100).steps.length).toBeLessThanOrEqual(100);
  });

  test("leaves a short series alone", () => {
    const series = { steps: [1, 2], values: [3, 4] };
    expect(thinned(series, 4)).toEqual(series);
  });
});

test("smoothing does not begin too low, and follows a level curve exactly", () => {
  expect(smoothed([2, 2, 2], 0.9).map((value) => Number(value.toFixed(9)))).toEqual([2, 2, 2]);
  expect(smoothed([0, 1], 0.5)[1]).toBeCloseTo(2 / 3, 12);
});

test.each([
  [0, "0"],
  [0.25, "0.25"],
  [-1234, "-1234"],
  [12_000, "12k"],
  [2_500_000, "2.5M"],
  [3e9, "3G"],
  [5e-6, "5e-6"],
  [0.00033333, "3.33e-4"],
  [null, ""],
])("on an axis %d is %s", (value, text) => {
  expect(compact(value)).toBe(text);
});

describe("the picture of the value function", () => {
  const line = {
    ...{ step: 3, beta: 0.1, desirable_weight: 2, undesirable_weight: 1, rows: 3, z0: [0.5], z0_unclamped: [0.5] },
    ...{ pairs: [3], index: [7, 8, 9], label: [true, false, true], group: [0, 0, 0] },
    ...{ log_ratio: [10.5, -3, null], u: [1, 0.35, null], v: [1.46, 0.587, null], saturated: [false, false, false] },
  };

  test("has every row that has numbers, its reward, and both curves through half of their weights", () => {
    const picture = pictureOf(line);
    expect(picture.points.map(({ index, reward }) => [index, reward])).toEqual([
      [7, 1.05],
      [8, expect.closeTo(-0.3, 12)],
    ]);
    expect([picture.reach, picture.top]).toEqual([1, 2]);
    expect(picture.curves.desirable[40]).toEqual([0, 1]);
    expect(picture.curves.undesirable[40]).toEqual([0, 0.5]);
  });

  test("reaches beyond its farthest row, to a round number", () => {
    expect(pictureOf({ ...line, u: [-6.5, 0.35, null] }).reach).toBe(10);
  });

  test("rewards are counted by class in parts of equal width", () => {
    const point = (reward: number, label: boolean) => ({ index: 0, label, u: 0, v: 0, reward, saturated: false });
    const points = [point(1, true), point(0, true), point(-0.4, false), point(-1, false), point(Number.NaN, false)];
    expect(histogramOf(points, 4)).toEqual({ reach: 1, up: [0, 0, 1, 1], down: [1, 1, 0, 0] });
    expect(histogramOf([], 2)).toEqual({ reach: 1, up: [0, 0], down: [0, 0] });
  });

  test("a row is saturated from the u at which the slope of the sigmoid is 0.01", () => {
    const sigmoid = 1 / (1 + Math.exp(-SATURATED_FROM));
    expect(sigmoid * (1 - sigmoid)).toBeCloseTo(0.01, 12);
  });
});
