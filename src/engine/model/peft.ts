/**
 * LoRA adapters as PEFT keeps them: a folder with adapter_config.json and adapter_model.safetensors. Read, written and
 * merged into a base model. What an adapter computes stands in `model/lora.ts`.
 */
import { errorMessage, FileError, ModelFormatError, shown } from "../../errors.ts";
import type { StoredFormat } from "../../kernels/kernel.ts";
import { parseJsonObject, readModelText } from "../files/json-file.ts";
import { openSafetensors, type SafetensorsFile, writeSafetensors } from "../files/safetensors.ts";
import { firstNotFinite } from "../number-formats.ts";
import { platform } from "../platform/index.ts";
import type { ModelConfig } from "./config/config.ts";
import { readModelConfig, textFolder, writeCompanions, writeTokenizerFiles } from "./config/folder.ts";
import {
  adapterSpecs,
  type LinearModule,
  LoraAdapter,
  type LoraOptions,
  loraScale,
  selectModules,
  targetNames,
} from "./lora.ts";
import type { Model } from "./model.ts";
import { checkTensors } from "./weights/check-tensors.ts";
import { type CheckpointFiles, openCheckpoint, writeCheckpoint } from "./weights/checkpoint-files.ts";
import { modulePrefix, parameterSpecs } from "./weights/parameters.ts";
import { arenaPieces, checkpointPieces, finitePieces } from "./weights/weight-transfer.ts";

export const ADAPTER_CONFIG = "adapter_config.json";
export const ADAPTER_WEIGHTS = "adapter_model.safetensors";

/** What adapter_config.json says, as far as it concerns us. */
export interface AdapterConfig {
  readonly options: LoraOptions;
  /**
   * Where the base model was when the adapter was trained, a folder or a hub id; undefined where the file does not say. A
   * relative path is looked for from the working folder, then from the adapter's.
   */
  readonly baseModel: string | undefined;
}

/** Options of PEFT that change what an adapter computes and are not implemented, with the values that switch them off. */
const UNSUPPORTED: Readonly<Record<string, readonly unknown[]>> = {
  bias: ["none"],
  use_dora: [false],
  lora_bias: [false],
  modules_to_save: [[]],
  rank_pattern: [{}],
  alpha_pattern: [{}],
  layers_to_transform: [],
  layers_pattern: [[]],
  exclude_modules: [[]],
  layer_replication: [],
  target_parameters: [[]],
  trainable_token_indices: [],
  alora_invocation_tokens: [],
  arrow_config: [],
  use_qalora: [false],
  use_bdlora: [false],
  kasa_config: [],
  monteclora_config: [],
  velora_config: [],
};

/** Ways to initialise that change the base's weights too, so that the base alone is not what the adapter was made for. */
const CHANGES_BASE = /^(pissa|olora|corda|loftq|lora_ga)/i;

/** Is this a folder with an adapter in it? */
export async function isAdapterFolder(folder: string): Promise<boolean> {
  return (await platform.exists(platform.joinPath(folder, ADAPTER_CONFIG))) === "file";
}

/**
 * Reads adapter_config.json.
 *
 * @throws FileError for a folder without one; ModelFormatError naming file and key for what is malformed or not supported
 */
