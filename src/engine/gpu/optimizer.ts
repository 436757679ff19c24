/**
 * AdamW over one arena of trained parameters: gradients, both moments and a small state are kept on the device; an
 * update is recorded once and replayed. Knows parameters, not losses.
 */
import { adamw, STEP_NUMBERS } from "../../kernels/adamw.ts";
import { adamw8bit } from "../../kernels/adamw-8bit.ts";
import { MOMENT_BLOCK } from "../../kernels/dynamic-map.ts";
import { clipAndAdvance, NORM_PARTIALS, normSums, OPTIMIZER_STATE, squarePartials } from "../../kernels/reduce.ts";
import { Arena, ParameterLayout, type ParameterSpec } from "./arena.ts";
import type { Device } from "./device.ts";
import { type CodedMoments, LEAST_CODED, type MomentFormat, Moments, momentBytes } from "./moments.ts";
import { type ParameterSlice, partWindow, partWindows } from "./parts.ts";
import type { Program } from "./program.ts";
import { elementCount, reshape, sliceRows, type Tensor, WINDOW_ALIGNMENT } from "./tensor.ts";

/** Elements of windows that coded moments are cut at: their scales, 8 bytes a block, must begin at an aligned byte. */
const WINDOW = (WINDOW_ALIGNMENT / 8) * MOMENT_BLOCK;

/** A parameter as one row of numbers. */
const flat = (tensor: Tensor) => reshape(tensor, [elementCount(tensor.shape)]);

/** What an update of one window of parameters reads and writes. */
interface Window {
  readonly gradient: Tensor;
  readonly parameter: Tensor;
  readonly first: Tensor;
  readonly second: Tensor;
}

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

