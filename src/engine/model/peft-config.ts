/**
 * adapter_config.json as PEFT 0.18.1 writes it: read into the options of an adapter, and written from them. What PEFT
 * can do to a model and we cannot is refused here by its cause. The tensors beside it are read in `peft-tensors.ts`.
 */
import { FileError, ModelFormatError, shown } from "../../errors.ts";
import { isJsonObject, parseJsonObject, readModelText } from "../files/json-file.ts";
import { platform } from "../platform/index.ts";
import type { ModelConfig } from "./config/config.ts";
import { LORA_BIASES, type LoraBias, type LoraOptions, targetNames } from "./lora-modules.ts";

export const ADAPTER_CONFIG = "adapter_config.json";

/** What to do with an adapter that changes more of its base than we can. */
export const MERGE_WITH_PEFT = "merge it into its base with PEFT (merge_and_unload) and give the whole model";

/** What adapter_config.json says, as far as it concerns us. */
export interface AdapterConfig {
  readonly options: LoraOptions;
  /**
   * Where the base model was when the adapter was trained, a folder or a hub id; undefined where the file does not say.
   * A relative path is looked for from the working folder, then from the adapter's.
   */
  readonly baseModel: string | undefined;
}

/** An option of PEFT that changes what an adapter computes and is not implemented. */
interface Unsupported {
  /** The values, beside null, that switch it off. */
  readonly off: readonly unknown[];
  /** What it does, in words. */
  readonly does?: string;
}

const UNSUPPORTED: Readonly<Record<string, Unsupported>> = {
  lora_bias: { off: [false], does: "the adapter's B has a bias" },
  layer_replication: { off: [], does: "layers of the base are repeated" },
  target_parameters: { off: [[]], does: "parameters that belong to no linear layer have adapters" },
  trainable_token_indices: { off: [], does: "rows of the embedding were trained beside the adapter" },
  alora_invocation_tokens: { off: [] },
  arrow_config: { off: [] },
  use_qalora: { off: [false] },
  use_bdlora: { off: [false] },
  kasa_config: { off: [] },
  monteclora_config: { off: [] },
  velora_config: { off: [] },
};

/**
 * Ways to initialise that change the base's weights too, so that the base alone is not what the adapter was made for.
 */
const CHANGES_BASE = /^(pissa|olora|corda|loftq|lora_ga)/i;

/** Is this a folder with an adapter in it? */
export async function isAdapterFolder(folder: string): Promise<boolean> {
  return (await platform.exists(platform.joinPath(folder, ADAPTER_CONFIG))) === "file";
}

/**
 * Reads adapter_config.json.
 *
 * @throws FileError for a folder without one; ModelFormatError naming file and key for what is malformed or not
 * supported
 */
export async function readAdapterConfig(folder: string): Promise<AdapterConfig> {
  const path = platform.joinPath(folder, ADAPTER_CONFIG);
  if (!(await isAdapterFolder(folder))) {
    const isModel = (await platform.exists(platform.joinPath(folder, "config.json"))) === "file";
    throw new FileError(
      isModel
        ? `"${folder}" is a whole model and no adapter: it has config.json and no ${ADAPTER_CONFIG}; name it as the model, and as the adapter a folder that PEFT or kto wrote.`
        : `The adapter folder "${folder}" has no ${ADAPTER_CONFIG}; give a folder that PEFT or kto wrote.`,
    );
  }
  const json = parseJsonObject(await readModelText(path), path);
  /** The value of a key, which must pass the test; an optional key that is missing or null is undefined. */
  const read = <T>(key: string, test: (value: unknown) => value is T, wanted: string): T => {
    if (test(json[key])) return json[key];
    const found = json[key] === undefined ? "missing" : shown(json[key]);
    throw new ModelFormatError(`${path}: "${key}" is ${found}, not ${wanted}.`);
  };
  const optional = <T>(key: string, test: (value: unknown) => value is T, wanted: string): T | undefined =>
    (json[key] ?? null) === null ? undefined : read(key, test, wanted);

  read("peft_type", (value) => value === "LORA", '"LORA", the only kind of adapter that is supported');
  for (const [key, { off, does }] of Object.entries(UNSUPPORTED)) {
    const value = json[key] ?? null;
    if (value === null || off.some((harmless) => shown(harmless) === shown(value))) continue;
    throw new ModelFormatError(
      `${path}: "${key}" is ${shown(value)}, which is not supported${does === undefined ? "" : ` (${does})`}; ${MERGE_WITH_PEFT}.`,
    );
  }
  const start = json.init_lora_weights;
  if (typeof start === "string" && CHANGES_BASE.test(start)) {
    throw new ModelFormatError(
      `${path}: "init_lora_weights" is "${start}", which changed the base model's weights too; convert the adapter to plain LoRA with PEFT first.`,
    );
  }
  const names = "a list of module names or a text";
  const saved = optional("modules_to_save", isNames, names);
  const bias = optional("bias", isBias, LORA_BIASES.map((word) => `"${word}"`).join(" or "));
  const options: LoraOptions = {
    rank: read("r", isCount, "a whole number of at least 1"),
    alpha: read("lora_alpha", isPositive, "a number above 0"),
    dropout: optional("lora_dropout", isShare, "a number from 0 to below 1") ?? 0,
    rslora: optional("use_rslora", isBoolean, "true or false") ?? false,
    dora: optional("use_dora", isBoolean, "true or false") || undefined,
    savedModules: someOf(typeof saved === "string" ? [saved] : saved),
    bias: bias === "none" ? undefined : bias,
    targetModules: read("target_modules", isNames, names),
    excludeModules: someOf(optional("exclude_modules", isNames, names)),
    layersToTransform: someOf(optional("layers_to_transform", isLayers, "the number of a layer or a list of them")),
    layersPattern: someOf(optional("layers_pattern", isNames, "a pattern or a list of them")),
    rankPattern: someOf(optional("rank_pattern", valuesOf(isCount), "ranks of at least 1 by pattern")),
    alphaPattern: someOf(optional("alpha_pattern", valuesOf(isPositive), "numbers above 0 by pattern")),
  };
  const baseModel = json.base_model_name_or_path;
  return {
    options,
    baseModel: typeof baseModel === "string" && baseModel !== "" ? await basePath(baseModel, folder) : undefined,
  };
}