export async function readAdapterConfig(folder: string): Promise<AdapterConfig> {
  const path = platform.joinPath(folder, ADAPTER_CONFIG);
  if ((await platform.exists(path)) !== "file") {
    throw new FileError(
      `The adapter folder "${folder}" has no ${ADAPTER_CONFIG}; give a folder that PEFT or kto wrote.`,
    );
  }
  const json = parseJsonObject(await readModelText(path), path);
  const bad = (key: string, wanted: string) =>
    new ModelFormatError(
      `${path}: "${key}" is ${json[key] === undefined ? "missing" : shown(json[key])}, not ${wanted}.`,
    );
  if (json.peft_type !== "LORA") throw bad("peft_type", '"LORA", the only kind of adapter that is supported');
  for (const [key, off] of Object.entries(UNSUPPORTED)) {
    const value = json[key] ?? null;
    if (value === null || off.some((harmless) => shown(harmless) === shown(value))) continue;
    throw new ModelFormatError(`${path}: "${key}" is ${shown(value)}, which is not supported.`);
  }
  const start = json.init_lora_weights;
  if (typeof start === "string" && CHANGES_BASE.test(start)) {
    throw new ModelFormatError(
      `${path}: "init_lora_weights" is "${start}", which changed the base model's weights too; convert the adapter to plain LoRA with PEFT first.`,
    );
  }
  const { r, lora_alpha: alpha, lora_dropout: dropout = 0, use_rslora: rslora = false, target_modules: targets } = json;
  if (!(Number.isSafeInteger(r) && (r as number) >= 1)) throw bad("r", "a whole number of at least 1");
  if (!(typeof alpha === "number" && alpha > 0)) throw bad("lora_alpha", "a number above 0");
  if (!(typeof dropout === "number" && dropout >= 0 && dropout < 1))
    throw bad("lora_dropout", "a number from 0 to below 1");
  if (typeof rslora !== "boolean") throw bad("use_rslora", "true or false");
  const isNames = Array.isArray(targets) && targets.every((name) => typeof name === "string");
  if (!isNames && typeof targets !== "string") throw bad("target_modules", "a list of module names or a text");
  const baseModel = json.base_model_name_or_path;
  return {
    options: {
      rank: r as number,
      alpha,
      dropout,
      rslora,
      targetModules: targets as readonly string[] | string,
    },
    baseModel: typeof baseModel === "string" && baseModel !== "" ? await basePath(baseModel, folder) : undefined,
  };
}

async function basePath(baseModel: string, folder: string): Promise<string> {
  const beside = platform.joinPath(folder, baseModel);
  const isBeside = (await platform.exists(baseModel)) === undefined && (await platform.exists(beside)) === "folder";
  return isBeside ? beside : baseModel;
}

/** The name under which a file holds a parameter that is trained: in a model's own folder, or PEFT's of an adapter. */
export function trainedName(model: Model, part: string): string {
  return model.adapter ? peftName(model.config, part) : model.checkpointName(part);
}

/** The name that PEFT gives a tensor of ours, e.g. "layers.0.self_attn.q_proj.lora_A.weight". */
function peftName(config: ModelConfig, part: string): string {
  return `base_model.model.${modulePrefix(config)}${part}`;
}

/**
 * Loads an adapter onto the device of its base model, whose layers must be those that it was made for. The adapter is its
 * caller's to free; `model.withAdapter` puts it to use.
 *
 * @throws ModelFormatError naming the file and the tensor that is missing, left over or of another shape
 */
export async function loadAdapter(model: Model, folder: string): Promise<LoraAdapter> {
  const { options } = await readAdapterConfig(folder);
  const file = await openAdapter(folder, model.config, options);
  try {
    const adapter = LoraAdapter.create(model.device, model.config, options, folder);
    try {
      for (const part of adapter.weights.layout.parts()) {
        model.device.upload(adapter.weights.at(part, part.shape), await readValues(file, model.config, part.name));
      }
      return adapter;
    } catch (error) {
      adapter.free();
      throw error;
    }
  } finally {
    await file.close();
  }
}

