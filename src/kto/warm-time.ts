/** What a part of a run takes that stands for the whole: which part, and its time once everything is compiled. */
import type { Device } from "../engine/device.ts";
import type { Microbatches } from "./reference-log-probs.ts";

/** Steps among which the median is looked for: rows are drawn at random, so that the first ones stand for all. */
const MOST_STEPS_LOOKED_AT = 1000;

/** The step of median size, by token rows on the device. */
export function medianStep(plan: Pick<Microbatches, "totalSteps" | "batches">): number {
  const rowsOf = (step: number) =>
    plan.batches(step).reduce((sum, { packed: { shape } }) => sum + shape.gradientRows + shape.branchRows, 0);
  const steps = Array.from({ length: Math.min(plan.totalSteps, MOST_STEPS_LOOKED_AT) }, (_, step) => step);
  const bySize = steps.map((step) => ({ step, rows: rowsOf(step) })).sort((a, b) => a.rows - b.rows);
  return bySize[Math.floor(bySize.length / 2)]?.step ?? 0;
}

/** Times of less than this are taken again until they settle. */
const LONG_SECONDS = 5;
const MOST_REPETITIONS = 8;

/**
 * Seconds of `work` once everything is compiled: those of its second run, or, if it is short, of a later one. The device
 * sleeps through what it expects of a wait, and the first run, which compiles, made it expect too much.
 */
export async function secondsWhenWarm(device: Device, work: () => Promise<void>): Promise<number> {
  const once = async () => {
    await device.idle();
    const started = performance.now();
    await work();
    await device.idle();
    return (performance.now() - started) / 1000;
  };
  await once();
  let least = await once();
  for (let repetition = 2; repetition < MOST_REPETITIONS && least < LONG_SECONDS; repetition++) {
    const seconds = await once();
    if (seconds > 0.9 * least) return Math.min(seconds, least);
    least = seconds;
  }
  return least;
}
