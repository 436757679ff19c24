/**
 * LoRA (Hu et al. 2021): beside a frozen linear layer y = x W^T two small trained matrices,
 *
 *   y += scale dropout(x) A^T B^T        A [r, in], B [out, r], scale = alpha / r, or alpha / sqrt(r) (rslora)
 *
 * and their gradients. With B = 0 at the start the model is the base model. Which layers have an adapter is chosen in
 * `lora-modules.ts`; files are read and written in `peft.ts`.
 */
import { ConfigError } from "../../errors.ts";
import { addDropout, dropout } from "../../kernels/dropout.ts";
import { Arena, ParameterLayout, type ParameterSpec } from "../gpu/arena.ts";
import type { Device } from "../gpu/device.ts";
import type { Program } from "../gpu/program.ts";
import { reshape, type Tensor } from "../gpu/tensor.ts";
import { Random } from "../random.ts";
import type { ModelConfig } from "./config/config.ts";
import { type BaseWeights, DoraNorms, type DoraScratch, partOf } from "./dora.ts";
import { checkTargets, type LoraModule, type LoraOptions, linearModules, selectModules } from "./lora-modules.ts";
import { recordMatmul } from "./matmul.ts";
import { recordProductBackward } from "./weight-product.ts";

/** A [r, in] and B [out, r] of each module, and its magnitude [out] with DoRA. */
export function adapterSpecs(modules: readonly LoraModule[], { dora = false }: Pick<LoraOptions, "dora">): ParameterSpec[] {
  const spec = (name: string, shape: readonly number[], part = name): ParameterSpec => {
    return { name, shape, decay: true, parts: [{ name: part, shape }] };
  };
  return modules.flatMap(({ name, inputs, outputs, rank }) => [
    spec(`${name}.lora_A`, [rank, inputs], `${name}.lora_A.weight`),
    spec(`${name}.lora_B`, [outputs, rank], `${name}.lora_B.weight`),
    ...(dora ? [spec(magnitudeName(name), [outputs])] : []),
  ]);
}

/** PEFT's name of a module's magnitude, in files too. */
export const magnitudeName = (module: string): string => `${module}.lora_magnitude_vector`;

/** Scratch of an adapter's passes, for as many rows as the pass has. */
export interface LoraScratch {
  /** [T, highest r] at least: the inner result, and its gradient. */
  readonly inner: Tensor;
  readonly dInner: Tensor;
  /** [T, widest input] where there is dropout. */
  readonly dropped: Tensor | undefined;
  readonly dora?: DoraScratch | undefined;
}

/** What a passes' backward has of a linear layer: dy [T, width], x, dx [T, in]. */
interface LayerGradients {
  readonly dy: Tensor;
  readonly x: Tensor;
  readonly dx: Tensor;
}

/** A LoRA adapter over a model: A and B of every target, f32, in one arena. */
export class LoraAdapter {
  readonly device: Device;
  readonly options: LoraOptions;
  /** Targets in the order of a forward pass. */
  readonly modules: readonly LoraModule[];
  /** All A and B. */
  readonly weights: Arena;
  /** The folder that it was loaded from. */
  readonly folder: string | undefined;
  /** Where it has DoRA. */
  readonly norms: DoraNorms | undefined;
  /** u32[4], see `dropout`: set while training with dropout. */
  readonly #dropoutState: Tensor | undefined;

  private constructor(
    parts: Pick<LoraAdapter, "device" | "options" | "modules" | "weights" | "folder" | "norms">,
    dropoutState: Tensor | undefined,
  ) {
    this.device = parts.device;
    this.options = parts.options;
    this.modules = parts.modules;
    this.weights = parts.weights;
    this.folder = parts.folder;
    this.norms = parts.norms;
    this.#dropoutState = dropoutState;
  }