/** Opens an adapter's weights and checks that they are those of its configuration over this model. */
async function openAdapter(folder: string, config: ModelConfig, options: LoraOptions): Promise<SafetensorsFile> {
  const path = platform.joinPath(folder, ADAPTER_WEIGHTS);
  if ((await platform.exists(path)) !== "file") {
    throw new ModelFormatError(`The adapter folder "${folder}" has no ${ADAPTER_WEIGHTS}.`);
  }
  const modules = modulesOf(folder, config, options);
  const file = await openSafetensors(path);
  try {
    const wanted = new Map(
      adapterSpecs(modules, options.rank).flatMap(({ parts }) =>
        parts.map(({ name, shape }) => [peftName(config, name), shape] as const),
      ),
    );
    for (const [name, shape] of wanted) {
      const found = file.tensors.get(name);
      if (found?.shape.join() === shape.join()) continue;
      throw new ModelFormatError(
        `${path}: tensor "${name}" ${found ? `has shape [${found.shape.join(", ")}]` : "is missing"}, but the base model wants it as [${shape.join(", ")}]; the adapter was made for another base.`,
      );
    }
    for (const name of file.tensors.keys()) {
      if (wanted.has(name)) continue;
      throw new ModelFormatError(
        `${path}: tensor "${name}" belongs to no layer of the base model that ${ADAPTER_CONFIG} names; the adapter was made for another base.`,
      );
    }
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** The layers that an adapter is for, with an error that names its folder and not an option. */
function modulesOf(folder: string, config: ModelConfig, options: LoraOptions): LinearModule[] {
  try {
    return selectModules(config, options.targetModules);
  } catch (error) {
    throw new ModelFormatError(
      `${platform.joinPath(folder, ADAPTER_CONFIG)} does not fit the base model: ${errorMessage(error).replace("lora_target_modules", '"target_modules"')}`,
      { cause: error },
    );
  }
}

async function readValues(
  file: SafetensorsFile,
  config: ModelConfig,
  part: string,
): Promise<Float32Array<ArrayBuffer>> {
  const name = peftName(config, part);
  const values = await file.readF32(name);
  const at = firstNotFinite(values);
  if (at < 0) return values;
  throw new ModelFormatError(
    `${file.path}: tensor "${name}" holds ${values[at]} (element ${at}); the file is damaged.`,
  );
}

/**
 * Writes a model's adapter as PEFT does: adapter_config.json with PEFT's keys, adapter_model.safetensors in f32, the
 * tokenizer files of the base beside them.
 *
 * @param baseModel what the configuration names as the base: a hub id, or a folder, which is written as an absolute path
 * so that it is found from anywhere
 * @throws FileError; NumericError for weights that are not finite
 */
export async function saveAdapter(model: Model, folder: string, baseModel: string = model.folder): Promise<void> {
  const { adapter, config } = model;
  if (adapter === undefined) throw new Error("the model has no adapter to save");
  await writeTokenizerFiles(await textFolder(model), folder);
  const tensors = [...adapter.weights.layout.parts()].map((part) => {
    const name = peftName(config, part.name);
    return { name, shape: part.shape, data: () => finitePieces(name, arenaPieces(adapter.weights, part), "f32") };
  });
  await writeSafetensors(platform.joinPath(folder, ADAPTER_WEIGHTS), tensors, { format: "pt" });
  const isLocal = (await platform.exists(baseModel)) === "folder";
  const base = isLocal ? platform.absolutePath(baseModel) : baseModel;
  const text = JSON.stringify(adapterConfig(config, adapter.options, base), null, 2);
  await platform.writeFileAtomic(platform.joinPath(folder, ADAPTER_CONFIG), `${text}\n`);
}

/** The keys that PEFT 0.18.1 writes for a LoRA adapter, in its order. */
function adapterConfig(config: ModelConfig, options: LoraOptions, baseModel: string): Record<string, unknown> {
  const { rank, alpha, dropout, rslora, targetModules } = options;
  const targets = targetNames(config, targetModules);
  return {
    alora_invocation_tokens: null,
    alpha_pattern: {},
    arrow_config: null,
    auto_mapping: null,
    base_model_name_or_path: baseModel,
    bias: "none",
    corda_config: null,
    ensure_weight_tying: false,
    eva_config: null,
    exclude_modules: null,
    fan_in_fan_out: config.inOutWeights,
    inference_mode: true,
    init_lora_weights: true,
    layer_replication: null,
    layers_pattern: null,
    layers_to_transform: null,
    loftq_config: {},
    lora_alpha: alpha,
    lora_bias: false,
    lora_dropout: dropout,
    megatron_config: null,
    megatron_core: "megatron.core",
    modules_to_save: null,
    peft_type: "LORA",
    peft_version: "0.18.1",
    qalora_group_size: 16,
    r: rank,
    rank_pattern: {},
    revision: null,
    target_modules: targets,
    target_parameters: null,
    task_type: "CAUSAL_LM",
    trainable_token_indices: null,
    use_dora: false,
    use_qalora: false,
    use_rslora: rslora,
  };
}

export interface MergeOptions {
  /** Numbers in the files; default: as the base model's files store them, f32 where these differ. */
  readonly dtype?: StoredFormat;
  readonly maxShardBytes?: number;
}

/**
 * Writes base + adapter as a whole model: W + scale B A for the adapter's layers, the other tensors as they are, with the
 * adapter's tokenizer files before the base's. Runs on the host, tensor by tensor; no device is needed.
 *
 * @throws ModelFormatError for a base or adapter that cannot be used or do not fit each other; FileError; NumericError
 */
export async function mergeAdapter(
  baseFolder: string,
  adapterFolder: string,
  outFolder: string,
  { dtype, maxShardBytes }: MergeOptions = {},
): Promise<void> {
  const config = await readModelConfig(baseFolder);
  const { options } = await readAdapterConfig(adapterFolder);
  const base = await openCheckpoint(baseFolder);
  try {
    const { prefix, stored } = checkTensors(config, base);
    const adapter = await openAdapter(adapterFolder, config, options);
    try {
      const modules = new Map(modulesOf(adapterFolder, config, options).map((module) => [module.name, module]));
      const format = dtype ?? stored;
      const tensors = parameterSpecs(config).flatMap(({ parts }) =>
        parts.map(({ name: part, shape }) => {
          const name = part === "lm_head.weight" ? part : `${prefix}${part}`;
          const module = modules.get(part.replace(/\.weight$/, ""));
          const pieces = module
            ? () => mergedWeight(base, name, adapter, config, module, options)
            : () => checkpointPieces(base, name);
          return {
            name,
            shape,
            format,
            data: () => finitePieces(name, pieces(), format, "base and adapter overflow f32 together"),
          };
        }),
      );
      await writeCompanions(baseFolder, outFolder, format);
      // What the adapter was trained with goes before what the base came with.
      await writeTokenizerFiles(adapterFolder, outFolder);
      await writeCheckpoint(outFolder, tensors, maxShardBytes);
    } finally {
      await adapter.close();
    }
  } finally {
    await base.close();
  }
}

/** W + scale B A of one layer; W is [out, in], or [in, out] in GPT-2. Sums in float64. */
async function* mergedWeight(
  base: CheckpointFiles,
  name: string,
  adapter: SafetensorsFile,
  config: ModelConfig,
  { name: module, inputs, outputs }: LinearModule,
  options: LoraOptions,
): AsyncGenerator<Float32Array<ArrayBuffer>> {
  const scale = loraScale(options);
  const a = await readValues(adapter, config, `${module}.lora_A.weight`);
  const b = await readValues(adapter, config, `${module}.lora_B.weight`);
  const delta = new Float64Array(inputs);
  const weight = new Float32Array(inputs * outputs);
  let filled = 0;
  for await (const piece of checkpointPieces(base, name)) {
    weight.set(piece, filled);
    filled += piece.length;
  }
  const [rowStride, columnStride] = config.inOutWeights ? [1, outputs] : [inputs, 1];
  for (let row = 0; row < outputs; row++) {
    delta.fill(0);
    for (let r = 0; r < options.rank; r++) {
      const factor = scale * (b[row * options.rank + r] ?? 0);
      for (let i = 0; i < inputs; i++) delta[i] = (delta[i] as number) + factor * (a[r * inputs + i] as number);
    }
    for (let i = 0; i < inputs; i++) {
      const at = row * rowStride + i * columnStride;
      weight[at] = (weight[at] as number) + (delta[i] as number);
    }
  }
  yield weight;
}
