/**
 * A model on the device: its configuration, its weights in one arena, the folder that it came from. Reads and writes
 * Hugging Face folders (config.json, model.safetensors in f32, tokenizer files carried along).
 */
import { FileError, ModelFormatError, NumericError } from "../../errors.ts";
import { ropeTable } from "../../kernels/rope.ts";
import type { Device, MemoryCategory } from "../device.ts";
import { platform } from "../platform/index.ts";
import { openSafetensors, type SafetensorsFile, writeSafetensors } from "../safetensors.ts";
import { elementCount, type Tensor } from "../tensor.ts";
import { type ModelConfig, parseEndTokens, parseModelConfig } from "./config.ts";
import { checkpointNaming, ParameterLayout } from "./parameters.ts";

/** Files of a model folder that are copied unchanged beside the trained weights. */
const COMPANIONS = [
  "config.json",
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "vocab.json",
  "merges.txt",
  "tokenizer.model",
  "chat_template.jinja",
];

const WEIGHTS_FILE = "model.safetensors";

export interface LoadOptions {
  /** Memory category that the weights are counted under; "weights" by default. */
  readonly category?: MemoryCategory;
}

/**
 * A model on a device: configuration and f32 weights. `load` throws ModelFormatError for a folder that is no supported
 * model; `free` gives the memory back.
 */
export class Model {
  readonly device: Device;
  readonly config: ModelConfig;
  readonly layout: ParameterLayout;
  /** All parameters, f32[layout.size]. */
  readonly weights: Tensor;
  readonly folder: string;
  /** Prefix of the decoder's tensors in the checkpoint, kept when writing. */
  readonly prefix: string;
  #ropeTable: Tensor | undefined;

  private constructor(device: Device, config: ModelConfig, folder: string, prefix: string, category: MemoryCategory) {
    this.device = device;
    this.config = config;
    this.folder = folder;
    this.prefix = prefix;
    this.layout = new ParameterLayout(config);
    this.weights = device.allocate(category, category, [this.layout.size]);
  }

  /**
   * Loads a Hugging Face folder. Throws ModelFormatError naming file and tensor for anything missing, left over,
   * mis-shaped or of an unsupported dtype, before anything is put on the device, and for weights that are not finite.
   */
  static async load(device: Device, folder: string, options: LoadOptions = {}): Promise<Model> {
    const config = await readModelConfig(folder);
    const file = await openWeights(folder);
    try {
      const { prefix } = checkTensors(config, file);
      const model = new Model(device, config, folder, prefix, options.category ?? "weights");
      try {
        for (const part of model.layout.parts()) {
          const name = model.checkpointName(part.name);
          const data = await file.readF32(name);
          checkFinite(file.path, name, data);
          model.#upload(part.offset, part.shape, data);
        }
      } catch (error) {
        model.free();
        throw error;
      }
      return model;
    } finally {
      await file.close();
    }
  }

  /** A second copy of another model's present weights on the same device, e.g. as a frozen reference. */
  static copyOf(source: Model, category: MemoryCategory): Model {
    const copy = new Model(source.device, source.config, source.folder, source.prefix, category);
    const encoder = source.device.gpu.createCommandEncoder();
    encoder.copyBufferToBuffer(source.weights.buffer, 0, copy.weights.buffer, 0, 4 * source.layout.size);
    source.device.submit(encoder.finish(), 0);
    return copy;
  }

  checkpointName(part: string): string {
    return part === "lm_head.weight" ? part : `${this.prefix}${part}`;
  }

  /** The window of a parameter in the weights. */
  parameter(name: string): Tensor {
    return this.layout.window(this.weights, name);
  }

  /** The head's matrix [V, C]: the embedding's where they are tied. */
  get headName(): string {
    return this.config.tiedHead ? "embedding" : "head";
  }

  /** The table of rotary angles, [contextLength, D/2, 2]; made at first use. */
  ropeTable(): Tensor {
    const { contextLength, headSize, ropeTheta } = this.config;
    if (this.#ropeTable === undefined) {
      this.#ropeTable = this.device.allocate("scratch", "rotary angles", [contextLength, headSize / 2, 2]);
      this.device.upload(this.#ropeTable, ropeTable(contextLength, headSize, ropeTheta));
    }
    return this.#ropeTable;
  }

  #upload(offset: number, shape: readonly number[], data: Float32Array<ArrayBuffer>): void {
    this.device.upload({ ...this.weights, offset: 4 * offset, shape }, data);
  }

  /** Tensors of an arena of this model's layout (weights, gradients) under their Hugging Face names. */
  async readTensors(arena: Tensor): Promise<{ name: string; shape: readonly number[]; data: Float32Array }[]> {
    const all = await this.device.download({ ...arena, shape: [this.layout.size] });
    return [...this.layout.parts()].map(({ name, shape, offset }) => ({
      name: this.checkpointName(name),
      shape,
      data: all.subarray(offset, offset + elementCount(shape)),
    }));
  }

