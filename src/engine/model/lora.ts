/**
 * LoRA (Hu et al. 2021): beside a frozen linear layer y = x W^T two small trained matrices,
 *
 *   y += scale dropout(x) A^T B^T        A [r, in], B [out, r], scale = alpha / r, or alpha / sqrt(r) (rslora)
 *
 * and their gradients. With B = 0 at the start the model is the base model. Which layers have an adapter is chosen in
 * `lora-modules.ts`, what is computed with it recorded by `lora-passes.ts`; files are read and written in `peft.ts`.
 */
import { ConfigError } from "../../errors.ts";
import { Arena, ParameterLayout, type ParameterPart, type Place } from "../gpu/arena.ts";
import type { Device } from "../gpu/device.ts";
import type { Program } from "../gpu/program.ts";
import { elementCount, type Tensor } from "../gpu/tensor.ts";
import { Random } from "../random.ts";
import { adapterSpecs, basePart, partNames, type SavedParameters, savedParameters, unties } from "./adapter-specs.ts";
import type { ModelConfig } from "./config/config.ts";
import { type BaseWeights, DoraNorms } from "./dora.ts";
import { adaptableModules, checkTargets, type LoraModule, type LoraOptions, selectModules } from "./lora-modules.ts";
import { arenaPieces } from "./weights/weight-transfer.ts";

/** Tensors of a module. */
export interface AdapterTensors {
  readonly a: Tensor;
  readonly b: Tensor;
  readonly magnitude: Tensor | undefined;
}

/** The embedding or the head with its adapter; `index` is its module's, by which dropout draws. */
export interface AdaptedLayer extends AdapterTensors {
  readonly module: LoraModule;
  readonly index: number;
}

/** What an adapter reads of the model that it is for. */
export interface AdaptedBase extends BaseWeights {
  readonly config: ModelConfig;
  readonly weights: Arena;
}

/** What `dropout` takes beside its input and output. */
export interface DropoutDraw {
  readonly state: Tensor;
  readonly stream: number;
  readonly threshold: number;
  readonly keptScale: number;
}

type AdapterPart = "device" | "options" | "modules" | "weights" | "folder" | "norms" | "saved" | "unties";

