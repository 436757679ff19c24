/**
 * A model on the device: its configuration, its weights in an arena, the folder that it came from. Reads and writes
 * Hugging Face folders (config.json, safetensors in f32, f16 or bf16, tokenizer files carried along).
 */
import { ConfigError, shown } from "../../errors.ts";
import { isQuantized, type QuantizedFormat, type StoredFormat, type WeightFormat } from "../../kernels/kernel.ts";
import { type LayerRope, ropeRegimes, ropeTable } from "../../kernels/rope-table.ts";
import { Arena, ParameterLayout } from "../gpu/arena.ts";
import type { Device, MemoryCategory } from "../gpu/device.ts";
import { byteLength, elementCount, type Tensor } from "../gpu/tensor.ts";
import type { FileSource } from "../platform/index.ts";
import type { ModelConfig } from "./config/config.ts";
import { DTYPE_NAMES, readModelConfig, writeCompanions } from "./config/folder.ts";
import type { LoraAdapter } from "./lora.ts";
import { checkTensors, ignoredHead } from "./weights/check-tensors.ts";
import { parameterSpecs, tensorName, writtenPrefix } from "./weights/parameters.ts";
import { fillQuantized, leftSentence, type Quantization, weightFormats } from "./weights/quantization.ts";
import { openWeights, type WeightFiles, writeWeights } from "./weights/weight-files.ts";
import { arenaPieces, fillTensor, finitePieces } from "./weights/weight-transfer.ts";

export interface LoadOptions {
  /** Memory category that the weights are counted under; "weights" by default. */
  readonly category?: MemoryCategory;
  /**
   * Numbers to load the matrices as; "auto" (default): as the files store them, f32 where these differ. A format that
   * holds less rounds to the nearest. Norms and biases keep the numbers of the files.
   */
  readonly dtype?: StoredFormat | "auto";
  /**
   * How matrices are stored on the device; default: as they are loaded. "f32" keeps master weights that can be trained
   * whole, of the same values.
   */
  readonly storage?: StoredFormat;
  /**
   * How matrices are quantised on the way; default: as the files have them. Files of bitsandbytes in nf4 stay in 4
   * bits. A model whose matrices are quantised can be trained by an adapter only.
   */
  readonly quantization?: Quantization | undefined;
  /** Where the weight files are, for a device that only counts and needs their headers alone; default this machine. */
  readonly files?: FileSource | undefined;
  /** Takes sentences on tensors of the files that are ignored; default console.warn. */
  readonly onWarning?: (sentence: string) => void;
}

export interface SaveOptions {
  /** Numbers of every tensor in the files, norms and biases too; default: as the matrices are stored on the device. */
  readonly dtype?: StoredFormat;
  /** Bytes beyond which weights are split into shards; default 5 GB, as Hugging Face does. */
  readonly maxShardBytes?: number;
}

/** Bytes of uploads after which loading waits for the device. */
const MOST_WAITING = 2 ** 26;

/** Hugging Face's default shard size. */
const SHARD_BYTES = 5e9;

/** What a model is made of; a model and its `withAdapter` and `base` share it. */
interface ModelParts {
  readonly device: Device;
  readonly config: ModelConfig;
  readonly folder: string;
  readonly prefix: string;
  readonly weights: Arena;
  /** What the numbers of the matrices were rounded to when they were loaded. */
  readonly numbers: StoredFormat;
  readonly quantization: Quantization;
  readonly tables: PositionTables;
}

/** What a model is allocated by, beside its configuration. */
type ModelOrigin = Pick<ModelParts, "folder" | "prefix" | "numbers" | "quantization">;

/**
 * A model on a device: configuration and weights, with a LoRA adapter or without. `load` throws ModelFormatError for a
 * folder that is no supported model; `free` gives the memory back.
 */
