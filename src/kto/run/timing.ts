/**
 * How long a run takes, measured on a small part of it: one update, one microbatch of an evaluation and one pass for the
 * reference's log-probabilities, each of mean size and warm. Runs what the run itself runs; writes nothing.
 */

import type { RunEvaluation } from "../evaluation/run-evaluation.ts";
import type { Microbatches } from "../method/reference-log-probs.ts";
import type { KtoStep } from "../method/update.ts";
import { meanStep, secondsWhenWarm } from "../method/warm-time.ts";
import type { CachedReference } from "./inputs.ts";

/** Seconds by the clock on the wall, without loading, compiling, samples and saving. */
export interface RunTimes {
  /** Updates that an earlier run did, which this one goes on from. */
  readonly done: number;
  /** Updates after them. */
  readonly updates: number;
  readonly secondsPerUpdate: number;
  /** How often the run evaluates in them. */
  readonly evaluations: number;
  readonly secondsPerEvaluation: number;
  /** What a cached reference takes before the run; 0 where the cache holds it, and for other references. */
  readonly secondsOfReference: number;
  /** Of all that. */
  readonly seconds: number;
}

/** What is timed: a run that holds its memory. The step's moments are of no use afterwards; the weights are as before. */
export interface TimedRun {
  readonly plan: Microbatches;
  readonly step: KtoStep;
  readonly evaluation: RunEvaluation | undefined;
  /** The reference's log-probabilities, where they are computed before the run. */
  readonly cached: CachedReference | undefined;
  /** Updates that an earlier run did. */
  readonly done: number;
  /** The update that the run ends with. */
  readonly last: number;
}

export async function timeRun({ plan, step, evaluation, cached, done, last }: TimedRun): Promise<RunTimes> {
  const { device } = step;
  const { totalSteps } = plan;
  const updates = last - done;
  const batches = plan.batches(meanStep(plan)).map((batch) => {
    const referenceLogProbs = new Float32Array(batch.packed.shape.sequences); // their values take no time
    return cached ? { ...batch, referenceLogProbs } : batch;
  });
  const secondsPerUpdate = await secondsWhenWarm(device, () => step.run(batches, 0, 0));
  const evaluations = evaluation === undefined ? 0 : evaluation.count(done, last);
  const secondsPerEvaluation = evaluation === undefined ? 0 : await evaluation.seconds();
  // Of the whole plan, also where a part of it is done.
  let secondsOfReference = cached?.evaluation?.found === false ? secondsPerEvaluation : 0;
  if (cached?.updates.found === false) {
    // The policy's own pass stands for that of the reference: the same rows, in nearly always the same build.
    const perUpdate = await secondsWhenWarm(device, async () => {
      for (const batch of batches) await step.policyLogProbs(batch);
    });
    secondsOfReference += totalSteps * perUpdate;
  }
  const seconds = updates * secondsPerUpdate + evaluations * secondsPerEvaluation + secondsOfReference;
  return { done, updates, secondsPerUpdate, evaluations, secondsPerEvaluation, secondsOfReference, seconds };
}
