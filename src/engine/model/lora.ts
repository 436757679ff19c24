/**
 * LoRA (Hu et al. 2021): beside a frozen linear layer y = x W^T two small trained matrices,
 *
 *   y += scale dropout(x) A^T B^T        A [r, in], B [out, r], scale = alpha / r, or alpha / sqrt(r) (rslora)
 *
 * and their gradients. Which layers, as PEFT names them; files are `peft.ts`' business. With B = 0 at the start the model
 * is the base model; without the adapter it is the reference, at no memory.
 */
import { ConfigError, shown } from "../../errors.ts";
import { addDropout, dropout } from "../../kernels/dropout.ts";
import { textsMatching } from "../files/foreign-pattern.ts";
import { Arena, ParameterLayout, type ParameterSpec } from "../gpu/arena.ts";
import type { Device } from "../gpu/device.ts";
import type { Program } from "../gpu/program.ts";
import { elementCount, reshape, type Tensor } from "../gpu/tensor.ts";
import { Random } from "../random.ts";
import type { ModelConfig } from "./config/config.ts";
import { recordMatmul } from "./matmul.ts";
import { modulePrefix, parameterSpecs } from "./weights/parameters.ts";

export interface LoraOptions {
  /** r. */
  readonly rank: number;
  readonly alpha: number;
  /** Share of the inputs that training leaves out, from 0 to below 1. */
  readonly dropout: number;
  /** Divides alpha by sqrt(r) in place of r (Kalajdzievski 2023). */
  readonly rslora: boolean;
  /**
   * Module names ("q_proj", "mlp.down_proj"), "all-linear" for every linear layer of the decoder, or a regular expression
   * for whole module names, as PEFT reads a single text. Default: PEFT's for the family.
   */
  readonly targetModules?: readonly string[] | string;
}

/** A linear layer as a checkpoint names it: columns [outFrom, outFrom + outputs) of the result of one of our parameters. */
export interface LinearModule {
  /** Without the prefix ("model.", "transformer."), e.g. "layers.0.self_attn.q_proj". */
  readonly name: string;
  /** Our parameter, e.g. "layers.0.qkv.weight". */
  readonly parameter: string;
  readonly inputs: number;
  readonly outputs: number;
  readonly outFrom: number;
}

/** Every linear layer of the decoder's blocks; not the embedding, not the head. */
export function linearModules(config: ModelConfig): LinearModule[] {
  const modules: LinearModule[] = [];
  for (const { name: parameter, shape, parts } of parameterSpecs(config)) {
    if (shape.length < 2 || !parameter.startsWith("layers.")) continue;
    let outFrom = 0;
    for (const part of parts) {
      const [first = 0, second = 0] = part.shape;
      const [outputs, inputs] = config.inOutWeights ? [second, first] : [first, second];
      modules.push({ name: part.name.replace(/\.weight$/, ""), parameter, inputs, outputs, outFrom });
      outFrom += outputs;
    }
  }
  return modules;
}

/** PEFT's default targets by family; the others have the attention's query and value projections. */
const DEFAULT_TARGETS: Readonly<Record<string, readonly string[]>> = { gpt2: ["c_attn"] };
const USUAL_TARGETS = ["q_proj", "v_proj"];

/** The names that `target_modules` of a PEFT configuration lists: what was asked for, resolved. */
export function targetNames(
  config: ModelConfig,
  targetModules: LoraOptions["targetModules"],
): readonly string[] | string {
  if (targetModules === "all-linear") return lastNames(linearModules(config));
  return targetModules ?? DEFAULT_TARGETS[config.modelType] ?? USUAL_TARGETS;
}

/**
 * The layers that get an adapter, in the order of a forward pass. A name selects the modules that it is, or that end in
 * "." and it; a single text is a regular expression for whole names, prefix included.
 *
 * @throws ConfigError naming the target and the modules that there are
 */