  /**
   * An adapter of zeros: `initialize` makes it a new one, or it is filled from `folder`, whose targets need not all be
   * layers of this model. What it takes from its base, `readBase` reads.
   *
   * @throws ConfigError for targets that the model does not have and options out of range
   */
  static create(device: Device, config: ModelConfig, options: LoraOptions, folder?: string): LoraAdapter {
    checkOptions(options);
    if (folder === undefined) checkTargets(config, options);
    const modules = selectModules(config, options);
    const layout = new ParameterLayout(adapterSpecs(modules, options), { maxBufferBytes: device.bufferLimit });
    const weights = new Arena(device, layout, "adapter", "adapter");
    const norms = options.dora ? new DoraNorms(device, modules) : undefined;
    return new LoraAdapter({ device, options, modules, weights, folder, norms }, undefined);
  }

  /**
   * A copy of the adapter as it is now, without dropout, in memory of its own: the reference of a run that goes on with
   * it.
   */
  frozenCopy(): LoraAdapter {
    const weights = new Arena(this.device, this.weights.layout, "reference weights", "reference adapter");
    weights.copyFrom(this.weights);
    const { device, options, modules, folder } = this;
    const norms = this.norms && new DoraNorms(device, modules, this.norms);
    return new LoraAdapter({ device, options, modules, weights, folder, norms }, undefined);
  }

  /**
   * Reads what an adapter with DoRA takes from its base: the lengths of the rows of its weights, as which magnitudes
   * start. Needed before it is put to a model; an adapter that is filled from a folder is filled afterwards.
   */
  async readBase(base: BaseWeights): Promise<void> {
    if (this.norms === undefined) return;
    await this.norms.read(base);
    if (this.device.counts) return;
    for (const module of this.modules) {
      this.device.upload(this.weights.window(magnitudeName(module.name)), await this.norms.lengths(module));
    }
  }

  /** @throws ConfigError where a model lies on another device or has other layers than those that the adapter is for */
  checkFits({
    device,
    config,
    folder,
  }: {
    readonly device: Device;
    readonly config: ModelConfig;
    readonly folder: string;
  }): void {
    if (device !== this.device) {
      throw new ConfigError(
        `The adapter lies on another device than the model ${folder}; make or load both on one device.`,
      );
    }
    if (this.norms?.isRead === false) {
      throw new ConfigError(
        "The adapter has DoRA, whose magnitudes start from the base model's weights: call readBase with that model first.",
      );
    }
    const layers = new Map(linearModules(config).map((layer) => [layer.name, layer]));
    for (const { name, inputs, outputs } of this.modules) {
      const layer = layers.get(name);
      if (layer?.inputs === inputs && layer.outputs === outputs) continue;
      const found = layer === undefined ? "has no such layer" : `has one of ${layer.outputs} x ${layer.inputs} there`;
      throw new ConfigError(
        `The adapter is for another model than ${folder}: it has a module for "${name}" of ${outputs} x ${inputs}, and the model ${found}; make or load an adapter for this model.`,
      );
    }
  }

  /** Whether the model with this adapter is the model without it: every B is zero, as `initialize` leaves it. */
  async addsNothing(): Promise<boolean> {
    for (const { name } of this.modules) {
      const values = await this.device.download(this.weights.window(`${name}.lora_B`));
      if (values.some((value) => value !== 0)) return false;
    }
    return true;
  }

  /** PEFT's start: A uniform within 1 / sqrt(in) (Kaiming with a = sqrt 5), B zero. */
  initialize(seed: number): void {
    for (const [index, { name, inputs, rank }] of this.modules.entries()) {
      const random = new Random(seed, INITIALIZATION_STREAM + index);
      const bound = 1 / Math.sqrt(inputs);
      const values = Float32Array.from({ length: rank * inputs }, () => (2 * random.float() - 1) * bound);
      this.device.upload(this.weights.window(`${name}.lora_A`), values);
    }
  }

