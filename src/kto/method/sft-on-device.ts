/**
 * The objective of supervised fine-tuning on the device: the cross-entropy of completions, over the kernel of
 * `src/kernels/sft-objective.ts`. It compares with nothing, so there are no pairs and no reference.
 */
import type { Device } from "../../engine/gpu/device.ts";
import type { Program } from "../../engine/gpu/program.ts";
import { reshape, type Tensor } from "../../engine/gpu/tensor.ts";
import { STEP_NUMBERS } from "../../kernels/adamw.ts";
import { SFT_SUMS, sftObjective, sftTokenSums } from "../../kernels/sft-objective.ts";
import type { Batch } from "./batch.ts";
import { type Metrics, sftObjectiveMetrics } from "./metrics.ts";
import { Objective, type ObjectiveRows } from "./objective.ts";

export class SftOnDevice extends Objective {
  readonly #completionTokens: Tensor;
  readonly #hitCounts: Tensor;

  /** @param maxSize the largest microbatch */
  constructor(device: Device, maxSize: number) {
    super(device, "sft", maxSize, SFT_SUMS.size);
    this.#completionTokens = this.allocate("completion lengths", maxSize, "u32");
    this.#hitCounts = this.allocate("hit counts", maxSize);
  }

  override hitCounts(size: number): Tensor {
    return reshape(this.#hitCounts, [size]);
  }

  override upload(labels: ObjectiveRows): void {
    this.device.upload(this.#completionTokens, labels.completionTokens);
  }

  override recordCoefficients(program: Program, size: number, stepNumbers: Tensor | undefined): void {
    program.dispatch(sftObjective, {
      policy: this.policyLogProbs(size),
      hits: this.hitCounts(size),
      completionTokens: reshape(this.#completionTokens, [size]),
      step: stepNumbers ?? reshape(this.device.unused, [STEP_NUMBERS.size]),
      coefficients: this.coefficients(size),
      metrics: this.metrics,
    });
  }

  override recordTokens(program: Program, size: number): void {
    program.dispatch(sftTokenSums, {
      completionTokens: reshape(this.#completionTokens, [size]),
      entropies: this.tokenSums(size).entropies,
      metrics: this.metrics,
    });
  }

  /** Every completion token of an update weighs the same. */
  override microbatchWeight(batches: readonly Batch[]): number {
    return 1 / batches.reduce((total, { whole }) => total + whole.completionTokens, 0);
  }

  override keepReference(): void {}

  override restoreReference(): void {}

  override metricsOf(sums: ArrayLike<number>): Metrics {
    return sftObjectiveMetrics(sums);
  }
}
