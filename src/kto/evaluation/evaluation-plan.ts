/**
 * The rings of an evaluation and the microbatches that they are computed in: a pure function of its rows and their
 * number in a microbatch. No models, no device.
 */
import type { BatchExample, BatchOptions } from "../method/batch.ts";
import { Microbatches } from "../method/microbatches.ts";
import { epochSchedule, microbatchesOf } from "../method/sampler.ts";

/** Rows of a ring where microbatches are of one row, which has no neighbour: the default of their number. */
const RING_OF_SINGLE_ROWS = 8;

/**
 * The rings of mismatched pairs: every row once, paired as training pairs rows, always the same for the same rows and
 * size whatever the run's seed. Indices into `examples`.
 */
export function evaluationSchedule(
  examples: readonly BatchExample[],
  { batchSize, mismatched }: { readonly batchSize: number; readonly mismatched: boolean },
): number[][] {
  // Only twos leave a single row over, which training would let wait for another epoch.
  const odd = batchSize === 2 && examples.length % 2 === 1;
  const size = !mismatched ? batchSize : batchSize === 1 ? RING_OF_SINGLE_ROWS : odd ? 3 : batchSize;
  return epochSchedule(examples, { batchSize: size, seed: 0, epoch: 0, mismatched, evaluates: true });
}

export class EvaluationPlan extends Microbatches {
  readonly #rings: readonly (readonly number[])[];
  readonly #apart: boolean;

  /**
   * @param batchSize rows of a microbatch at most; microbatches of one row share rings of eight
   * @throws ConfigError for a size that is no whole number of at least 1; DatasetError where pairs are mismatched and
   * there are fewer than two rows
   */
  constructor(examples: readonly BatchExample[], batchOptions: BatchOptions, batchSize: number) {
    const { mismatched } = batchOptions;
    const apart = mismatched && batchSize === 1;
    super(examples, batchOptions, apart ? "step" : "microbatch");
    this.#apart = apart;
    this.#rings = evaluationSchedule(examples, { batchSize, mismatched });
  }

  /** Rings: each is a step of its own. */
  override get totalSteps(): number {
    return this.#rings.length;
  }

  /** Rows of the largest microbatch. */
  get largestSize(): number {
    return this.#apart ? 1 : this.largestRing;
  }

  /** Rows of the largest ring. */
  get largestRing(): number {
    return Math.max(...this.#rings.map(({ length }) => length));
  }

  override rows(step: number): readonly (readonly number[])[] {
    const ring = this.#rings[step];
    if (ring === undefined) return [];
    return this.#apart ? microbatchesOf(ring, 1) : [ring];
  }
}
