/**
 * The microbatches of an evaluation: a pure function of its rows and their number in a microbatch. No models, no
 * device.
 */
import type { BatchExample, BatchOptions } from "./batch.ts";
import { Microbatches } from "./microbatches.ts";
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
  return epochSchedule(examples, { batchSize: size, seed: 0, epoch: 0, mismatched, evaluates: true });
}

export class EvaluationPlan extends Microbatches {
  readonly #microbatches: readonly (readonly number[])[];

  /**
   * @param batchSize rows of a microbatch at most, 2 or more unless the reference point is 0
   * @throws ConfigError for a microbatch of one row; DatasetError for fewer than two rows
   */
  constructor(examples: readonly BatchExample[], batchOptions: BatchOptions, batchSize: number) {
    super(examples, batchOptions, "microbatch");
    this.#microbatches = evaluationSchedule(examples, { batchSize, mismatched: batchOptions.mismatched });
  }

  /** Microbatches: each is a step of its own. */
  override get totalSteps(): number {
    return this.#microbatches.length;
  }

  /** Rows of the largest microbatch. */
  get largestSize(): number {
    return Math.max(...this.#microbatches.map(({ length }) => length));
  }

  override rows(step: number): readonly (readonly number[])[] {
    const rows = this.#microbatches[step];
    return rows === undefined ? [] : [rows];
  }
}