/** The name of a part's moments. */
export function partName({ name, from }: ParameterSlice): string {
  return `${name}@${from}`;
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
  /** The parts that this optimizer updates; undefined for all parameters. */
  readonly share: readonly ParameterSlice[] | undefined;

  /**
   * @param weights f32 if they are to be updated; for another format only gradients and their norm are computed, and
   * there are no moments
   * @param trained the layout of those parameters that are trained; default all
   * @param shareOf the parts of them that are updated here, and whose moments are kept; default all
   */
  constructor(
    weights: Arena,
    options: AdamWOptions,
    trained?: ParameterLayout,
    shareOf?: (layout: ParameterLayout) => readonly ParameterSlice[],
  ) {
    const { device, layout } = weights;
    this.device = device;
    this.weights = weights;
    this.options = options;
    const own = layout.segments.every(({ dtype }) => dtype === "f32");
    const f32Layout =
      trained ?? (own ? layout : new ParameterLayout(layout.specs, { maxBufferBytes: device.bufferLimit }));
    this.gradients = new Arena(device, f32Layout, "gradients", "gradients");
    this.share = shareOf?.(f32Layout);
    const kept = this.share ? layoutOfParts(device, f32Layout, this.share) : f32Layout;
    // A part's moments are kept as those of its whole parameter are.
    const whole = new Map(this.share?.map((part) => [partName(part), f32Layout.place(part.name).spec]));
    const isCoded = (spec: ParameterSpec) => this.#isCoded(whole.get(spec.name) ?? spec);
    this.#moments = own ? new Moments(device, kept, isCoded) : undefined;
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

  /** Whether the moments of a parameter are kept as codes. */
  isCoded(name: string): boolean {
    return this.#isCoded(this.gradients.layout.place(name).spec);
  }

  #isCoded({ shape }: ParameterSpec): boolean {
    const { momentFormat, leastCoded = LEAST_CODED } = this.options;
    return momentFormat === "8bit" && elementCount(shape) >= leastCoded;
  }

  /** Bytes of the moments of all trained parameters, whoever keeps them, without padding. */
  get momentBytes(): number {
    return momentBytes(this.gradients.layout.specs, (spec) => this.#isCoded(spec));
  }

  /** f32 [NORM_PARTIALS], of `recordSquares`: where the optimizer has a share, ranks replace them by their sums. */
  get normPartials(): Tensor {
    return this.#norm.partials;
  }

  recordZeroGradients(program: Program): void {
    this.gradients.recordClear(program);
  }

  /** Records the global norm and clip factor, without an update: what a gradient check reads. */
  recordNorm(program: Program): void {
    this.recordSquares(program);
    this.#recordClip(program);
  }

  /** Records the partial sums of squares of the gradients, or of this optimizer's share of them. */
  recordSquares(program: Program): void {
    const { facts } = this.device;
    const { sums, partials } = this.#norm;
    const windows = this.share
      ? partWindows(this.gradients, this.share)
      : [...this.gradients.windows()].map(({ of }) => of(this.gradients));
    if (windows.length === 0) program.clear(partials);
    // Where a window begins among all gradients does not depend on the buffers and bindings that they are split over.
    let before = 0;
    for (const x of windows) {
      const first = before === 0 ? 1 : 0;
      program.dispatch(squarePartials(facts), { x, sums, partials, first, skipped: before / 4 });
      before += elementCount(x.shape);
    }
  }

  #recordClip(program: Program): void {
    const { beta1, beta2, maxGradientNorm } = this.options;
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
    this.recordSquares(program);
    this.recordStepByNorm(program);
  }

  /** Records clip and update by the partial sums of squares that are there. */
  recordStepByNorm(program: Program): void {
    this.#recordClip(program);
    const { moments, gradients, weights } = this;
    const { first, second, coded, table } = moments;
    if (this.share) {
      for (const part of this.share) this.#recordPart(program, part);
      return;
    }
    if (table === undefined) {
      for (const { decays, of } of gradients.windows(weights.layout)) {
        const window = { gradient: of(gradients), parameter: of(weights), first: of(first), second: of(second) };
        this.#recordWindow(program, window, decays);
      }
      return;
    }
    // One parameter at a time: which lie beside each other differs between the three layouts.
    for (const { name, shape } of gradients.layout.specs) {
      const size = elementCount(shape);
      if (coded.has(name)) this.#recordPart(program, { name, from: 0, size }, name);
      else {
        const of = (arena: Arena) => flat(arena.window(name));
        const window = { gradient: of(gradients), parameter: of(weights), first: of(first), second: of(second) };
        this.#recordWindow(program, window, gradients.layout.place(name).spec.decay);
      }
    }
  }

  /** @param key the name of its moments */
  #recordPart(program: Program, part: ParameterSlice, key = partName(part)): void {
    const { moments, gradients, weights } = this;
    const { decay } = gradients.layout.place(part.name).spec;
    const [gradient, parameter] = [partWindow(gradients, part), partWindow(weights, part)];
    const coded = moments.coded.get(key);
    if (coded && moments.table) {
      const exact = (tensor: Tensor) => reshape(tensor, [part.size]);
      this.#recordCoded(program, exact(gradient), exact(parameter), coded, moments.table, decay);
      return;
    }
    const own = (arena: Arena) => partWindow(arena, { name: key, from: 0, size: part.size });
    const window = { gradient, parameter, first: own(moments.first), second: own(moments.second) };
    this.#recordWindow(program, window, decay);
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

  #recordWindow(program: Program, window: Window, decays: boolean): void {
    program.dispatch(adamw, { ...window, state: this.state, step: this.stepNumbers, ...this.#numbers(decays) });
  }

  /** Blocks follow one another through the parameter, however many bindings it takes. */
  #recordCoded(
    program: Program,
    gradient: Tensor,
    parameter: Tensor,
    { first, second, scales }: CodedMoments,
    table: Tensor,
    decays: boolean,
  ): void {
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

/** A layout of parts, each under the name of its moments. */
function layoutOfParts(device: Device, layout: ParameterLayout, parts: readonly ParameterSlice[]): ParameterLayout {
  const specs = parts.map((part): ParameterSpec => {
    const { decay } = layout.place(part.name).spec;
    return { name: partName(part), shape: [part.size], decay, parts: [] };
  });
  return new ParameterLayout(specs, { maxBufferBytes: device.bufferLimit });
}
