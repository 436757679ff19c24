/**
 * The microbatches of an evaluation: a pure function of its rows and their number in a microbatch. No models, no
 * device.
 */
import type { RowShape } from "../../engine/model/rows.ts";
import { type Batch, type BatchExample, type BatchOptions, packBatch, updateShapes } from "./batch.ts";
import { epochSchedule } from "./sampler.ts";

/**
 * Every row once, paired as training pairs rows, always the same for the same rows and size whatever the run's seed.
 * Indices into `examples`.
 */
export function evaluationSchedule(
  examples: readonly BatchExample[],
  { batchSize, mismatched }: { readonly batchSize: number; readonly mismatched: boolean },
): number[][] {
  // Only twos leave a single row over, which training would let wait for another epoch.
  const size = mismatched && batchSize === 2 && examples.length % 2 === 1 ? 3 : batchSize;
  return epochSchedule(examples, { batchSize: size, seed: 0, epoch: 0, mismatched });
}

export class EvaluationPlan {
  readonly examples: readonly BatchExample[];
  readonly batchOptions: BatchOptions;
  readonly #microbatches: readonly (readonly number[])[];

  /**
   * @param batchSize rows of a microbatch at most, 2 or more unless the reference point is 0
   * @throws ConfigError for a microbatch of one row; DatasetError for fewer than two rows
   */
  constructor(examples: readonly BatchExample[], batchOptions: BatchOptions, batchSize: number) {
    this.examples = examples;
    this.batchOptions = batchOptions;
    this.#microbatches = evaluationSchedule(examples, { batchSize, mismatched: batchOptions.mismatched });
  }

  /** Microbatches: each is a step of its own. */
  get totalSteps(): number {
    return this.#microbatches.length;
  }

  /** Rows of the largest microbatch. */
  get largestSize(): number {
    return Math.max(...this.#microbatches.map(({ length }) => length));
  }

  /** The rows (indices into `examples`) of the microbatch of a step. */
  rows(step: number): readonly (readonly number[])[] {
    const rows = this.#microbatches[step];
    return rows === undefined ? [] : [rows];
  }

  #examplesOf(rows: readonly number[]): BatchExample[] {
    return rows.map((row) => this.examples[row]).filter((example) => example !== undefined);
  }

  batches(step: number): Batch[] {
    return this.rows(step).map((rows) => packBatch(this.#examplesOf(rows), this.batchOptions));
  }

  shapes(): RowShape[] {
    const shapes = this.#microbatches.flatMap((rows) =>
      updateShapes([this.#examplesOf(rows)], this.batchOptions, "microbatch"),
    );
    return [...new Map(shapes.map((shape) => [JSON.stringify(shape), shape])).values()];
  }
}