/** PEFT reads an empty list, text or object as none. */
function someOf<T extends number | string | readonly unknown[] | object>(value: T | undefined): T | undefined {
  return typeof value === "number" || (value !== undefined && Object.keys(value).length > 0) ? value : undefined;
}

function isBias(value: unknown): value is LoraBias {
  return LORA_BIASES.some((word) => word === value);
}

function isBoolean(value: unknown): value is boolean {
  return typeof value === "boolean";
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 1;
}

function isPositive(value: unknown): value is number {
  return typeof value === "number" && value > 0;
}

function isShare(value: unknown): value is number {
  return typeof value === "number" && value >= 0 && value < 1;
}

function isNames(value: unknown): value is readonly string[] | string {
  return typeof value === "string" || (Array.isArray(value) && value.every((name) => typeof name === "string"));
}

function isLayers(value: unknown): value is number | readonly number[] {
  return [value].flat().every((layer) => Number.isSafeInteger(layer) && (layer as number) >= 0);
}

function valuesOf(test: (value: unknown) => value is number) {
  return (value: unknown): value is Readonly<Record<string, number>> =>
    isJsonObject(value) && Object.values(value).every(test);
}

async function basePath(baseModel: string, folder: string): Promise<string> {
  const beside = platform.joinPath(folder, baseModel);
  const isBeside = (await platform.exists(baseModel)) === undefined && (await platform.exists(beside)) === "folder";
  return isBeside ? beside : baseModel;
}

/**
 * Targets as PEFT selects the same by them. In a model of text and images a list of names would select layers of the
 * image tower too, which are often named alike: it becomes a pattern for the text model's. With `layers_to_transform` it
 * stays, since PEFT takes that with a list alone.
 */
function writtenTargets(config: ModelConfig, options: LoraOptions): readonly string[] | string {
  const targets = targetNames(config, options.targetModules);
  if (config.wrapper === undefined || typeof targets === "string" || options.layersToTransform !== undefined) {
    return targets;
  }
  const names = targets.map((name) => name.replace(/[^\w]/g, "\\$&"));
  return `.*language_model\\.(?:.*\\.)?(?:${names.join("|")})`;
}

/** The keys that PEFT 0.18.1 writes for a LoRA adapter, in its order. */
export function adapterConfig(
  config: ModelConfig,
  options: LoraOptions,
  baseModel: string,
): Readonly<Record<string, unknown>> {
  return {
    alora_invocation_tokens: null,
    alpha_pattern: options.alphaPattern ?? {},
    arrow_config: null,
    auto_mapping: null,
    base_model_name_or_path: baseModel,
    bias: options.bias ?? "none",
    corda_config: null,
    ensure_weight_tying: false,
    eva_config: null,
    exclude_modules: options.excludeModules ?? null,
    fan_in_fan_out: config.inOutWeights,
    inference_mode: true,
    init_lora_weights: true,
    layer_replication: null,
    layers_pattern: options.layersPattern ?? null,
    layers_to_transform: options.layersToTransform ?? null,
    loftq_config: {},
    lora_alpha: options.alpha,
    lora_bias: false,
    lora_dropout: options.dropout,
    megatron_config: null,
    megatron_core: "megatron.core",
    modules_to_save: options.savedModules ?? null,
    peft_type: "LORA",
    peft_version: "0.18.1",
    qalora_group_size: 16,
    r: options.rank,
    rank_pattern: options.rankPattern ?? {},
    revision: null,
    target_modules: writtenTargets(config, options),
    target_parameters: null,
    task_type: "CAUSAL_LM",
    trainable_token_indices: null,
    use_dora: options.dora ?? false,
    use_qalora: false,
    use_rslora: options.rslora,
  };
}
