/**
 * Evaluation: the metrics of a model on rows that it is not trained on. It runs the forward pass of a training update,
 * so that the numbers mean the same, and changes nothing. `run-evaluation.ts` decides when to evaluate.
 */

import { longRopeBeyond } from "../../engine/model/config/config.ts";
import type { Model } from "../../engine/model/model.ts";
import type { Precision } from "../../engine/model/precision.ts";
import { OneAtATime } from "../../engine/one-at-a-time.ts";
import { ConfigError } from "../../errors.ts";
import { type Batch, type BatchExample, checkSequences } from "../method/batch.ts";
import { EvaluationPlan } from "../method/evaluation-plan.ts";
import type { Metrics } from "../method/metrics.ts";
import { checkObjective, type TrainedFor, usesPairs } from "../method/objective.ts";
import { ReferenceLogProbs } from "../method/reference-log-probs.ts";
import { Update, type UpdateReference } from "../method/update.ts";
import { meanStep, secondsWhenWarm } from "../method/warm-time.ts";

export interface EvaluatorOptions {
  /** The model that is evaluated, with the weights that it has when `run` is called. */
  readonly policy: Model;
  /**
   * The reference as `UpdateOptions` has it; for "cached" the numbers themselves, of an `EvaluationPlan` of the same
   * rows.
   */
  readonly reference: Exclude<UpdateReference, "cached"> | ReferenceLogProbs;
  /** At least 2, with token ids of the policy's vocabulary. */
  readonly examples: readonly BatchExample[];
  /** Rows of a microbatch at most; microbatches of one row share the reference point of rings of eight. */
  readonly batchSize: number;
  readonly objective: TrainedFor;
  /** Tokens of prompt and completion together; a mismatched completion is cut to what its new prompt leaves. */
  readonly maxLength: number;
  /** That of the training that is evaluated (`UpdateOptions`); default f32. */
  readonly precision?: Precision;
}

export interface EvaluationRun {
  /** Breaks it off. */
  readonly signal?: AbortSignal | undefined;
  /** Told after each microbatch, or ring of them, of how many. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/** The prefix of every metric of an evaluation, as TRL writes it. */
export const EVAL_PREFIX = "eval_";

/** The metrics of an evaluation beside the objective's. */
export const EVALUATION_TIMES = ["runtime", "samples_per_second", "steps_per_second"] as const;

export class Evaluator {
  readonly #update: Update;
  readonly #plan: EvaluationPlan;
  readonly #cached: ReferenceLogProbs | undefined;
  /** Two runs would add to one sum. */
  readonly #runs = new OneAtATime();

  /**
   * Allocates the device memory of all passes: that of training without gradients, moments and backward scratch.
   *
   * @throws ConfigError for an objective, a size or a length out of range; DatasetError for fewer than two rows and for
   * one that the policy cannot take; AdapterError when the adapter cannot hold it
   */
  constructor(options: EvaluatorOptions) {
    const { policy, reference, examples, batchSize, objective, maxLength, precision = "f32" } = options;
    checkObjective(objective);
    if (!(Number.isInteger(maxLength) && maxLength >= 2)) {
      throw new ConfigError(`maxLength is ${maxLength}; it must be a whole number of at least 2.`);
    }
    const most = Math.min(maxLength, policy.config.contextLength);
    const limit = most < maxLength ? "the model's context of" : "maxLength";
    checkSequences(examples, policy.config.vocabSize, { maxLength: most, limit });
    const longBeyond = longRopeBeyond(policy.config);
    const batches = { mismatched: usesPairs(objective), maxLength, longBeyond };
    const plan = new EvaluationPlan(examples, batches, batchSize);
    const shapes = plan.shapes();
    this.#plan = plan;
    this.#cached = reference instanceof ReferenceLogProbs ? reference : undefined;
    this.#update = policy.device.allocating(
      () =>
        new Update({
          policy,
          reference: reference instanceof ReferenceLogProbs ? "cached" : reference,
          shapes,
          maxSize: plan.largestSize,
          maxUpdateRows: plan.largestRing,
          objective,
          optimizer: undefined,
          referencePointScope: plan.scope,
          precision,
        }),
    );
  }

  #batches(step: number): Batch[] {
    const batches = this.#plan.batches(step);
    return this.#cached?.attach(step, batches) ?? batches;
  }

  /**
   * The metrics of docs/metrics.md under TRL's names, with the prefix `eval_`. A run waits for those before it.
   *
   * @throws the reason of the signal where it is aborted before the last microbatch
   */
  async run(options: EvaluationRun = {}): Promise<Metrics> {
    return await this.#runs.run(() => this.#run(options));
  }

  async #run({ signal, onProgress }: EvaluationRun): Promise<Metrics> {
    const { device, objective } = this.#update;
    const started = performance.now();
    // Added up in float64: an evaluation may be much longer than a logging window.
    const totals = new Float64Array(objective.metrics.shape[0] ?? 0);
    const groups: Float32Array[] = [];
    let cutPairs = 0;
    let rows = 0;
    for (let step = 0; step < this.#plan.totalSteps; step++) {
      signal?.throwIfAborted();
      const batches = this.#batches(step);
      objective.clearMetrics();
      await this.#update.evaluate(batches);
      const sums = await device.download(objective.metrics);
      sums.forEach((sum, place) => {
        totals[place] = (totals[place] ?? 0) + sum;
      });
      groups.push(sums);
      for (const batch of batches) {
        cutPairs += batch.cutPairs;
        rows += batch.size;
      }
      onProgress?.(step + 1, this.#plan.totalSteps);
    }
    const seconds = Math.max(1e-3, (performance.now() - started) / 1000);
    const times: Record<(typeof EVALUATION_TIMES)[number], number> = {
      runtime: seconds,
      samples_per_second: rows / seconds,
      steps_per_second: this.#plan.totalSteps / seconds,
    };
    const metrics: Metrics = { ...objective.metricsOf(totals, cutPairs), ...objective.intervalsOf(groups), ...times };
    return Object.fromEntries(Object.entries(metrics).map(([name, value]) => [`${EVAL_PREFIX}${name}`, value]));
  }

  /** Seconds that a run takes, from one ring of mean size. */
  async seconds(): Promise<number> {
    const batches = this.#batches(meanStep(this.#plan));
    const perStep = await secondsWhenWarm(this.#update.device, async () => await this.#update.evaluate(batches));
    return this.#plan.totalSteps * perStep;
  }

  /** Gives the device memory back. */
  free(): void {
    this.#update.free();
  }
}