  /**
   * Writes a Hugging Face folder: weights in f32 under the names they came with, config and tokenizer beside them.
   * Makes the folder if need be and overwrites files of these names, each of them as a whole or not at all. Tensors are
   * read one by one while the file is written, so nothing may change the weights meanwhile.
   *
   * @throws FileError for what cannot be read or written; NumericError for weights that are not finite, before anything
   * of that file is in place; DeviceLostError
   */
  async save(folder: string): Promise<void> {
    await platform.makeFolder(folder);
    for (const name of COMPANIONS) {
      const from = platform.joinPath(this.folder, name);
      if ((await platform.exists(from)) !== "file") continue;
      await copyFile(from, platform.joinPath(folder, name));
    }
    const tensors = [...this.layout.parts()].map(({ name, shape, offset }) => ({
      name: this.checkpointName(name),
      shape,
      data: async () => {
        const data = await this.device.download({ ...this.weights, offset: 4 * offset, shape });
        const at = firstNotFinite(data);
        if (at < 0) return data;
        throw new NumericError(
          `The model cannot be saved: its "${this.checkpointName(name)}" holds ${data[at]}, so the training diverged; lower learning_rate.`,
        );
      },
    }));
    await writeSafetensors(platform.joinPath(folder, WEIGHTS_FILE), tensors, { format: "pt" });
  }

  /** Gives the device memory back. */
  free(): void {
    this.device.free(this.weights);
    if (this.#ropeTable) this.device.free(this.#ropeTable);
  }
}

/** Byte by byte: a tokenizer.model is no text. */
async function copyFile(from: string, to: string): Promise<void> {
  const file = await platform.openFile(from);
  try {
    await platform.writeFileAtomic(to, [await file.read(0, file.size)]);
  } finally {
    await file.close();
  }
}

/**
 * Reads a model folder's `config.json`, and its end tokens from `generation_config.json` where that has them, as Hugging
 * Face does. Throws FileError for a missing folder, ModelFormatError for a missing config.json and for a malformed file.
 */
export async function readModelConfig(folder: string): Promise<ModelConfig> {
  const found = await platform.exists(folder);
  if (found !== "folder") {
    throw new FileError(
      `The model folder "${folder}" ${found === "file" ? "is a file" : "does not exist"}; give a local Hugging Face folder with config.json and model.safetensors.`,
    );
  }
  const file = platform.joinPath(folder, "config.json");
  if ((await platform.exists(file)) !== "file") {
    throw new ModelFormatError(`The model folder "${folder}" has no config.json.`);
  }
  const config = parseModelConfig(await platform.readText(file), file);
  const generationFile = platform.joinPath(folder, "generation_config.json");
  if ((await platform.exists(generationFile)) !== "file") return config;
  const eosTokenIds = parseEndTokens(await platform.readText(generationFile), generationFile);
  return eosTokenIds === undefined ? config : { ...config, eosTokenIds };
}

async function openWeights(folder: string): Promise<SafetensorsFile> {
  const path = platform.joinPath(folder, WEIGHTS_FILE);
  if ((await platform.exists(path)) === "file") return openSafetensors(path);
  const names = await platform.list(folder);
  const hint = names.includes("model.safetensors.index.json")
    ? "it is sharded, which is not supported yet; save it as one file"
    : names.some((name) => name.endsWith(".bin") || name.endsWith(".pt"))
      ? "it holds PyTorch files; save it as safetensors"
      : "there are no weights to load";
  throw new ModelFormatError(`The model folder "${folder}" has no ${WEIGHTS_FILE}: ${hint}.`);
}

/** Every parameter must be there in its shape and dtype, and nothing else may be. */
function checkTensors(config: ModelConfig, file: SafetensorsFile): { prefix: string } {
  const { prefix, fullName, ignorable } = checkpointNaming(config, file.tensors.keys());
  if (config.layers > file.tensors.size) {
    throw new ModelFormatError(
      `${file.path} holds ${file.tensors.size} tensors, too few for the ${config.layers} layers of config.json.`,
    );
  }
  const wanted = new Set<string>();
  for (const part of new ParameterLayout(config).parts()) {
    const name = fullName(part.name);
    wanted.add(name);
    const found = file.tensors.get(name);
    if (found === undefined) {
      throw new ModelFormatError(`${file.path}: tensor "${name}" [${part.shape.join(", ")}] is missing.`);
    }
    if (found.shape.length !== part.shape.length || found.shape.some((size, axis) => size !== part.shape[axis])) {
      throw new ModelFormatError(
        `${file.path}: tensor "${name}" has shape [${found.shape.join(", ")}], but config.json makes it [${part.shape.join(", ")}].`,
      );
    }
    if (found.dtype !== "F32") {
      throw new ModelFormatError(
        `${file.path}: tensor "${name}" is stored as ${found.dtype}; only F32 is supported yet, so convert the model to float32.`,
      );
    }
  }
  for (const name of file.tensors.keys()) {
    if (!wanted.has(name) && !ignorable(name)) {
      throw new ModelFormatError(
        `${file.path}: tensor "${name}" does not belong to a ${config.modelType} model of ${config.layers} layers as config.json describes it.`,
      );
    }
  }
  return { prefix };
}

/** One weight that is not a number makes every log-probability one. */
function checkFinite(path: string, name: string, data: Float32Array): void {
  const at = firstNotFinite(data);
  if (at < 0) return;
  throw new ModelFormatError(
    `${path}: tensor "${name}" holds ${data[at]} (element ${at}); the file is damaged, or the training that wrote it diverged.`,
  );
}

/** Place of the first NaN or infinity, or -1. */
function firstNotFinite(data: Float32Array): number {
  let zero = 0;
  for (let i = 0; i < data.length; i++) zero += 0 * (data[i] as number);
  return zero === 0 ? -1 : data.findIndex((value) => !Number.isFinite(value));
}