export class Model {
  readonly device: Device;
  readonly config: ModelConfig;
  /** All parameters but an adapter's. */
  readonly weights: Arena;
  readonly folder: string;
  /** Prefix of the decoder's tensors in the weight files, kept when writing but where the text model leaves a wrapper. */
  readonly prefix: string;
  /** Added to the linear layers' results; trained in place of the weights. */
  readonly adapter: LoraAdapter | undefined;
  /** What the matrices' numbers were loaded as; the weights' own format may hold more. */
  readonly numbers: StoredFormat;
  /** How it was asked to be quantised when it was loaded. */
  readonly quantization: Quantization;
  readonly #parts: ModelParts;

  private constructor(parts: ModelParts, adapter?: LoraAdapter) {
    this.#parts = parts;
    this.device = parts.device;
    this.config = parts.config;
    this.weights = parts.weights;
    this.folder = parts.folder;
    this.prefix = parts.prefix;
    this.numbers = parts.numbers;
    this.quantization = parts.quantization;
    this.adapter = adapter;
  }

  static #allocate(
    device: Device,
    config: ModelConfig,
    origin: ModelOrigin,
    options: {
      readonly format: StoredFormat;
      readonly formats: ReadonlyMap<string, WeightFormat>;
      readonly category: MemoryCategory;
    },
  ): Model {
    const { category, ...formats } = options;
    const layout = new ParameterLayout(parameterSpecs(config), { ...formats, maxBufferBytes: device.bufferLimit });
    const weights = new Arena(device, layout, category, category);
    return new Model({ device, config, ...origin, weights, tables: new PositionTables(device, config) });
  }

  /**
   * Loads a Hugging Face folder. Throws ModelFormatError naming file and tensor for anything missing, left over,
   * mis-shaped or of an unsupported dtype, before anything is put on the device, and for weights that are not finite;
   * ConfigError for an option that is no number format.
   * Tensors are read by pieces: no tensor is wholly on the host.
   */
  static async load(device: Device, folder: string, options: LoadOptions = {}): Promise<Model> {
    checkFormat("dtype", options.dtype === "auto" ? undefined : options.dtype);
    checkFormat("storage", options.storage);
    const config = await readModelConfig(folder);
    const files = await openWeights(folder, options.files);
    try {
      const { prefix, stored } = checkTensors(config, files);
      const dtype = options.dtype === undefined || options.dtype === "auto" ? stored : options.dtype;
      const format = options.storage ?? dtype;
      const { quantization = {} } = options;
      const { formats, left } = weightFormats(config, files, (part) => tensorName(prefix, part), quantization);
      const model = Model.#allocate(
        device,
        config,
        { folder, prefix, numbers: dtype, quantization },
        { format, formats, category: options.category ?? "weights" },
      );
      try {
        if (!device.counts) {
          for (const warning of [await ignoredHead(config, files), leftSentence(left, files.path)]) {
            if (warning !== undefined) (options.onWarning ?? console.warn)(warning);
          }
          await model.#fill(files, dtype);
        }
      } catch (error) {
        model.free();
        throw error;
      }
      return model;
    } finally {
      await files.close();
    }
  }

  /** A second copy of another model's present weights on the same device, e.g. as a frozen reference. */
  static copyOf(source: Model, category: MemoryCategory): Model {
    const { device, config, layout, folder, prefix, numbers, quantization } = source;
    const { format, formats } = layout;
    const origin = { folder, prefix, numbers, quantization };
    const copy = Model.#allocate(device, config, origin, { format, formats, category });
    copy.weights.copyFrom(source.weights);
    return copy;
  }

  /**
   * This model with an adapter beside its linear layers. Both share the weights.
   *
   * @throws ConfigError for an adapter of another device, or of a model with other layers
   */
  withAdapter(adapter: LoraAdapter): Model {
    adapter.checkFits(this);
    return new Model(this.#parts, adapter);
  }

  /** This model without its adapter. Both share the weights. */
  get base(): Model {
    return this.adapter === undefined ? this : new Model(this.#parts);
  }

  get layout(): ParameterLayout {
    return this.weights.layout;
  }

  /** The parameters that training changes: the adapter's where there is one. */
  get trained(): Arena {
    return this.adapter?.weights ?? this.weights;
  }

  /** The formats of those of its matrices that are quantised, which cannot be trained. */
  get quantizedFormats(): readonly QuantizedFormat[] {
    return [...new Set(this.layout.segments.map(({ dtype }) => dtype).filter(isQuantized))];
  }

  /** The name under which a tensor is written: that in the weight files, or of the text model alone. */
  storedName(part: string): string {
    return tensorName(this.config.wrapper === undefined ? this.prefix : writtenPrefix(this.config), part);
  }

  /** The tensor of a parameter: the adapter's where it is trained whole beside it. */
  parameter(name: string): Tensor {
    const own = this.adapter?.savedWindow(name);
    if (own !== undefined) return own;
    return this.weights.window(name === "head" && this.config.tiedHead ? "embedding" : name);
  }

  /**
   * The head's matrix [V, C], under which its gradient stands too: the embedding's where they are tied and trained
   * whole. An adapter trains either of them apart.
   */
  get headName(): string {
    return this.config.tiedHead && this.adapter === undefined ? "embedding" : "head";
  }

  /** The configuration by which the model computes with its adapter: of one whose head is its own where that unties it. */
  get computedConfig(): ModelConfig {
    return this.adapter?.unties ? { ...this.config, tiedHead: false } : this.config;
  }

  /** A table of a layer's rotary angles, [regimes rows, 2, r/2], for at least this many positions of the context. */
  ropeTable(rope: LayerRope, positions: number): Tensor {
    return this.#parts.tables.angles(rope, positions);
  }

  /** The factors of queries by position, [rows], for at least this many positions; undefined where all of them are 1. */
  queryFactors(positions: number): Tensor | undefined {
    return this.#parts.tables.queryFactors(positions);
  }

  /** Makes all tables by position for this many positions, so that a plan counts them. */
  makePositionTables(positions: number): void {
    for (const rope of new Set(this.config.layerRope)) if (rope) this.ropeTable(rope, positions);
    this.queryFactors(positions);
  }

  /** Uploads every parameter, its numbers rounded to `dtype` on the way. */
  async #fill(files: WeightFiles, dtype: StoredFormat): Promise<void> {
    let waiting = 0;
    for (const spec of this.layout.specs) {
      const names = spec.parts.map((part) => tensorName(this.prefix, part.name));
      const rounded = spec.shape.length > 1 ? dtype : "f32";
      const window = this.parameter(spec.name);
      if (isQuantized(window.dtype)) {
        const { double = false } = this.quantization;
        await fillQuantized(this.weights, window, files, names, { dtype, double });
      } else await fillTensor(this.weights, window, files, names, rounded);
      // The queue keeps a copy of what it has not written yet: a slow adapter would pile up the model a second time.
      waiting += byteLength(window);
      if (waiting < MOST_WAITING) continue;
      await this.device.idle();
      waiting = 0;
    }
  }

  /**
   * Tensors of an arena of this model's parameters (weights, gradients) under their Hugging Face names, as f32 values.
   */
  async readTensors(
    arena: Arena,
  ): Promise<{ name: string; shape: readonly number[]; data: Float32Array<ArrayBuffer> }[]> {
    const tensors: { name: string; shape: readonly number[]; data: Float32Array<ArrayBuffer> }[] = [];
    for (const part of arena.layout.parts()) {
      const { name, shape } = part;
      const data = new Float32Array(elementCount(shape));
      let at = 0;
      for await (const piece of arenaPieces(arena, part)) {
        data.set(piece, at);
        at += piece.length;
      }
      tensors.push({ name: this.storedName(name), shape, data });
    }
    return tensors;
  }

  /**
   * Writes a Hugging Face folder: weights under the names they came with, config and tokenizer beside them. Makes the
   * folder if need be and overwrites files of these names, each of them as a whole or not at all. Of a model of text and
   * images it is the text model alone. Tensors are read by
   * pieces while the file is written, so nothing may change the weights meanwhile. An adapter is not part of it.
   *
   * @throws ConfigError for a dtype that is no number format; FileError for what cannot be read or written;
   * NumericError for weights that are not finite, before anything of that file is in place; DeviceLostError
   */
  async save(folder: string, options: SaveOptions = {}): Promise<void> {
    checkFormat("dtype", options.dtype);
    const dtype = options.dtype ?? this.layout.format;
    await writeCompanions(this.folder, folder, dtype);
    const tensors = [...this.layout.parts()].map((part) => {
      const name = this.storedName(part.name);
      return {
        name,
        shape: part.shape,
        format: dtype,
        data: () => finitePieces(name, arenaPieces(this.weights, part), dtype),
      };
    });
    await writeWeights(folder, tensors, options.maxShardBytes ?? SHARD_BYTES);
  }

  /** Gives the device memory of the weights back; an adapter's is its own. */
  free(): void {
    this.weights.free();
    this.#parts.tables.free();
  }
}

