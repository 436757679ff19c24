/**
 * AdamW over one arena of trained parameters: gradients, both moments and a small state are kept on the device; an
 * update is recorded once and replayed. Knows parameters, not losses.
 */
import { adamw, STEP_NUMBERS } from "../../kernels/adamw.ts";
import { adamw8bit } from "../../kernels/adamw-8bit.ts";
import { MOMENT_BLOCK } from "../../kernels/dynamic-map.ts";
import { clipAndAdvance, NORM_PARTIALS, normSums, OPTIMIZER_STATE, squarePartials } from "../../kernels/reduce.ts";
import { Arena, ParameterLayout } from "./arena.ts";
import type { Device } from "./device.ts";
import { type CodedMoments, type MomentFormat, Moments } from "./moments.ts";
import type { Program } from "./program.ts";
import { elementCount, reshape, sliceRows, type Tensor, WINDOW_ALIGNMENT } from "./tensor.ts";

/** Elements of windows that coded moments are cut at: their scales, 8 bytes a block, must begin at an aligned byte. */
const WINDOW = (WINDOW_ALIGNMENT / 8) * MOMENT_BLOCK;

/** A parameter as one row of numbers. */
const flat = (tensor: Tensor) => reshape(tensor, [elementCount(tensor.shape)]);

export interface AdamWOptions {
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  /** On matrices only; biases and norm weights do not decay. */
  readonly weightDecay: number;
  /** Gradients are scaled down to this global norm; 0 for no clipping. */
  readonly maxGradientNorm: number;
  /** How moments are kept between updates; default f32. */
  readonly momentFormat?: MomentFormat;
  /** Elements from which on a parameter's moments are coded; default `LEAST_CODED`. */
  readonly leastCoded?: number;
}

export class AdamW {
  readonly device: Device;
  /** What is trained. */
  readonly weights: Arena;
  readonly options: AdamWOptions;
  /** Gradients of the trained parameters, f32; zeroed by `recordZeroGradients`, added to by backward passes. */
  readonly gradients: Arena;
  readonly #moments: Moments | undefined;
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
    this.#moments = own ? new Moments(device, f32Layout, options.momentFormat ?? "f32", options.leastCoded) : undefined;
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
   * The two moments, which it keeps between steps.
   *
   * @throws Error if the weights are not updated, so that there are no moments
   */
  get moments(): Moments {
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
    if (moments.table === undefined) {
      for (const { decays, of } of this.gradients.windows(this.weights.layout)) {
        this.#recordWindow(program, of, decays);
      }
      return;
    }
    // One parameter at a time: which lie beside each other differs between the three layouts.
    for (const { name, decay } of this.gradients.layout.specs) {
      const window = (arena: Arena) => flat(arena.window(name));
      const coded = moments.coded.get(name);
      if (coded) this.#recordCoded(program, window, coded, moments.table, decay);
      else this.#recordWindow(program, window, decay);
    }
  }

  /** What every kind of AdamW's kernels reads beside tensors. */
  #numbers(decays: boolean) {
    const { beta1, beta2, epsilon, weightDecay } = this.options;
    return {
      beta1,
      beta2,
      complement1: 1 - beta1,
      complement2: 1 - beta2,
      epsilon,
      weightDecay: decays ? weightDecay : 0,
    };
  }

  #recordWindow(program: Program, of: (arena: Arena) => Tensor, decays: boolean): void {
    const { first, second } = this.moments;
    program.dispatch(adamw, {
      gradient: of(this.gradients),
      state: this.state,
      step: this.stepNumbers,
      parameter: of(this.weights),
      first: of(first),
      second: of(second),
      ...this.#numbers(decays),
    });
  }

  /** Blocks follow one another through the parameter, however many bindings it takes. */
  #recordCoded(
    program: Program,
    of: (arena: Arena) => Tensor,
    { first, second, scales }: CodedMoments,
    table: Tensor,
    decays: boolean,
  ): void {
    const [gradient, parameter] = [of(this.gradients), of(this.weights)];
    const size = elementCount(gradient.shape);
    const most = Math.floor(this.device.limits.maxStorageBufferBindingSize / 4 / WINDOW) * WINDOW;
    for (let from = 0; from < size; from += most) {
      const here = Math.min(most, size - from);
      program.dispatch(adamw8bit, {
        gradient: sliceRows(gradient, from, here),
        state: this.state,
        step: this.stepNumbers,
        table,
        parameter: sliceRows(parameter, from, here),
        first: sliceRows(first, from / 4, Math.ceil(here / 4)),
        second: sliceRows(second, from / 4, Math.ceil(here / 4)),
        scales: sliceRows(scales, from / MOMENT_BLOCK, Math.ceil(here / MOMENT_BLOCK)),
        ...this.#numbers(decays),
      });
    }
  }

  /** Gives the device memory back. */
  free(): void {
    for (const part of [this.gradients, this.#moments]) part?.free();
    for (const tensor of [this.state, this.stepNumbers, ...Object.values(this.#norm)]) this.device.free(tensor);
  }
}
