/** Rows in microbatches, step by step: what a run's plan (`RunPlan`) and an evaluation's (`EvaluationPlan`) share. */
import type { RowShape } from "../../engine/model/rows.ts";
import {
  type Batch,
  type BatchExample,
  type BatchOptions,
  packUpdate,
  type ReferencePointScope,
  updateShapes,
} from "./batch.ts";

export abstract class Microbatches {
  readonly examples: readonly BatchExample[];
  readonly batchOptions: BatchOptions;
  /** "step": a step is one ring of rows, and its microbatches are parts of it, of any size. */
  readonly scope: ReferencePointScope;
  abstract readonly totalSteps: number;

  constructor(examples: readonly BatchExample[], batchOptions: BatchOptions, scope: ReferencePointScope) {
    this.examples = examples;
    this.batchOptions = batchOptions;
    this.scope = scope;
  }

  /** The rows (indices into `examples`) of each microbatch of a step, counted from 0; none after the last. */
  abstract rows(step: number): readonly (readonly number[])[];

  /** The examples of each microbatch of a step. */
  examplesOf(step: number): BatchExample[][] {
    return this.rows(step).map((rows) => rows.map((row) => this.examples[row]).filter((one) => one !== undefined));
  }

  /** The packed microbatches of a step. */
  batches(step: number): Batch[] {
    return packUpdate(this.examplesOf(step), this.batchOptions, this.scope);
  }

  /** Every shape class of the plan. */
  shapes(): RowShape[] {
    const shapes = new Map<string, RowShape>();
    for (let step = 0; step < this.totalSteps; step++) {
      for (const shape of updateShapes(this.examplesOf(step), this.batchOptions, this.scope)) {
        shapes.set(JSON.stringify(shape), shape);
      }
    }
    return [...shapes.values()];
  }
}