function partsOf(adapter: LoraAdapter): Pick<LoraAdapter, AdapterPart> {
  const { device, options, modules, weights, folder, norms, saved, unties: own } = adapter;
  return { device, options, modules, weights, folder, norms, saved, unties: own };
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
  /** What is trained whole beside A and B. */
  readonly saved: SavedParameters;
  /** Whether the head, which is the embedding in the base, is one of its own with this adapter. */
  readonly unties: boolean;
  /** u32[2], see `dropout`: set while training with dropout. */
  readonly #dropoutState: Tensor | undefined;
  /** Whether `readBase` was called. */
  #isRead = false;

  private constructor(parts: Pick<LoraAdapter, AdapterPart>, dropoutState: Tensor | undefined) {
    this.device = parts.device;
    this.options = parts.options;
    this.modules = parts.modules;
    this.weights = parts.weights;
    this.folder = parts.folder;
    this.norms = parts.norms;
    this.saved = parts.saved;
    this.unties = parts.unties;
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
    const saved = savedParameters(config, modules, options);
    const specs = adapterSpecs(modules, options, saved);
    const layout = new ParameterLayout(specs, { maxBufferBytes: device.bufferLimit });
    const weights = new Arena(device, layout, "adapter", "adapter");
    const norms = options.dora ? new DoraNorms(device, modules) : undefined;
    const own = { saved, unties: unties(config, modules, saved) };
    return new LoraAdapter({ device, options, modules, weights, folder, norms, ...own }, undefined);
  }

  /**
   * A copy of the adapter as it is now, without dropout, in memory of its own: the reference of a run that goes on with
   * it.
   */
  frozenCopy(): LoraAdapter {
    const weights = new Arena(this.device, this.weights.layout, "reference weights", "reference adapter");
    weights.copyFrom(this.weights);
    const norms = this.norms && new DoraNorms(this.device, this.modules, this.norms);
    const copy = new LoraAdapter({ ...partsOf(this), weights, norms }, undefined);
    copy.#isRead = this.#isRead;
    return copy;
  }

  /**
   * Reads what an adapter takes from its base: with DoRA the lengths of the rows of its weights, as which magnitudes
   * start, and the start of what is trained whole. Needed before such an adapter is put to a model; one that is filled
   * from a folder is filled afterwards.
   */
  async readBase(base: AdaptedBase): Promise<void> {
    this.#isRead = true;
    if (this.device.counts) return;
    await this.norms?.read(base);
    for (const module of this.norms ? this.modules : []) {
      const start = await this.norms?.lengths(module);
      if (start) this.device.upload(this.weights.window(partNames(module).magnitude), start);
    }
    const stored = new Map([...base.weights.layout.parts()].map((part) => [part.name, part]));
    for (const part of this.weights.layout.parts()) {
      const from = stored.get(basePart(base.config, part.name));
      if (from === undefined) continue;
      let offset = part.offset;
      for await (const values of arenaPieces(base.weights, from)) {
        this.device.upload(this.weights.at({ segment: part.segment, offset }, [values.length]), values);
        offset += values.length;
      }
      await this.device.idle();
    }
  }

  /** The parameter of the base's name where it is trained whole, or undefined. */
  savedWindow(name: string): Tensor | undefined {
    return this.saved.specs.some((spec) => spec.name === name) ? this.weights.window(name) : undefined;
  }

  /** The tensors that a file of the adapter holds, with their places. */
  *parts(): Generator<ParameterPart & Place> {
    const base = new Set(this.saved.specs.flatMap(({ parts }) => parts.map(({ name }) => name)));
    for (const part of this.weights.layout.parts()) {
      if (!base.has(part.name) || this.saved.parts.has(part.name)) yield part;
    }
  }

  /** Records that what lies in one parameter with a trained bias or norm, and is not trained, has no gradient. */
  recordFrozenParts(program: Program, gradients: Arena): void {
    const trained = new Set([...this.parts()].map(({ name }) => name));
    for (const part of gradients.layout.parts()) {
      if (!trained.has(part.name)) program.clear(gradients.at(part, part.shape));
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
    if (!this.#isRead && !device.counts && (this.norms || this.saved.specs.length > 0)) {
      throw new ConfigError(
        "The adapter trains magnitudes (DoRA) or parameters that start as the base model's: call readBase with that model first.",
      );
    }
    const layers = new Map(adaptableModules(config).map((layer) => [layer.name, layer]));
    for (const { name, inputs, outputs } of this.modules) {
      const layer = layers.get(name);
      if (layer?.inputs === inputs && layer.outputs === outputs) continue;
      const found = layer === undefined ? "has no such layer" : `has one of ${layer.outputs} x ${layer.inputs} there`;
      throw new ConfigError(
        `The adapter is for another model than ${folder}: it has a module for "${name}" of ${outputs} x ${inputs}, and the model ${found}; make or load an adapter for this model.`,
      );
    }
  }

  /**
   * Whether the model with this adapter is the model without it: every B is zero (A of the embedding), as `initialize`
   * leaves it and the first update does not.
   */
  async addsNothing(): Promise<boolean> {
    for (const module of this.modules) {
      const { a, b } = partNames(module);
      const values = await this.device.download(this.weights.window(module.kind === "embedding" ? a : b));
      if (values.some((value) => value !== 0)) return false;
    }
    return true;
  }

  /** PEFT's start: A uniform within 1 / sqrt(in) (Kaiming with a = sqrt 5), B zero; the embedding's A zero, B normal. */
  initialize(seed: number): void {
    // A plan would draw numbers that nothing holds.
    if (this.device.counts) return;
    for (const [index, module] of this.modules.entries()) {
      const { kind, inputs, outputs, rank } = module;
      const { a, b } = partNames(module);
      const random = new Random(seed, INITIALIZATION_STREAM + index);
      if (kind === "embedding") {
        const values = Float32Array.from({ length: outputs * rank }, () => random.normal());
        this.device.upload(this.weights.window(b), values);
        continue;
      }
      const bound = 1 / Math.sqrt(inputs);
      const values = Float32Array.from({ length: rank * inputs }, () => (2 * random.float() - 1) * bound);
      this.device.upload(this.weights.window(a), values);
    }
  }

  /** This adapter with dropout, whose random numbers follow from `state`. */
  training(state: Tensor): LoraAdapter {
    if (this.options.dropout === 0) return this;
    const training = new LoraAdapter(this, state);
    training.#isRead = this.#isRead;
    return training;
  }

  /** Columns of the widest input of a linear layer of the blocks' MLPs, or of the others. */
  widestInput(of: "mlp" | "other"): number {
    return Math.max(1, ...this.#modulesOf(of).map(({ kind, inputs }) => (kind === "linear" ? inputs : 1)));
  }

  get highestRank(): number {
    return Math.max(...this.modules.map(({ rank }) => rank));
  }

  /**
   * Columns of the widest result of the blocks' MLPs, or elsewhere, that a module is a part of; the head's is computed in
   * windows.
   */
  widestResult(of: "mlp" | "other"): number {
    return Math.max(1, ...this.#modulesOf(of).map(({ kind, width }) => (kind === "head" ? 1 : width)));
  }

  #modulesOf(of: "mlp" | "other"): LoraModule[] {
    return this.modules.filter(({ parameter }) => isOfMlp(parameter) === (of === "mlp"));
  }

  /** Columns of the widest layer. */
  get widestLayer(): number {
    return Math.max(...this.modules.map(({ width }) => width));
  }

  /** The embedding's or the head's module and tensors, where it has an adapter. */
  special(kind: "embedding" | "head"): AdaptedLayer | undefined {
    const index = this.modules.findIndex((module) => module.kind === kind);
    const module = this.modules[index];
    return module && { module, index, ...this.partsOf(module) };
  }

  /**
   * DoRA's gains of the result of a parameter where the base's part of it has them too, and gets bias and residual
   * behind them; undefined for a result that they do not concern.
   */
  late(parameter: string): DoraNorms | undefined {
    const concerns = this.modules.some((module) => module.kind === "linear" && module.parameter === parameter);
    return this.#dropoutState === undefined && concerns ? this.norms : undefined;
  }

  /** A and B of a module in an arena of this adapter's layout (its weights, gradients), and its magnitude with DoRA. */
  partsOf(module: LoraModule, arena: Arena = this.weights): AdapterTensors {
    const { a, b, magnitude } = partNames(module);
    const own = this.norms ? arena.window(magnitude) : undefined;
    return { a: arena.window(a), b: arena.window(b), magnitude: own };
  }

  /** What dropout of a module draws by; undefined without dropout. */
  dropoutOf(index: number): DropoutDraw | undefined {
    if (this.#dropoutState === undefined) return undefined;
    const { dropout: share } = this.options;
    const values = { stream: index, threshold: Math.round(share * 2 ** 32), keptScale: 1 / (1 - share) };
    return { state: this.#dropoutState, ...values };
  }

  /** Trained parameters. */
  get parameterCount(): number {
    return [...this.parts()].reduce((sum, { shape }) => sum + elementCount(shape), 0);
  }

  /** Gives the device memory back. */
  free(): void {
    this.weights.free();
    this.norms?.free();
  }
}

/** Whether a parameter belongs to a layer's MLP, which may be walked in slices of rows. */
const isOfMlp = (parameter: string) => /\.(up|down)\.weight$/.test(parameter);

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
