/**
 * How long a run takes, measured on a small part of it: one update, one microbatch of an evaluation and one pass for
 * the reference's log-probs, each of mean size and warm. Runs what the run itself runs; writes nothing.
 */
import { byFirst } from "../../engine/ranks/sums.ts";
import { meanStep, secondsWhenWarm } from "../method/warm-time.ts";
import { ranksOf } from "./inputs.ts";
import type { RunParts } from "./run.ts";

/** Seconds by the clock on the wall, without loading, compiling, samples and saving. */
export interface RunTimes {
  /** Updates that were done before the checkpoint from which this run goes on; 0 for a new run. */
  readonly done: number;
  /** Updates that this run does itself. */
  readonly updates: number;
  readonly secondsPerUpdate: number;
  /** How often the run evaluates during its own updates. */
  readonly evaluations: number;
  readonly secondsPerEvaluation: number;
  /** What a cached reference takes before the run; 0 where the cache holds it, and for other references. */
  readonly secondsOfReference: number;
  /** The time of updates, evaluations and reference together. */
  readonly seconds: number;
}

/** Times a run that holds its memory. Its moments are of no use afterwards; the weights are as before. */
export async function measureRun(parts: RunParts): Promise<RunTimes> {
  const { inputs, plan, update, evaluation, cached, record } = parts;
  const ranks = ranksOf(inputs);
  const { device } = update;
  const { totalSteps } = plan;
  const { done, ended } = record;
  const last = ended ? done : totalSteps;
  const updates = last - done;
  // Ranks run an update together, so they choose the same one.
  const step = await byFirst(ranks, async () => meanStep(plan));
  const batches = plan.batches(step).map((batch) => {
    const referenceLogProbs = new Float32Array(batch.packed.shape.sequences); // their values take no time
    return cached ? { ...batch, referenceLogProbs } : batch;
  });
  const ownSeconds = await secondsWhenWarm(device, () => update.run(batches, 0, 0), ranks);
  const secondsPerUpdate = ownSeconds + (await outerSecondsPerUpdate(parts));
  const evaluations = evaluation === undefined ? 0 : evaluation.count(done, last);
  const secondsPerEvaluation = evaluation === undefined ? 0 : await evaluation.seconds();
  // For the whole plan, also where a part of it is done.
  let secondsOfReference = cached?.evaluation?.found === false ? secondsPerEvaluation : 0;
  if (cached?.updates.found === false) {
    // The policy's own pass stands for that of the reference: the same rows, in nearly always the same build.
    const perUpdate = await secondsWhenWarm(device, async () => {
      for (const batch of batches) if (batch.size > 0) await update.policyLogProbs(batch);
    });
    secondsOfReference += totalSteps * perUpdate;
  }
  const seconds = updates * secondsPerUpdate + evaluations * secondsPerEvaluation + secondsOfReference;
  return { done, updates, secondsPerUpdate, evaluations, secondsPerEvaluation, secondsOfReference, seconds };
}

/** Seconds of an outer step for each update, where ranks update by themselves. Weights that are the same stay as they are. */
async function outerSecondsPerUpdate({ inputs, update, local, method }: RunParts): Promise<number> {
  const { sync_every: every } = method.options;
  if (local === undefined || every === undefined) return 0;
  await local.begin();
  return (await secondsWhenWarm(update.device, async () => void (await local.step()), ranksOf(inputs))) / every;
}
