/**
 * AdamW over one arena of trained parameters: gradients, both moments and a small state are kept on the device; an
 * update is recorded once and replayed. Knows parameters, not losses.
 */
import { adamw, STEP_NUMBERS } from "../../kernels/adamw.ts";
import { clipAndAdvance, NORM_PARTIALS, normSums, OPTIMIZER_STATE, squarePartials } from "../../kernels/reduce.ts";
import { Arena, ParameterLayout } from "./arena.ts";
import type { Device } from "./device.ts";
import type { Program } from "./program.ts";
import { elementCount, type Tensor } from "./tensor.ts";

export interface AdamWOptions {
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  /** On matrices only; biases and norm weights do not decay. */
  readonly weightDecay: number;
  /** Gradients are scaled down to this global norm; 0 for no clipping. */
  readonly maxGradientNorm: number;
}

export class AdamW {
  readonly device: Device;
  /** What is trained. */
  readonly weights: Arena;
  readonly options: AdamWOptions;
  /** Gradients of the trained parameters, f32; zeroed by `recordZeroGradients`, added to by backward passes. */
  readonly gradients: Arena;
  readonly #moments: { readonly first: Arena; readonly second: Arena } | undefined;
  /** f32[8], places in OPTIMIZER_STATE. */
  readonly state: Tensor;
  /** f32[4], places in STEP_NUMBERS; written by the host before each step. */
  readonly stepNumbers: Tensor;
  /** What the gradients' norm is summed in. */
  readonly #norm: { readonly sums: Tensor; readonly partials: Tensor };

  /**
   * @param weights f32 if they are to be updated; for another format only gradients and their norm are computed, and
   * there are no moments
   * @param trained the layout of those parameters that are trained; default all
   */
  constructor(weights: Arena, options: AdamWOptions, trained?: ParameterLayout) {
    const { device, layout } = weights;
    this.device = device;
    this.weights = weights;
    this.options = options;
    const own = layout.segments.every(({ dtype }) => dtype === "f32");
    const f32Layout =
      trained ?? (own ? layout : new ParameterLayout(layout.specs, { maxBufferBytes: device.bufferLimit }));
    this.gradients = new Arena(device, f32Layout, "gradients", "gradients");
    this.#moments = own
      ? {
          first: new Arena(device, f32Layout, "optimizer", "first moments"),
          second: new Arena(device, f32Layout, "optimizer", "second moments"),
        }
      : undefined;
    this.state = device.allocate("optimizer", "optimizer state", [OPTIMIZER_STATE.size]);
    this.stepNumbers = device.allocate("optimizer", "step numbers", [STEP_NUMBERS.size]);
    this.#norm = {
      sums: device.allocate("scratch", "norm sums", [normSums(device.facts)]),
      partials: device.allocate("scratch", "norm partials", [NORM_PARTIALS]),
    };
  }

  /**
   * Sets what changes from step to step.
   *
   * @param microbatchWeight factor on the coefficients of every microbatch, see STEP_NUMBERS
   * @param updateRows rows of all microbatches; only an objective that weighs rows alike reads it
   */
  setStep(learningRate: number, microbatchWeight: number, updateRows = 0): void {
    const numbers = new Float32Array(STEP_NUMBERS.size);
    numbers[STEP_NUMBERS.learningRate] = learningRate;
    numbers[STEP_NUMBERS.microbatchWeight] = microbatchWeight;
    numbers[STEP_NUMBERS.updateRows] = updateRows;
    this.device.upload(this.stepNumbers, numbers);
  }

  /**
   * The two moments, which it keeps between steps, in the layout of the trained parameters.
   *
   * @throws Error if the weights are not updated, so that there are no moments
   */
  get moments(): { readonly first: Arena; readonly second: Arena } {
    if (this.#moments === undefined) throw new Error("weights that are not f32 cannot be updated");
    return this.#moments;
  }

  recordZeroGradients(program: Program): void {
    this.gradients.recordClear(program);
  }

  /** Records the global norm and clip factor, without an update: what a gradient check reads. */
  recordNorm(program: Program): void {
    const { beta1, beta2, maxGradientNorm } = this.options;
    const { facts } = this.device;
    const { sums, partials } = this.#norm;
    // Where a window begins among all gradients does not depend on the buffers and bindings that they are split over.
    let before = 0;
    for (const { of } of this.gradients.windows()) {
      const x = of(this.gradients);
      const first = before === 0 ? 1 : 0;
      program.dispatch(squarePartials(facts), { x, sums, partials, first, skipped: before / 4 });
      before += elementCount(x.shape);
    }
    program.dispatch(clipAndAdvance, {
      partials: this.#norm.partials,
      state: this.state,
      maxNorm: maxGradientNorm,
      beta1,
      beta2,
      complement1: 1 - beta1,
      complement2: 1 - beta2,
    });
  }

  /** Records norm, clip and update. A gradient that is not finite leaves everything as it was and is counted. */
  recordStep(program: Program): void {
    const { moments } = this;
    this.recordNorm(program);
    const { beta1, beta2, epsilon, weightDecay } = this.options;
    for (const { decays, of } of this.gradients.windows(this.weights.layout)) {
      program.dispatch(adamw, {
        gradient: of(this.gradients),
        state: this.state,
        step: this.stepNumbers,
        parameter: of(this.weights),
        first: of(moments.first),
        second: of(moments.second),
        beta1,
        beta2,
        complement1: 1 - beta1,
        complement2: 1 - beta2,
        epsilon,
        weightDecay: decays ? weightDecay : 0,
      });
    }
  }

  /** Gives the device memory back. */
  free(): void {
    for (const arena of [this.gradients, this.#moments?.first, this.#moments?.second]) arena?.free();
    for (const tensor of [this.state, this.stepNumbers, ...Object.values(this.#norm)]) this.device.free(tensor);
  }
}
