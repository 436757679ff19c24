/** What the dashboard's page asks for: only what is new, and all where it cannot go on from what it knows. */
import { expect, test } from "vitest";
import { answerState, metricsPath, withNews } from "../../src/dashboard/page/asking.ts";
import type { MetricsAnswer, RunSummary } from "../../src/dashboard/protocol.ts";

const run: RunSummary = { id: "r3", name: "a run", running: true, lines: 7, generation: 5, step: 7, examples: 4 };
const known: MetricsAnswer = {
  lines: 7,
  generation: 5,
  from: 0,
  series: { loss: { steps: [1, 7], values: [0.5, 0.4] } },
};

test("metrics are asked for from what is known, and the answer is put behind it", () => {
  expect(metricsPath("r3", undefined)).toBe("/api/runs/r3/metrics");
  expect(metricsPath("r3", known)).toBe("/api/runs/r3/metrics?from=7&generation=5");
  const loss = { steps: [8], values: [0.3] };
  const news: MetricsAnswer = { lines: 8, generation: 5, from: 7, series: { loss, kl: { steps: [8], values: [1] } } };
  const all = withNews(known, news);
  expect(all).toEqual({
    ...{ lines: 8, generation: 5, from: 0 },
    series: { loss: { steps: [1, 7, 8], values: [0.5, 0.4, 0.3] }, kl: { steps: [8], values: [1] } },
  });
  expect(known.series.loss?.steps).toEqual([1, 7]);
  // What the server sends whole stands for all that was known.
  expect(withNews(all, known)).toBe(known);
  // What goes on from elsewhere, or from another file, cannot be put behind what is known.
  expect(withNews(undefined, news)).toBeUndefined();
  expect(withNews({ ...known, lines: 6 }, news)).toBeUndefined();
  expect(withNews({ ...known, generation: 4 }, news)).toBeUndefined();
});

test("a page that holds many points asks for all anew, which come thinned", () => {
  const steps = Array.from({ length: 4001 }, (_, at) => at);
  expect(metricsPath("r3", { ...known, series: { loss: { steps, values: steps } } })).toBe("/api/runs/r3/metrics");
});

test("each word is asked again where the list of runs tells of something new for it", () => {
  const again = (word: Parameters<typeof answerState>[0], change: Partial<RunSummary>) =>
    answerState(word, run) !== answerState(word, { ...run, ...change });
  expect(again("metrics", { lines: 8 })).toBe(true);
  expect(again("events", { lines: 8 })).toBe(false);
  expect(again("events", { events: 1 })).toBe(true);
  expect(again("rewards", { examples: 5 })).toBe(true);
  expect(again("samples", { samples: 2 })).toBe(true);
  expect(again("facts", { running: false })).toBe(true);
  expect(again("metrics", { generation: 6 })).toBe(true);
});

test("what is made of the whole run is asked for by a fiftieth of it, and once more at its end", () => {
  const states = (running: boolean) => (examples: number) => answerState("rows", { ...run, running, examples });
  const asked = new Set(Array.from({ length: 1000 }, (_, at) => states(true)(at + 1)));
  expect(asked.size).toBeGreaterThan(150);
  expect(asked.size).toBeLessThan(250);
  expect(states(true)(1000)).not.toBe(states(false)(1000));
});
