/** What a part of a run takes that stands for the whole: which part, and its time once everything is compiled. */
import type { Device } from "../../engine/gpu/device.ts";
import { ALONE, type Communicator } from "../../engine/ranks/communicator.ts";
import { byFirst } from "../../engine/ranks/sums.ts";
import type { Microbatches } from "./microbatches.ts";

/** Over at most this many updates the mean is taken: rows are drawn at random, so the first ones stand for all. */
const MOST_IN_MEAN = 1000;

/**
 * The step whose token rows on the device are nearest to the mean, so that its time stands for every step of the run.
 */
export function meanStep(plan: Pick<Microbatches, "totalSteps" | "batches">): number {
  const rowsOf = (step: number) =>
    plan.batches(step).reduce((sum, { packed: { shape } }) => sum + shape.gradientRows + shape.branchRows, 0);
  const steps = Array.from({ length: Math.min(plan.totalSteps, MOST_IN_MEAN) }, (_, step) => step);
  const sizes = steps.map(rowsOf);
  const mean = sizes.reduce((sum, rows) => sum + rows, 0) / sizes.length;
  const distances = sizes.map((rows) => Math.abs(rows - mean));
  return distances.indexOf(Math.min(...distances));
}

/** A time of less than this is taken twice, since machines have other work. */
const LONG_SECONDS = 5;

/**
 * Seconds of `work` once everything is compiled, as it is by a first run.
 *
 * @param ranks that do the work together, as often as each other: rank 0's time counts
 */
export async function secondsWhenWarm(
  device: Device,
  work: () => Promise<void>,
  ranks: Communicator = ALONE,
): Promise<number> {
  const once = async () => {
    await device.idle();
    const started = performance.now();
    await work();
    await device.idle();
    const seconds = (performance.now() - started) / 1000;
    return await byFirst(ranks, async () => seconds);
  };
  await once();
  const seconds = await once();
  return seconds < LONG_SECONDS ? Math.min(seconds, await once()) : seconds;
}
