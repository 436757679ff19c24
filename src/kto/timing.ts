/**
 * How long a run takes, measured on a small part of it: one update, one microbatch of an evaluation and one pass for the
 * reference's log-probabilities, each of mean size and warm. Runs what the run itself runs; writes nothing.
 */
import type { Microbatches } from "./reference-log-probs.ts";
import type { RunEvaluation } from "./run-evaluation.ts";
import type { KtoStep } from "./step.ts";
import { meanStep, secondsWhenWarm } from "./warm-time.ts";

/** Seconds by the clock on the wall, without loading, compiling, samples and saving. */
export interface RunTimes {
  readonly updates: number;
  readonly secondsPerUpdate: number;
  /** How often the run evaluates. */
  readonly evaluations: number;
  readonly secondsPerEvaluation: number;
  /** What a cached reference takes before the run where the cache does not hold it; 0 for other references. */
  readonly secondsOfReference: number;
  /** Of all that. */
  readonly seconds: number;
}

/** What is timed: a run that holds its memory. The step's moments are of no use afterwards; the weights are as before. */
export interface TimedRun {
  readonly plan: Microbatches;
  readonly step: KtoStep;
  readonly evaluation: RunEvaluation | undefined;
  /** Whether the reference's log-probabilities are computed before the run. */
  readonly cached: boolean;
}

export async function timeRun({ plan, step, evaluation, cached }: TimedRun): Promise<RunTimes> {
  const { device } = step;
  const updates = plan.totalSteps;
  const batches = plan.batches(meanStep(plan)).map((batch) => {
    const referenceLogProbs = new Float32Array(batch.packed.shape.sequences); // their values take no time
    return cached ? { ...batch, referenceLogProbs } : batch;
  });
  const secondsPerUpdate = await secondsWhenWarm(device, () => step.run(batches, 0, 0));
  const evaluations = evaluation === undefined ? 0 : evaluation.count(updates);
  const secondsPerEvaluation = evaluation === undefined ? 0 : await evaluation.seconds();
  let secondsOfReference = 0;
  if (cached) {
    // The policy's own pass stands for that of the reference: the same rows, in nearly always the same build.
    const perUpdate = await secondsWhenWarm(device, async () => {
      for (const batch of batches) await step.policyLogProbs(batch);
    });
    secondsOfReference = updates * perUpdate + secondsPerEvaluation;
  }
  const seconds = updates * secondsPerUpdate + evaluations * secondsPerEvaluation + secondsOfReference;
  return { updates, secondsPerUpdate, evaluations, secondsPerEvaluation, secondsOfReference, seconds };
}
