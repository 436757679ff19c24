/**
 * Evaluation: the metrics of a model on rows that it is not trained on. Runs the training step's own forward pass, so
 * that the numbers mean the same; nothing of it reaches the training. When to evaluate, and what follows from it, is
 * `run-evaluation.ts`'s.
 */
import type { Model } from "../engine/model/load.ts";
import { METRIC_SUMS } from "../kernels/kto-objective.ts";
import { type BatchExample, type BatchOptions, batchShape, packBatch } from "./batch.ts";
import { type Metrics, objectiveMetrics } from "./metrics.ts";
import type { ObjectiveOptions } from "./objective.ts";
import { epochSchedule } from "./sampler.ts";
import { KtoStep, type StepReference } from "./step.ts";

export interface EvaluatorOptions {
  /** As it is when `run` is called. */
  readonly policy: Model;
  /** As in `StepOptions`, but not "cached": there are no numbers for rows that are not trained on. */
  readonly reference: Exclude<StepReference, "cached">;
  /** At least 2, with token ids of the policy's vocabulary; checked by `checkSequences`. */
  readonly examples: readonly BatchExample[];
  /** Rows of a microbatch at most, 2 or more unless the reference point is 0. */
  readonly batchSize: number;
  readonly objective: ObjectiveOptions;
  /** Tokens of prompt and completion together; a mismatched completion is cut to what its new prompt leaves. */
  readonly maxLength: number;
}

/** The prefix of every metric of an evaluation, as TRL writes it. */
export const EVAL_PREFIX = "eval_";

/**
 * The microbatches of an evaluation: every row once, paired as training pairs rows, always the same for the same rows
 * and size whatever the run's seed. Indices into `examples`.
 */
export function evaluationSchedule(
  examples: readonly BatchExample[],
  { batchSize, mismatched }: { readonly batchSize: number; readonly mismatched: boolean },
): number[][] {
  // Only twos leave a single row over, which training would let wait for another epoch.
  const size = mismatched && batchSize === 2 && examples.length % 2 === 1 ? 3 : batchSize;
  return epochSchedule(examples, { batchSize: size, seed: 0, epoch: 0, mismatched });
}

export class Evaluator {
  readonly #step: KtoStep;
  readonly #microbatches: readonly (readonly BatchExample[])[];
  readonly #batchOptions: BatchOptions;

  /**
   * Allocates the device memory of all passes: that of training without gradients, moments and backward scratch.
   *
   * @throws ConfigError for a microbatch of one row; DatasetError for fewer than two rows; AdapterError when the
   * adapter cannot hold it
   */
  constructor(options: EvaluatorOptions) {
    const { policy, reference, examples, batchSize, objective, maxLength } = options;
    const mismatched = objective.lossType === "kto";
    this.#batchOptions = { mismatched, maxLength };
    this.#microbatches = evaluationSchedule(examples, { batchSize, mismatched }).map((rows) =>
      rows.map((row) => examples[row]).filter((row) => row !== undefined),
    );
    const shapes = new Map(
      this.#microbatches.map((rows) => {
        const shape = batchShape(rows, this.#batchOptions);
        return [JSON.stringify(shape), shape];
      }),
    );
    this.#step = policy.device.allocating(
      () =>
        new KtoStep({
          policy,
          reference,
          shapes: [...shapes.values()],
          maxSize: Math.max(...this.#microbatches.map(({ length }) => length)),
          objective,
          optimizer: undefined,
          referencePointScope: "microbatch",
        }),
    );
  }

  /** The metrics of docs/metrics.md under TRL's names, with the prefix `eval_`. */
  async run(): Promise<Metrics> {
    const { device, objective } = this.#step;
    const started = performance.now();
    // Added up in float64: an evaluation may be much longer than a logging window.
    const totals = new Float64Array(METRIC_SUMS.size);
    let cutPairs = 0;
    let rows = 0;
    for (const examples of this.#microbatches) {
      const batch = packBatch(examples, this.#batchOptions);
      device.upload(objective.metrics, new Float32Array(METRIC_SUMS.size));
      await this.#step.evaluate(batch);
      const sums = await device.download(objective.metrics);
      sums.forEach((sum, place) => {
        totals[place] = (totals[place] ?? 0) + sum;
      });
      cutPairs += batch.cutPairs;
      rows += batch.size;
    }
    const seconds = Math.max(1e-3, (performance.now() - started) / 1000);
    const metrics: Metrics = {
      ...objectiveMetrics(totals, cutPairs),
      runtime: seconds,
      samples_per_second: rows / seconds,
      steps_per_second: this.#microbatches.length / seconds,
    };
    return Object.fromEntries(Object.entries(metrics).map(([name, value]) => [`${EVAL_PREFIX}${name}`, value]));
  }

  /** Gives the device memory back. */
  free(): void {
    this.#step.free();
  }
}
