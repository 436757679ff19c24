/** Rows in microbatches, step by step: what a run's plan (`RunPlan`) and an evaluation's (`EvaluationPlan`) share. */
import type { RowShape } from "../../engine/model/rows.ts";
import {
  type Batch,
  type BatchExample,
  type BatchOptions,
  ONLY_RANK,
  packUpdate,
  type Rank,
  type ReferencePointScope,
  updateShapes,
} from "./batch.ts";

export abstract class Microbatches {
  readonly examples: readonly BatchExample[];
  readonly batchOptions: BatchOptions;
  /** "step": a step is one ring of rows, and its microbatches are parts of it, of any size. */
  readonly scope: ReferencePointScope;
  /** The rank whose rows of each microbatch are packed. */
  readonly rank: Rank;
  abstract readonly totalSteps: number;

  constructor(
    examples: readonly BatchExample[],
    batchOptions: BatchOptions,
    scope: ReferencePointScope,
    rank: Rank = ONLY_RANK,
  ) {
    this.examples = examples;
    this.batchOptions = batchOptions;
    this.scope = scope;
    this.rank = rank;
  }

  /**
   * The rows (indices into `examples`) of each microbatch of a step, of all ranks together, counted from 0; none after
   * the last.
   */
  abstract rows(step: number): readonly (readonly number[])[];

  /** The examples of each microbatch of a step. */
  examplesOf(step: number): BatchExample[][] {
    return this.rows(step).map((rows) => rows.map((row) => this.examples[row]).filter((one) => one !== undefined));
  }

  /** The rank's packed parts of the microbatches of a step. */
  batches(step: number): Batch[] {
    return packUpdate(this.examplesOf(step), this.batchOptions, this.scope, this.rank);
  }

  /** Every shape class of the plan, of all ranks: a plan of the memory holds for each of them. */
  shapes(): RowShape[] {
    const shapes = new Map<string, RowShape>();
    for (let step = 0; step < this.totalSteps; step++) {
      for (const shape of updateShapes(this.examplesOf(step), this.batchOptions, this.scope, this.rank.size)) {
        shapes.set(JSON.stringify(shape), shape);
      }
    }
    return [...shapes.values()];
  }
}
