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

/** A time of less than this is taken twice, since machines have other work. */
const LONG_SECONDS = 5;

/** Seconds of `work` once everything is compiled, as it is by a first run. */
export async function secondsWhenWarm(device: Device, work: () => Promise<void>): Promise<number> {
  const once = async () => {
    await device.idle();
    const started = performance.now();
    await work();
    await device.idle();
    return (performance.now() - started) / 1000;
  };
  await once();
  const seconds = await once();
  return seconds < LONG_SECONDS ? Math.min(seconds, await once()) : seconds;
}
