/**
 * AdamW over one model's arena: gradients, both moments and the small state live on the device; a step is recorded
 * once and replayed. Knows parameters, not losses.
 */
import { adamw, STEP_NUMBERS } from "../kernels/adamw.ts";
import { clipAndAdvance, NORM_PARTIALS, OPTIMIZER_STATE, squarePartials } from "../kernels/reduce.ts";
import type { Device } from "./device.ts";
import type { Model } from "./model/load.ts";
import type { Program } from "./program.ts";
import { type Tensor, WINDOW_ALIGNMENT } from "./tensor.ts";

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
  readonly model: Model;
  readonly options: AdamWOptions;
  /** Arena of the model's layout; zeroed by `recordZeroGradients`, added to by backward passes. */
  readonly gradients: Tensor;
  readonly firstMoments: Tensor;
  readonly secondMoments: Tensor;
  /** f32[8], places in OPTIMIZER_STATE. */
  readonly state: Tensor;
  /** f32[4], places in STEP_NUMBERS; written by the host before each step. */
  readonly stepNumbers: Tensor;
  readonly #partials: Tensor;

  constructor(model: Model, options: AdamWOptions) {
    const { device } = model;
    const { size } = model.layout;
    this.device = device;
    this.model = model;
    this.options = options;
    this.gradients = device.allocate("gradients", "gradients", [size]);
    this.firstMoments = device.allocate("optimizer", "first moments", [size]);
    this.secondMoments = device.allocate("optimizer", "second moments", [size]);
    this.state = device.allocate("optimizer", "optimizer state", [OPTIMIZER_STATE.size]);
    this.stepNumbers = device.allocate("optimizer", "step numbers", [STEP_NUMBERS.size]);
    this.#partials = device.allocate("scratch", "norm partials", [NORM_PARTIALS]);
  }

  /** Sets what changes from step to step. */
  setStep(learningRate: number, microbatches: number): void {
    const numbers = new Float32Array(STEP_NUMBERS.size);
    numbers[STEP_NUMBERS.learningRate] = learningRate;
    numbers[STEP_NUMBERS.microbatchWeight] = 1 / microbatches;
    this.device.upload(this.stepNumbers, numbers);
  }

  recordZeroGradients(program: Program): void {
    program.clear(this.gradients);
  }

  /** Records the global norm and clip factor, without an update: what a gradient check reads. */
  recordNorm(program: Program): void {
    const { beta1, beta2, maxGradientNorm } = this.options;
    const { facts } = this.device;
    for (const [index, window] of this.#windows(0, this.model.layout.size).entries()) {
      program.dispatch(squarePartials(facts), {
        x: window(this.gradients),
        partials: this.#partials,
        first: index === 0 ? 1 : 0,
      });
    }
    program.dispatch(clipAndAdvance, {
      partials: this.#partials,
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
    this.recordNorm(program);
    const { beta1, beta2, epsilon, weightDecay } = this.options;
    const { decayedSize, size } = this.model.layout;
    for (const [from, to, decay] of [
      [0, decayedSize, weightDecay],
      [decayedSize, size, 0],
    ] as const) {
      for (const window of this.#windows(from, to)) {
        program.dispatch(adamw, {
          gradient: window(this.gradients),
          state: this.state,
          step: this.stepNumbers,
          parameter: window(this.model.weights),
          first: window(this.firstMoments),
          second: window(this.secondMoments),
          beta1,
          beta2,
          complement1: 1 - beta1,
          complement2: 1 - beta2,
          epsilon,
          weightDecay: decay,
        });
      }
    }
  }

  /** Windows of [from, to) that the adapter can bind, as functions from an arena to its window. */
  #windows(from: number, to: number): ((arena: Tensor) => Tensor)[] {
    const alignment = WINDOW_ALIGNMENT / 4;
    const most = Math.floor(this.device.limits.maxStorageBufferBindingSize / 4 / alignment) * alignment;
    const windows: ((arena: Tensor) => Tensor)[] = [];
    for (let start = from; start < to; start += most) {
      const count = Math.min(most, to - start);
      windows.push((arena) => ({ ...arena, offset: arena.offset + 4 * start, shape: [count] }));
    }
    return windows;
  }

  /** Gives the device memory back. */
  free(): void {
    for (const tensor of [
      this.gradients,
      this.firstMoments,
      this.secondMoments,
      this.state,
      this.stepNumbers,
      this.#partials,
    ]) {
      this.device.free(tensor);
    }
  }
}
