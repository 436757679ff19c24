/** The table of docs/choosing.md: what scripts/choosing.ts measured, from the file that it wrote. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as z from "zod";

const FILE = join(import.meta.dirname, "..", "..", "bench", "results", "2026-11-30-choosing.json");
/** Updates at the end of a run whose mean is shown. */
const LAST = 10;

const run = z.object({
  curve: z.array(z.record(z.string(), z.number())).default([]),
  good: z.object({ share: z.number(), low: z.number(), high: z.number() }),
  logProbPerToken: z.number(),
});

/** The runs in the order in which they are shown; those of the file that have another name follow. */
const order = ["base", "quickstart", "learning rate 5e-5", "learning rate 5e-3", "beta 0.01", "beta 0.5"];

export const choosingHeads = [
  ...["run", "good", "log-prob", "reward of thumbs up, down", "margin", "accuracy", "`kl/unclamped`", "saturated"],
];

export function choosingRows(): string[][] {
  const { environment: _, ...runs } = JSON.parse(readFileSync(FILE, "utf8")) as Record<string, unknown>;
  const names = new Set([...order.filter((name) => name in runs), ...Object.keys(runs)]);
  return [...names].map((name) => {
    const value = runs[name];
    const { curve, good, logProbPerToken } = run.parse(value);
    const mean = (metric: string, digits = 2): string => {
      const values = curve.slice(-LAST).flatMap((line) => line[metric] ?? []);
      return values.length === 0 ? "" : (values.reduce((sum, one) => sum + one, 0) / values.length).toFixed(digits);
    };
    const percent = (share: number) => (100 * share).toFixed(1);
    return [
      name === "base" ? "before training" : name,
      `${percent(good.share)}% (${percent(good.low)} to ${percent(good.high)})`,
      logProbPerToken.toFixed(2),
      curve.length === 0 ? "" : `${mean("rewards/chosen")}, ${mean("rewards/rejected")}`,
      ...["rewards/margins", "rewards/accuracies", "kl/unclamped", "saturated"].map((metric) => mean(metric)),
    ];
  });
}
