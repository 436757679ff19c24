/** The objective of KTO on the device: its buffers, and the kernels of `src/kernels/kto-objective.ts` over them. */
import type { Device } from "../../engine/gpu/device.ts";
import type { Program } from "../../engine/gpu/program.ts";
import { reshape, sliceRows, type Tensor } from "../../engine/gpu/tensor.ts";
import { STEP_NUMBERS } from "../../kernels/adamw.ts";
import { ktoObjective, METRIC_SUMS, mismatchedPairSum, tokenSums } from "../../kernels/kto-objective.ts";
import type { Batch } from "./batch.ts";
import { type Metrics, objectiveMetrics } from "./metrics.ts";
import { Objective, type ObjectiveOptions } from "./objective.ts";

export class KtoObjective extends Objective {
  readonly options: ObjectiveOptions;
  /** Written by a pass or by an upload; zero, as it was allocated, where there is no reference. */
  readonly #referenceLogProbs: Tensor;
  readonly #desirable: Tensor;
  readonly #pairValid: Tensor;
  /** f32[2]: sum and number of mismatched log-ratios that make up the reference point. */
  readonly #pairSum: Tensor;

  /** @param maxSize the largest microbatch */
  constructor(device: Device, options: ObjectiveOptions, maxSize: number) {
    super(device, options, maxSize, METRIC_SUMS.size);
    this.options = options;
    this.#referenceLogProbs = this.allocate("reference log-probs", this.sequences(maxSize));
    this.#desirable = this.allocate("labels", maxSize, "u32");
    this.#pairValid = this.allocate("pair flags", maxSize, "u32");
    this.#pairSum = this.allocate("reference point", 2);
  }

  override referenceLogProbs(size: number): Tensor {
    return reshape(this.#referenceLogProbs, [this.sequences(size)]);
  }

  override upload(batch: Batch): void {
    this.device.upload(this.#desirable, batch.desirable);
    this.device.upload(this.#pairValid, batch.pairValid);
    if (batch.referenceLogProbs) this.device.upload(this.#referenceLogProbs, batch.referenceLogProbs);
  }

  override recordClearPairs(program: Program): void {
    program.clear(this.#pairSum);
  }

  override recordPairs(program: Program, size: number): void {
    if (!this.usesPairs) return;
    program.dispatch(mismatchedPairSum, {
      policy: this.policyLogProbs(size),
      reference: this.referenceLogProbs(size),
      pairValid: reshape(this.#pairValid, [size]),
      pairSum: this.#pairSum,
      metrics: this.metrics,
    });
  }

  override recordCoefficients(program: Program, size: number, stepNumbers: Tensor | undefined): void {
    const { beta, desirableWeight, undesirableWeight } = this.options;
    program.dispatch(ktoObjective, {
      policy: this.policyLogProbs(size),
      reference: this.referenceLogProbs(size),
      desirable: reshape(this.#desirable, [size]),
      pairSum: this.#pairSum,
      step: stepNumbers ?? reshape(this.device.unused, [STEP_NUMBERS.size]),
      coefficients: this.coefficients(size),
      metrics: this.metrics,
      beta,
      desirableWeight,
      undesirableWeight,
      clamped: this.options.referenceKind === "uniform" ? 0 : 1,
    });
  }

  override recordTokens(program: Program, size: number, sequenceRanges: Tensor): void {
    program.dispatch(tokenSums, {
      ranges: sliceRows(sequenceRanges, 0, size),
      ...this.tokenSums(size),
      desirable: reshape(this.#desirable, [size]),
      metrics: this.metrics,
    });
  }

  /** The losses of microbatches are averaged, as TRL does. */
  override microbatchWeight(batches: readonly Batch[]): number {
    return 1 / batches.length;
  }

  override metricsOf(sums: ArrayLike<number>, cutPairs: number): Metrics {
    return objectiveMetrics(sums, cutPairs);
  }
}