export function selectModules(config: ModelConfig, targetModules: LoraOptions["targetModules"]): LinearModule[] {
  const prefix = modulePrefix(config);
  const modules = linearModules(config);
  const targets = targetNames(config, targetModules);
  const known = () => `this model has ${lastNames(modules).join(", ")}`;
  if (typeof targets === "string") {
    const names = modules.map(({ name }) => `${prefix}${name}`);
    const found = textsMatching(`^(?:${targets})$`, names, `lora_target_modules ${shown(targets)}`, {
      advice: `; ${known()}`,
    });
    const selected = modules.filter(({ name }) => found.includes(`${prefix}${name}`));
    if (selected.length > 0) return selected;
    throw new ConfigError(`lora_target_modules ${JSON.stringify(targets)} matches no linear layer; ${known()}.`);
  }
  if (targets.length === 0) throw new ConfigError(`lora_target_modules is an empty list; ${known()}.`);
  const matches = (name: string, target: string) => name === target || name.endsWith(`.${target}`);
  for (const target of targets) {
    if (!modules.some(({ name }) => matches(`${prefix}${name}`, target))) {
      throw new ConfigError(
        `lora_target_modules names "${target}", which is no linear layer of the decoder; ${known()}.`,
      );
    }
  }
  return modules.filter(({ name }) => targets.some((target) => matches(`${prefix}${name}`, target)));
}

function lastNames(modules: readonly LinearModule[]): string[] {
  return [...new Set(modules.map(({ name }) => name.slice(name.lastIndexOf(".") + 1)))].sort();
}

/** alpha / r, or alpha / sqrt(r). */
export function loraScale({ alpha, rank, rslora }: LoraOptions): number {
  return alpha / (rslora ? Math.sqrt(rank) : rank);
}

/** A and B of each module. */
export function adapterSpecs(modules: readonly LinearModule[], rank: number): ParameterSpec[] {
  const spec = (name: string, shape: readonly number[]): ParameterSpec => {
    return { name, shape, decay: true, parts: [{ name: `${name}.weight`, shape }] };
  };
  return modules.flatMap(({ name, inputs, outputs }) => [
    spec(`${name}.lora_A`, [rank, inputs]),
    spec(`${name}.lora_B`, [outputs, rank]),
  ]);
}

/** Scratch of an adapter's passes, for as many rows as the pass has. */
export interface LoraScratch {
  /** [T, r] at least: the inner result, and its gradient. */
  readonly inner: Tensor;
  readonly dInner: Tensor;
  /** [T, widest input] where there is dropout. */
  readonly dropped: Tensor | undefined;
}

/** A trained adapter over a model: A and B of every target, f32, in one arena. */
export class LoraAdapter {
  readonly device: Device;
  readonly options: LoraOptions;
  /** Targets in the order of a forward pass. */
  readonly modules: readonly LinearModule[];
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
   * An adapter of zeros; `initialize` makes it a new one.
   *
   * @param folder that it will be filled from
   * @throws ConfigError for targets that the model does not have and options out of range
   */
  static create(device: Device, config: ModelConfig, options: LoraOptions, folder?: string): LoraAdapter {
    checkOptions(options);
    const modules = selectModules(config, options.targetModules);
    const specs = adapterSpecs(modules, options.rank);
    const layout = new ParameterLayout(specs, { maxBufferBytes: device.limits.maxBufferSize });
    const weights = new Arena(device, layout, "adapter", "adapter");
    return new LoraAdapter({ device, options, modules, weights, folder }, undefined);
  }

  /** A copy of the adapter as it is now, without dropout, in memory of its own: the reference of a run that goes on with it. */
  frozenCopy(): LoraAdapter {
    const weights = new Arena(this.device, this.weights.layout, "reference weights", "reference adapter");
    weights.copyFrom(this.weights);
    const { device, options, modules, folder } = this;
    return new LoraAdapter({ device, options, modules, weights, folder }, undefined);
  }

  /** Whether the model with this adapter is the model without it: every B is zero, as `initialize` leaves it. */
  async addsNothing(): Promise<boolean> {
    for (const { name } of this.modules) {
      const values = await this.device.download(this.weights.window(`${name}.lora_B`));
      if (values.some((value) => value !== 0)) return false;
    }
    return true;
  }

  /** What is multiplied with the adapter's result. */
  get scale(): number {
    return loraScale(this.options);
  }

