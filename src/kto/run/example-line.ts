/** A line of examples.jsonl: what an update did with its examples, in columns, small enough to be kept of many updates. */
import * as z from "zod";
import type { ExampleLog } from "../method/example-log.ts";
import type { ObjectiveOptions } from "../method/objective.ts";

export const EXAMPLES_FILE = "examples.jsonl";

/** JSON has no NaN: null stands for what is not finite. */
const number = z.number().nullable();
const count = z.number().int().min(0);

/** Names as in docs/metrics.md. Columns have an entry for each example that is logged, or for each reference point. */
export const exampleLineSchema = z.object({
  step: count,
  beta: z.number(),
  desirable_weight: z.number(),
  undesirable_weight: z.number(),
  rows: count,
  z0: z.array(number),
  z0_unclamped: z.array(number),
  pairs: z.array(count),
  index: z.array(count),
  label: z.array(z.boolean()),
  group: z.array(count),
  log_ratio: z.array(number),
  u: z.array(number),
  v: z.array(number),
  saturated: z.array(z.boolean()),
});

export type ExampleLine = Readonly<z.output<typeof exampleLineSchema>>;

/** Updates whose examples are logged, at most: the file stays small enough to be read at once. */
const MOST_LINES = 1000;

/**
 * Whether the examples of an update are logged: those of every logging step or, in a long run, of some at equal
 * distances, and those of the first and the last update where they are logged.
 *
 * @param every updates between logging steps
 */
export function logsExamples(step: number, totalSteps: number, every: number): boolean {
  const apart = every * Math.ceil(totalSteps / every / MOST_LINES);
  return step % apart === 0 || step === totalSteps || step === 1;
}

/** @param indexOf the row of the feedback of an example, by its place in the update */
export function exampleLine(
  step: number,
  { rows, referencePoints, examples }: ExampleLog,
  { beta, desirableWeight, undesirableWeight }: ObjectiveOptions,
  indexOf: (place: number) => number,
): ExampleLine {
  return {
    step,
    ...{ beta, desirable_weight: short(desirableWeight) ?? 0, undesirable_weight: short(undesirableWeight) ?? 0, rows },
    z0: referencePoints.map(({ z0 }) => short(z0)),
    z0_unclamped: referencePoints.map(({ unclamped }) => short(unclamped)),
    pairs: referencePoints.map(({ pairs }) => pairs),
    index: examples.map(({ place }) => indexOf(place)),
    label: examples.map(({ label }) => label),
    group: examples.map(({ group }) => group),
    log_ratio: examples.map(({ logRatio }) => short(logRatio)),
    u: examples.map(({ u }) => short(u)),
    v: examples.map(({ v }) => short(v)),
    saturated: examples.map(({ saturated }) => saturated),
  };
}

/** The number with seven digits, as many as an f32 has; null for one that is not finite. */
function short(value: number | null): number | null {
  return value === null || !Number.isFinite(value) ? null : Number(value.toPrecision(7));
}
