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
import { checkTargets, type LoraModule, type LoraOptions, linearModules, selectModules } from "./lora-modules.ts";
import { recordMatmul } from "./matmul.ts";

/** A [r, in] and B [out, r] of each module. */
export function adapterSpecs(modules: readonly LoraModule[]): ParameterSpec[] {
  const spec = (name: string, shape: readonly number[]): ParameterSpec => {
    return { name, shape, decay: true, parts: [{ name: `${name}.weight`, shape }] };
  };
  return modules.flatMap(({ name, inputs, outputs, rank }) => [
    spec(`${name}.lora_A`, [rank, inputs]),
    spec(`${name}.lora_B`, [outputs, rank]),
  ]);
}

/** Scratch of an adapter's passes, for as many rows as the pass has. */
export interface LoraScratch {
  /** [T, highest r] at least: the inner result, and its gradient. */
  readonly inner: Tensor;
  readonly dInner: Tensor;
  /** [T, widest input] where there is dropout. */
  readonly dropped: Tensor | undefined;
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
  /** u32[4], see `dropout`: set while training with dropout. */
  readonly #dropoutState: Tensor | undefined;

  private constructor(
    parts: Pick<LoraAdapter, "device" | "options" | "modules" | "weights" | "folder">,
    dropoutState: Tensor | undefined,
  ) {
    this.device = parts.device;
    this.options = parts.options;
    this.modules = parts.modules;
    this.weights = parts.weights;
    this.folder = parts.folder;
    this.#dropoutState = dropoutState;
  }

  /**
   * An adapter of zeros: `initialize` makes it a new one, or it is filled from `folder`, whose targets need not all be
   * layers of this model.
   *
   * @throws ConfigError for targets that the model does not have and options out of range
   */
  static create(device: Device, config: ModelConfig, options: LoraOptions, folder?: string): LoraAdapter {
    checkOptions(options);
    if (folder === undefined) checkTargets(config, options);
    const modules = selectModules(config, options);
    const layout = new ParameterLayout(adapterSpecs(modules), { maxBufferBytes: device.bufferLimit });
    const weights = new Arena(device, layout, "adapter", "adapter");
    return new LoraAdapter({ device, options, modules, weights, folder }, undefined);
  }

  /**
   * A copy of the adapter as it is now, without dropout, in memory of its own: the reference of a run that goes on with
   * it.
   */
  frozenCopy(): LoraAdapter {
    const weights = new Arena(this.device, this.weights.layout, "reference weights", "reference adapter");
    weights.copyFrom(this.weights);
    const { device, options, modules, folder } = this;
    return new LoraAdapter({ device, options, modules, weights, folder }, undefined);
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
    // A plan would draw numbers that nothing holds.
    if (this.device.counts) return;
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

  /** Records y += the adapter's part of the linear layers of `parameter`. x [T, in], y [T, width]. */
  recordForward(program: Program, parameter: string, x: Tensor, y: Tensor, scratch: LoraScratch): void {
    const [rows = 0] = x.shape;
    for (const [index, module] of this.modules.entries()) {
      if (module.parameter !== parameter) continue;
      const inner = this.#recordInner(program, index, module, x, scratch);
      const b = this.weights.window(`${module.name}.lora_B`);
      recordMatmul(program, "NT", inner, b, reshape(y, [rows, y.shape[1] ?? 0]), {
        accumulate: true,
        outFrom: module.outFrom,
      });
    }
  }

  /**
   * Records the gradients of A and B, and dx += the gradient of x through the adapter. dy [T, width], x, dx [T, in].
   */
  recordBackward(
    program: Program,
    parameter: string,
    gradients: Arena,
    args: { readonly dy: Tensor; readonly x: Tensor; readonly dx: Tensor },
    scratch: LoraScratch,
  ): void {
    const { dy, x, dx } = args;
    const [rows = 0] = x.shape;
    for (const [index, module] of this.modules.entries()) {
      if (module.parameter !== parameter) continue;
      const { name, outFrom, rank, scale } = module;
      const inner = this.#recordInner(program, index, module, x, scratch);
      recordMatmul(program, "TN", dy, inner, gradients.window(`${name}.lora_B`), { accumulate: true, aFrom: outFrom });
      const dInner = reshape(scratch.dInner, [rows, rank]);
      const a = this.weights.window(`${name}.lora_A`);
      recordMatmul(program, "NN", dy, this.weights.window(`${name}.lora_B`), dInner, {
        aFrom: outFrom,
        scale,
      });
      const state = this.#dropoutState;
      const input = state === undefined || !scratch.dropped ? x : reshape(scratch.dropped, x.shape);
      recordMatmul(program, "TN", dInner, input, gradients.window(`${name}.lora_A`), { accumulate: true });
      if (input === x || state === undefined) {
        recordMatmul(program, "NN", dInner, a, dx, { accumulate: true });
      } else {
        recordMatmul(program, "NN", dInner, a, input);
        program.dispatch(addDropout, { x: input, state, y: dx, ...this.#dropoutValues(index) });
      }
    }
  }

  /** Records inner [T, r] = scale dropout(x) A^T of one target; dropout(x) stays in the scratch. */
  #recordInner(program: Program, index: number, module: LoraModule, x: Tensor, scratch: LoraScratch): Tensor {
    const [rows = 0] = x.shape;
    const { name, rank, scale } = module;
    const inner = reshape(scratch.inner, [rows, rank]);
    let input = x;
    if (this.#dropoutState !== undefined && scratch.dropped !== undefined) {
      input = reshape(scratch.dropped, x.shape);
      program.dispatch(dropout, { x, state: this.#dropoutState, y: input, ...this.#dropoutValues(index) });
    }
    recordMatmul(program, "NT", input, this.weights.window(`${name}.lora_A`), inner, { scale });
    return inner;
  }

  #dropoutValues(stream: number): { stream: number; threshold: number; keptScale: number } {
    const { dropout: share } = this.options;
    return { stream, threshold: Math.round(share * 2 ** 32), keptScale: 1 / (1 - share) };
  }

  /** Trained parameters. */
  get parameterCount(): number {
    return this.modules.reduce((sum, { inputs, outputs, rank }) => sum + rank * (inputs + outputs), 0);
  }

  /** Gives the device memory back. */
  free(): void {
    this.weights.free();
  }
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