/** @throws ConfigError for a format that there is not, such as Hugging Face's name of one */
function checkFormat(option: string, format: StoredFormat | undefined): void {
  if (format === undefined || format in DTYPE_NAMES) return;
  throw new ConfigError(`${option} is ${shown(format)}; it must be ${Object.keys(DTYPE_NAMES).join(" or ")}.`);
}

/** Tables by position, only as long as the positions in use: a context may be a thousand times longer. */
class PositionTables {
  readonly device: Device;
  readonly config: ModelConfig;
  /** By what they are for: each longer than those before it. */
  readonly #tables = new Map<LayerRope | "query factors", { readonly positions: number; readonly table: Tensor }[]>();

  constructor(device: Device, config: ModelConfig) {
    this.device = device;
    this.config = config;
  }

  angles(rope: LayerRope, positions: number): Tensor {
    return this.#get(rope, positions, (rows) => {
      const shape = [ropeRegimes(rope) * rows, 2, rope.rotated / 2];
      const table = this.device.allocate("scratch", "rotary angles", shape);
      this.device.upload(table, ropeTable(rows, rope));
      return table;
    });
  }

  /** Up to the length N of `queryScaling` every factor is 1. */
  queryFactors(positions: number): Tensor | undefined {
    const { queryScaling } = this.config;
    if (queryScaling === undefined || positions <= queryScaling.length) return undefined;
    return this.#get("query factors", positions, (rows) => {
      const table = this.device.allocate("scratch", "query factors", [rows]);
      const { beta, length } = queryScaling;
      const factors = Float32Array.from({ length: rows }, (_, p) => 1 + beta * Math.log(1 + Math.floor(p / length)));
      this.device.upload(table, factors);
      return table;
    });
  }

  /**
   * A table for at least this many positions. Programs keep the table that they were recorded with; a longer one is a
   * power of two long, so that all of them together take less than twice the longest.
   */
  #get(key: LayerRope | "query factors", positions: number, make: (rows: number) => Tensor): Tensor {
    const { contextLength } = this.config;
    const tables = this.#tables.get(key) ?? [];
    this.#tables.set(key, tables);
    const found = tables.find(({ positions: rows }) => rows >= Math.min(positions, contextLength));
    if (found !== undefined) return found.table;
    const rows = Math.min(contextLength, 2 ** Math.ceil(Math.log2(Math.max(positions, 256))));
    const table = make(rows);
    tables.push({ positions: rows, table });
    return table;
  }

  free(): void {
    for (const { table } of [...this.#tables.values()].flat()) this.device.free(table);
  }
}