  /** PEFT's start: A uniform within 1 / sqrt(in) (Kaiming with a = sqrt 5), B zero. */
  initialize(seed: number): void {
    for (const [index, { name, inputs }] of this.modules.entries()) {
      const random = new Random(seed, INITIALIZATION_STREAM + index);
      const bound = 1 / Math.sqrt(inputs);
      const values = Float32Array.from({ length: this.options.rank * inputs }, () => (2 * random.float() - 1) * bound);
      this.device.upload(this.weights.window(`${name}.lora_A`), values);
    }
  }

  /** This adapter with dropout, whose random numbers follow from `state`. */
  training(state: Tensor): LoraAdapter {
    return this.options.dropout > 0 ? new LoraAdapter(this, state) : this;
  }

  /** Widest input of a target. */
  get widestInput(): number {
    return Math.max(...this.modules.map(({ inputs }) => inputs));
  }

  /** Records y += the adapter's part of the linear layers of `parameter`. x [T, in], y [T, width]. */
  recordForward(program: Program, parameter: string, x: Tensor, y: Tensor, scratch: LoraScratch): void {
    const [rows = 0] = x.shape;
    for (const [index, module] of this.modules.entries()) {
      if (module.parameter !== parameter) continue;
      const inner = this.#recordInner(program, index, x, scratch);
      const b = this.weights.window(`${module.name}.lora_B`);
      recordMatmul(program, "NT", inner, b, reshape(y, [rows, y.shape[1] ?? 0]), {
        accumulate: true,
        outFrom: module.outFrom,
      });
    }
  }

  /** Records the gradients of A and B, and dx += the gradient of x through the adapter. dy [T, width], x, dx [T, in]. */
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
      const { name, outFrom } = module;
      const inner = this.#recordInner(program, index, x, scratch);
      recordMatmul(program, "TN", dy, inner, gradients.window(`${name}.lora_B`), { accumulate: true, aFrom: outFrom });
      const dInner = reshape(scratch.dInner, [rows, this.options.rank]);
      const a = this.weights.window(`${name}.lora_A`);
      recordMatmul(program, "NN", dy, this.weights.window(`${name}.lora_B`), dInner, {
        aFrom: outFrom,
        scale: this.scale,
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
  #recordInner(program: Program, index: number, x: Tensor, scratch: LoraScratch): Tensor {
    const [rows = 0] = x.shape;
    const name = this.modules[index]?.name ?? "";
    const inner = reshape(scratch.inner, [rows, this.options.rank]);
    let input = x;
    if (this.#dropoutState !== undefined && scratch.dropped !== undefined) {
      input = reshape(scratch.dropped, x.shape);
      program.dispatch(dropout, { x, state: this.#dropoutState, y: input, ...this.#dropoutValues(index) });
    }
    recordMatmul(program, "NT", input, this.weights.window(`${name}.lora_A`), inner, { scale: this.scale });
    return inner;
  }

  #dropoutValues(stream: number): { stream: number; threshold: number; keptScale: number } {
    const { dropout: share } = this.options;
    return { stream, threshold: Math.round(share * 2 ** 32), keptScale: 1 / (1 - share) };
  }

  /** Trained parameters. */
  get parameterCount(): number {
    return this.modules.reduce(
      (sum, { inputs, outputs }) => sum + elementCount([this.options.rank, inputs + outputs]),
      0,
    );
  }

  /** Gives the device memory back. */
  free(): void {
    this.weights.free();
  }
}

/** First of the random streams that initial values are drawn from, one a target; far from the sampler's. */
const INITIALIZATION_STREAM = 2 ** 40;

function checkOptions({ rank, alpha, dropout: share }: LoraOptions): void {
  if (!Number.isInteger(rank) || rank < 1)
    throw new ConfigError(`lora_r is ${rank}; it must be a whole number of at least 1.`);
  if (!(alpha > 0 && Number.isFinite(alpha)))
    throw new ConfigError(`lora_alpha is ${alpha}; it must be a number above 0.`);
  if (!(share >= 0 && share < 1))
    throw new ConfigError(`lora_dropout is ${share}; it must be a number from 0 to below 1.`);
}