  /** This adapter with dropout, whose random numbers follow from `state`. */
  training(state: Tensor): LoraAdapter {
    return this.options.dropout > 0 ? new LoraAdapter(this, state) : this;
  }

  get widestInput(): number {
    return Math.max(...this.modules.map(({ inputs }) => inputs));
  }

  get highestRank(): number {
    return Math.max(...this.modules.map(({ rank }) => rank));
  }

  /** Columns of the widest result that a module is a part of. */
  get widestResult(): number {
    return Math.max(...this.modules.map(({ width }) => width));
  }

  /** Records what follows from the adapter as it is now and a pass reads: DoRA's gains. */
  recordGains(program: Program, base: BaseWeights, scratch: LoraScratch): void {
    const { norms } = this;
    if (norms === undefined) return;
    for (const module of this.modules) {
      const { a, b } = this.#parts(module);
      const magnitude = this.weights.window(magnitudeName(module.name));
      norms.recordGains(program, base, module, { a, b, magnitude }, doraScratch(scratch));
    }
  }

  /**
   * DoRA's gains of the result of a parameter where the base's part of it has them too, and gets bias and residual
   * behind them; undefined for a result that they do not concern.
   */
  late(parameter: string): DoraNorms | undefined {
    const concerns = this.modules.some((module) => module.parameter === parameter);
    return this.#dropoutState === undefined && concerns ? this.norms : undefined;
  }

