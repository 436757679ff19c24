/**
 * Evaluation: the metrics of a model on rows that it is not trained on. It runs the forward pass of a training update,
 * so that the numbers mean the same, and changes nothing. `run-evaluation.ts` decides when to evaluate.
 */

import { longRopeBeyond } from "../../engine/model/config/config.ts";
import type { Model } from "../../engine/model/model.ts";
import type { Precision } from "../../engine/model/precision.ts";
import { OneAtATime } from "../../engine/one-at-a-time.ts";
import { ALONE, type Communicator } from "../../engine/ranks/communicator.ts";
import { gatherNumbers } from "../../engine/ranks/sums.ts";
import { ConfigError } from "../../errors.ts";
import { type Batch, type BatchExample, checkSequences } from "../method/batch.ts";
import type { Metrics } from "../method/metrics.ts";
import { checkObjective, type TrainedFor, usesPairs } from "../method/objective.ts";
import { ReferenceLogProbs } from "../method/reference-log-probs.ts";
import { Update } from "../method/update.ts";
import type { UpdateReference } from "../method/update-options.ts";
import { meanStep, secondsWhenWarm } from "../method/warm-time.ts";
import { EvaluationPlan } from "./evaluation-plan.ts";

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
  /** Precision of the passes, as the training has it (`UpdateOptions`). Default f32. */
  readonly precision?: Precision;
  /** Ranks that evaluate the rows together, each some of the rings; all get the same metrics. Default: one process. */
  readonly ranks?: Communicator | undefined;
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
  readonly #ranks: Communicator;
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
    this.#ranks = options.ranks ?? ALONE;
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
    // Every ring is computed by one rank as it is by one process, so that the sums are the same bits.
    const width = 2 + (objective.metrics.shape[0] ?? 0);
    const own = new Float64Array(width * Math.ceil(this.#plan.totalSteps / this.#ranks.size));
    for (const [turn, step] of this.#ownSteps().entries()) {
      signal?.throwIfAborted();
      const batches = this.#batches(step);
      objective.clearMetrics();
      await this.#update.evaluate(batches);
      const sum = (of: (batch: Batch) => number) => batches.reduce((total, batch) => total + of(batch), 0);
      own.set([sum(({ cutPairs }) => cutPairs), sum(({ size }) => size)], turn * width);
      own.set(await device.download(objective.metrics), turn * width + 2);
      onProgress?.(step + 1, this.#plan.totalSteps);
    }
    const all = await gatherNumbers(this.#ranks, own);
    // Added up in float64: an evaluation may be much longer than a logging window.
    const totals = new Float64Array(width);
    const groups = Array.from({ length: this.#plan.totalSteps }, (_, step) => {
      const { size } = this.#ranks;
      const turn = Math.floor(step / size);
      const numbers = all[step % size]?.subarray(turn * width, (turn + 1) * width) ?? new Float64Array(width);
      numbers.forEach((number, place) => {
        totals[place] = (totals[place] ?? 0) + number;
      });
      return numbers.subarray(2);
    });
    const [cutPairs = 0, rows = 0, ...sums] = totals;
    const seconds = Math.max(1e-3, (performance.now() - started) / 1000);
    const times: Record<(typeof EVALUATION_TIMES)[number], number> = {
      runtime: seconds,
      samples_per_second: rows / seconds,
      steps_per_second: this.#plan.totalSteps / seconds,
    };
    const metrics: Metrics = { ...objective.metricsOf(sums, cutPairs), ...objective.intervalsOf(groups), ...times };
    return Object.fromEntries(Object.entries(metrics).map(([name, value]) => [`${EVAL_PREFIX}${name}`, value]));
  }

  /** The rings that this rank computes: as many as every other, or one less. */
  #ownSteps(): number[] {
    const { rank, size } = this.#ranks;
    const steps = Array.from({ length: this.#plan.totalSteps }, (_, step) => step);
    return steps.filter((step) => step % size === rank);
  }

  /** Seconds that a run takes, from one ring of mean size. */
  async seconds(): Promise<number> {
    const batches = this.#batches(meanStep(this.#plan));
    const perStep = await secondsWhenWarm(this.#update.device, async () => await this.#update.evaluate(batches));
    return Math.ceil(this.#plan.totalSteps / this.#ranks.size) * perStep;
  }

  /** Gives the device memory back. */
  free(): void {
    this.#update.free();
  }
}
