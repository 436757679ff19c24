/**
 * The seam between models and method: from log-probabilities per sequence to coefficients per sequence, on the device.
 * A variant of the method is one kernel and its float64 twin; nothing else changes.
 */
import type { Device } from "../engine/device.ts";
import type { TokenSums } from "../engine/model/head.ts";
import type { Program } from "../engine/program.ts";
import { reshape, sliceRows, type Tensor } from "../engine/tensor.ts";
import { STEP_NUMBERS } from "../kernels/adamw.ts";
import { ktoObjective, METRIC_SUMS, mismatchedPairSum, tokenSums } from "../kernels/kto-objective.ts";
import type { KtoBatch } from "./batch.ts";

/** The method's constants. */
export interface ObjectiveOptions {
  /** Scale of log-ratios (nats) in the value function; above 0. */
  readonly beta: number;
  /** lambda_D and lambda_U. */
  readonly desirableWeight: number;
  readonly undesirableWeight: number;
  /** "apo_zero_unpaired": the reference point is 0 and no mismatched pairs are computed. */
  readonly lossType: "kto" | "apo_zero_unpaired";
  /** "uniform": the reference's log-probabilities are one constant, for which 0 stands; default "model". */
  readonly referenceKind?: "model" | "uniform";
}

export class Objective {
  readonly device: Device;
  readonly options: ObjectiveOptions;
  readonly #policySums: Tensor;
  /** Written by a pass or by an upload; zero, as it was allocated, where there is no reference. */
  readonly #referenceSums: Tensor;
  readonly #desirable: Tensor;
  readonly #pairValid: Tensor;
  readonly #coefficients: Tensor;
  readonly #tokenSums: TokenSums;
  /** f32[2]: sum and number of mismatched log-ratios that make up the reference point. */
  readonly pairSum: Tensor;
  /** f32[24], places in METRIC_SUMS. */
  readonly metrics: Tensor;

  /** @param maxSize the largest microbatch */
  constructor(device: Device, options: ObjectiveOptions, maxSize: number) {
    this.device = device;
    this.options = options;
    this.#policySums = device.allocate("scratch", "policy log-probs", [2 * maxSize]);
    this.#referenceSums = device.allocate("scratch", "reference log-probs", [2 * maxSize]);
    this.#desirable = device.allocate("batch", "labels", [maxSize], "u32");
    this.#pairValid = device.allocate("batch", "pair flags", [maxSize], "u32");
    this.#coefficients = device.allocate("scratch", "coefficients", [maxSize]);
    this.#tokenSums = {
      entropies: device.allocate("scratch", "entropies", [maxSize]),
      logits: device.allocate("scratch", "mean logits", [maxSize]),
    };
    this.pairSum = device.allocate("scratch", "reference point", [2]);
    this.metrics = device.allocate("scratch", "metric sums", [METRIC_SUMS.size]);
  }

  get usesPairs(): boolean {
    return this.options.lossType === "kto";
  }

  /** Sequences of a microbatch of m: the examples, then the pairs if there are any. */
  sequences(size: number): number {
    return this.usesPairs ? 2 * size : size;
  }

  policySums(size: number): Tensor {
    return reshape(this.#policySums, [this.sequences(size)]);
  }

  referenceSums(size: number): Tensor {
    return reshape(this.#referenceSums, [this.sequences(size)]);
  }

  coefficients(size: number): Tensor {
    return reshape(this.#coefficients, [size]);
  }

  /** Where the sums over the examples' completion tokens go. */
  tokenSums(size: number): TokenSums {
    const { entropies, logits } = this.#tokenSums;
    return { entropies: reshape(entropies, [size]), logits: reshape(logits, [size]) };
  }

  upload(batch: KtoBatch): void {
    this.device.upload(this.#desirable, batch.desirable);
    this.device.upload(this.#pairValid, batch.pairValid);
    if (batch.referenceLogProbs) this.device.upload(this.#referenceSums, batch.referenceLogProbs);
  }

  recordClearPairs(program: Program): void {
    program.clear(this.pairSum);
  }

  /** Records adding this microbatch's mismatched log-ratios to the reference point, and counting them. */
  recordPairs(program: Program, size: number): void {
    if (!this.usesPairs) return;
    program.dispatch(mismatchedPairSum, {
      policy: this.policySums(size),
      reference: this.referenceSums(size),
      pairValid: reshape(this.#pairValid, [size]),
      pairSum: this.pairSum,
      metrics: this.metrics,
    });
  }

  /**
   * Records coefficients and metric sums from the log-probabilities and the reference point as it stands.
   *
   * @param stepNumbers the optimizer's; without them the coefficients are 0, which an evaluation does not read
   */
  recordCoefficients(program: Program, size: number, stepNumbers: Tensor | undefined): void {
    const { beta, desirableWeight, undesirableWeight } = this.options;
    program.dispatch(ktoObjective, {
      policy: this.policySums(size),
      reference: this.referenceSums(size),
      desirable: reshape(this.#desirable, [size]),
      pairSum: this.pairSum,
      step: stepNumbers ?? reshape(this.device.unused, [STEP_NUMBERS.size]),
      coefficients: this.coefficients(size),
      metrics: this.metrics,
      beta,
      desirableWeight,
      undesirableWeight,
      clamped: this.options.referenceKind === "uniform" ? 0 : 1,
    });
  }

  /** Records adding `tokenSums` to the metric sums. @param sequenceRanges u32[S, 2], head rows of the sequences */
  recordTokens(program: Program, size: number, sequenceRanges: Tensor): void {
    program.dispatch(tokenSums, {
      ranges: sliceRows(sequenceRanges, 0, size),
      ...this.tokenSums(size),
      desirable: reshape(this.#desirable, [size]),
      metrics: this.metrics,
    });
  }

  /** Gives the device memory back. */
  free(): void {
    for (const tensor of [
      this.#policySums,
      this.#referenceSums,
      this.#desirable,
      this.#pairValid,
      this.#coefficients,
      this.#tokenSums.entropies,
      this.#tokenSums.logits,
      this.pairSum,
      this.metrics,
    ]) {
      this.device.free(tensor);
    }
  }
}