  #parts({ name }: LoraModule): { readonly a: Tensor; readonly b: Tensor } {
    return { a: this.weights.window(`${name}.lora_A`), b: this.weights.window(`${name}.lora_B`) };
  }

  /** Records y += the adapter's part of the linear layers of `parameter`. x [T, in], y [T, width]. */
  recordForward(
    program: Program,
    base: BaseWeights,
    parameter: string,
    x: Tensor,
    y: Tensor,
    scratch: LoraScratch,
  ): void {
    const [rows = 0] = x.shape;
    for (const [index, module] of this.modules.entries()) {
      if (module.parameter !== parameter) continue;
      const { inner, input } = this.#recordInner(program, index, module, x, scratch);
      const { b } = this.#parts(module);
      if (this.norms && this.#dropoutState) {
        const args = { dropped: input, inner, b, y };
        this.norms.recordWithDropout(program, base, module, args, doraScratch(scratch));
        continue;
      }
      recordMatmul(program, "NT", inner, b, reshape(y, [rows, y.shape[1] ?? 0]), {
        accumulate: true,
        outFrom: module.outFrom,
      });
    }
  }

  /**
   * Records the gradients of the magnitudes of the linear layers of `parameter`, with DoRA.
   *
   * @param partials scratch of column sums
   */
  recordMagnitudes(
    program: Program,
    base: BaseWeights,
    parameter: string,
    gradients: Arena,
    { dy, x, partials }: Pick<LayerGradients, "dy" | "x"> & { readonly partials: Tensor },
    scratch: LoraScratch,
  ): void {
    for (const [index, module] of this.modules.entries()) {
      if (this.norms === undefined || module.parameter !== parameter) continue;
      const { inner, input } = this.#recordInner(program, index, module, x, scratch);
      const { b } = this.#parts(module);
      const gradient = gradients.window(magnitudeName(module.name));
      const args = { dy, x: input, inner, b, gradient, partials };
      this.norms.recordMagnitude(program, base, module, args, doraScratch(scratch));
    }
  }

  /**
   * Records the gradients of A and B, and dx += the gradient of x through the adapter. dy [T, width], x, dx [T, in];
   * where DoRA's gains are `late`, dy has them already.
   */
  recordBackward(
    program: Program,
    base: BaseWeights,
    parameter: string,
    gradients: Arena,
    args: LayerGradients,
    scratch: LoraScratch,
  ): void {
    const { x, dx } = args;
    const [rows = 0] = x.shape;
    for (const [index, module] of this.modules.entries()) {
      if (module.parameter !== parameter) continue;
      const { name, rank, scale } = module;
      const state = this.#dropoutState;
      const { inner, input } = this.#recordInner(program, index, module, x, scratch);
      const place = { key: parameter, from: module.outFrom, columns: module.outputs };
      const apart = state === undefined ? undefined : this.norms;
      const [dy, aFrom] = apart
        ? [apart.recordScaled(program, place, args.dy, doraScratch(scratch)), 0]
        : [args.dy, module.outFrom];
      recordMatmul(program, "TN", dy, inner, gradients.window(`${name}.lora_B`), { accumulate: true, aFrom });
      const dInner = reshape(scratch.dInner, [rows, rank]);
      const { a, b } = this.#parts(module);
      recordMatmul(program, "NN", dy, b, dInner, { aFrom, scale });
      recordMatmul(program, "TN", dInner, input, gradients.window(`${name}.lora_A`), { accumulate: true });
      if (input === x || state === undefined) {
        recordMatmul(program, "NN", dInner, a, dx, { accumulate: true });
        continue;
      }
      recordMatmul(program, "NN", dInner, a, input);
      if (apart) {
        const { weight, slack } = partOf(base, module);
        const dBase = apart.recordScaled(program, place, args.dy, doraScratch(scratch), { shift: 1, slack });
        recordProductBackward(program, weight, dBase, input, { accumulate: true });
      }
      program.dispatch(addDropout, { x: input, state, y: dx, ...this.#dropoutValues(index) });
    }
  }

  /**
   * Records inner [T, r] = scale input A^T of one target, where input is x or, of the scratch, dropout(x); returns both.
   */
  #recordInner(
    program: Program,
    index: number,
    module: LoraModule,
    x: Tensor,
    scratch: LoraScratch,
  ): { readonly inner: Tensor; readonly input: Tensor } {
    const [rows = 0] = x.shape;
    const { rank, scale } = module;
    const inner = reshape(scratch.inner, [rows, rank]);
    let input = x;
    if (this.#dropoutState !== undefined && scratch.dropped !== undefined) {
      input = reshape(scratch.dropped, x.shape);
      program.dispatch(dropout, { x, state: this.#dropoutState, y: input, ...this.#dropoutValues(index) });
    }
    recordMatmul(program, "NT", input, this.#parts(module).a, inner, { scale });
    return { inner, input };
  }

  #dropoutValues(stream: number): { stream: number; threshold: number; keptScale: number } {
    const { dropout: share } = this.options;
    return { stream, threshold: Math.round(share * 2 ** 32), keptScale: 1 / (1 - share) };
  }

  /** Trained parameters. */
  get parameterCount(): number {
    return this.weights.layout.parameterCount;
  }

  /** Gives the device memory back. */
  free(): void {
    this.weights.free();
    this.norms?.free();
  }
}

function doraScratch({ dora }: LoraScratch): DoraScratch {
  if (dora === undefined) throw new Error("this memory was made for an adapter without DoRA");
  return dora;
}

/** First of the random streams that initial values are drawn from, one a target; far from the sampler's. */
const INITIALIZATION_STREAM = 2 ** 40;

function checkOptions({ rank, alpha, dropout: share, rankPattern = {}, alphaPattern = {} }: LoraOptions): void {
  for (const value of [rank, ...Object.values(rankPattern)]) {
    if (!Number.isInteger(value) || value < 1)
      throw new ConfigError(`lora_r is ${value}; it must be a whole number of at least 1.`);
  }
  for (const value of [alpha, ...Object.values(alphaPattern)]) {
    if (!(value > 0 && Number.isFinite(value)))
      throw new ConfigError(`lora_alpha is ${value}; it must be a number above 0.`);
  }
  if (!(share >= 0 && share < 1))
    throw new ConfigError(`lora_dropout is ${share}; it must be a number from 0 to below 1.`);
}
