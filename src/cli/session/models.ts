/**
 * The models that a command runs, from the options that name them: a model with or without an adapter, its reference, a
 * model to be trained.
 */
import type { Device } from "../../engine/gpu/device.ts";
import { resolveModelFolder } from "../../engine/hub/resolve.ts";
import { LoraAdapter } from "../../engine/model/lora.ts";
import { type LoadOptions, Model } from "../../engine/model/model.ts";
import { loadAdapter } from "../../engine/model/peft.ts";
import { isAdapterFolder, readAdapterConfig } from "../../engine/model/peft-config.ts";
import { type FileSource, platform } from "../../engine/platform/index.ts";
import { hasChatTemplate } from "../../engine/text/chat-template.ts";
import { ConfigError } from "../../errors.ts";
import type { StoredFormat } from "../../kernels/kernel.ts";
import { checkReference } from "../../kto/method/update-options.ts";
import type { KtoConfig } from "../../kto/options/kto.ts";
import { type QuantizationOptions, quantizationOf } from "../../kto/options/quantization.ts";
import type { RunConfig } from "../../kto/options/run.ts";
import { showsFineTuning } from "../../kto/run/state.ts";
import { showingDownloads } from "../terminal/downloads.ts";
import { isSameFile, tellingNoFolder } from "../terminal/files.ts";
import type { Output } from "../terminal/output.ts";
import { working } from "../terminal/work.ts";
import { checkModelFolders } from "./ranks.ts";

/** Which model a command runs. */
type ModelOptions = Pick<RunConfig, "model_name_or_path" | "model_revision" | "adapter_name_or_path"> & LoadingOptions;

/** How a model is loaded. */
type LoadingOptions = Pick<RunConfig, "dtype"> & QuantizationOptions & { readonly files?: FileSource | undefined };

const FORMATS = { float32: "f32", float16: "f16", bfloat16: "bf16" } as const;

/** The stored format that an option names; undefined for "auto". */
export function formatOf(name: ModelOptions["dtype"]): StoredFormat | undefined {
  return name === "auto" ? undefined : FORMATS[name];
}

/** The local folder of a model or adapter, downloaded if need be. */
export async function modelFolder(
  nameOrPath: string,
  output: Output,
  revision = "main",
  weights = true,
): Promise<string> {
  return await tellingNoFolder(nameOrPath, () =>
    showingDownloads(output, (hub) => resolveModelFolder(nameOrPath, { ...hub, revision, weights })),
  );
}

/**
 * The folders of a model and of its adapter. A folder that holds only an adapter means its base model with this
 * adapter. The revision applies to the model alone, since other repositories need not have it. `baseName` is the name
 * or path by which the base was given. Without `weights` only configuration and tokenizer are downloaded.
 */
export async function modelFolders(
  options: Pick<ModelOptions, "model_name_or_path" | "model_revision" | "adapter_name_or_path">,
  output: Output,
  weights = true,
): Promise<{ base: string; baseName: string; adapter: string | undefined }> {
  const base = await modelFolder(options.model_name_or_path, output, options.model_revision, weights);
  const adapterName = options.adapter_name_or_path;
  const adapter = adapterName === undefined ? undefined : await modelFolder(adapterName, output, "main", weights);
  const whole = (await platform.exists(platform.joinPath(base, "config.json"))) === "file";
  if (whole && adapter === undefined && (await isAdapterFolder(base))) {
    throw new ConfigError(
      `The folder "${base}" holds a whole model and an adapter; say which is meant: name the adapter as adapter_name_or_path too, or remove adapter_config.json or config.json.`,
    );
  }
  if (whole || !(await isAdapterFolder(base))) return { base, baseName: options.model_name_or_path, adapter };
  if (adapter !== undefined) {
    if (!(await isAdapterFolder(adapter))) {
      throw new ConfigError(
        `model_name_or_path "${base}" is an adapter and adapter_name_or_path "${adapter}" is none: perhaps the two are swapped.`,
      );
    }
    throw new ConfigError(
      `model_name_or_path "${base}" is an adapter and adapter_name_or_path "${adapter}" another one; name the base model and one adapter.`,
    );
  }
  const { baseModel } = await readAdapterConfig(base);
  if (baseModel === undefined) {
    throw new ConfigError(
      `model_name_or_path "${base}" is an adapter that does not say what its base model is; give the base as model_name_or_path and this folder as adapter_name_or_path.`,
    );
  }
  return { base: await modelFolder(baseModel, output, "main", weights), baseName: baseModel, adapter: base };
}

/**
 * A model that is not trained, as its files store it unless `dtype` says otherwise, with its adapter if there is one.
 */
export async function loadModel(device: Device, options: ModelOptions, output: Output): Promise<Model> {
  const { base, adapter } = await modelFolders(options, output);
  await checkModelFolders({ model_name_or_path: base, adapter_name_or_path: adapter });
  const loading = loadOptions(options, output);
  const model = await loadShown(device, base, loading, output);
  return adapter === undefined ? model : model.withAdapter(await loadAdapter(model, adapter, loading));
}

/** `Model.load`, which may take long, with its progress. */
async function loadShown(device: Device, folder: string, options: LoadOptions, output: Output): Promise<Model> {
  return await working(output, `loading ${folder}`, async (onProgress) => {
    return await Model.load(device, folder, { ...options, onProgress });
  });
}

function loadOptions(options: LoadingOptions, output: Output) {
  return {
    dtype: formatOf(options.dtype) ?? "auto",
    quantization: quantizationOf(options),
    files: options.files,
    onWarning: (sentence: string) => output.warning(sentence),
  } as const;
}

/**
 * A reference of its own: a whole model, or an adapter over its base, which is the policy's where it is the same
 * folder.
 */
async function referenceModel(
  device: Device,
  policy: Model,
  options: LoadingOptions,
  nameOrPath: string,
  output: Output,
): Promise<Model> {
  const { base, adapter } = await modelFolders({ model_name_or_path: nameOrPath, model_revision: "main" }, output);
  await checkModelFolders({ ref_model_name_or_path: base, "adapter of ref_model_name_or_path": adapter });
  const shares = policy.adapter !== undefined && (await isSameFile(base, policy.folder));
  const model = shares
    ? policy.base
    : await loadShown(device, base, { ...loadOptions(options, output), category: "reference weights" }, output);
  checkReference(policy, model);
  return adapter === undefined
    ? model
    : model.withAdapter(await loadAdapter(model, adapter, loadOptions(options, output)));
}

/** The frozen model that the policy is compared with. If both are the same folder, it is read once. */
export async function loadReference(
  device: Device,
  policy: Model,
  options: ModelOptions,
  nameOrPath: string,
  output: Output,
): Promise<Model> {
  if (nameOrPath !== options.model_name_or_path) {
    return await referenceModel(device, policy, options, nameOrPath, output);
  }
  return policy.adapter ? policy.base : Model.copyOf(policy, "reference weights");
}

/**
 * A model to be trained, whole (in f32) or by an adapter; `base` is its folder. `fineTuned` tells whether the
 * model, or the adapter that is trained further, comes from supervised fine-tuning.
 */
export async function loadPolicy(
  device: Device,
  config: RunConfig & LoadingOptions,
  output: Output,
): Promise<{ policy: Model; base: string; baseName: string; fineTuned: boolean }> {
  const { base, baseName, adapter: adapterFolder } = await modelFolders(config, output);
  // Who gives a model a chat template has trained it on chats.
  const fineTuned =
    (await showsFineTuning(base)) ||
    (adapterFolder !== undefined && (await showsFineTuning(adapterFolder))) ||
    (await hasChatTemplate(base));
  await checkModelFolders({ model_name_or_path: base, adapter_name_or_path: adapterFolder });
  const usesAdapter = config.use_peft || adapterFolder !== undefined;
  const loading = loadOptions(config, output);
  const policy = await loadShown(device, base, usesAdapter ? loading : { ...loading, storage: "f32" }, output);
  if (!usesAdapter) return { policy, base, baseName, fineTuned };
  const adapter = await trainedAdapter(policy, adapterFolder, config, output);
  return { policy: policy.withAdapter(adapter), base, baseName, fineTuned };
}

/**
 * A model to be trained and its reference, unless the trainer makes the reference itself. A reference with the same
 * weights as the model keeps the files' number format, which takes less memory. For a plan the weight files may be
 * elsewhere than in the folder (`files`).
 */
export async function loadForTraining(
  device: Device,
  config: KtoConfig & LoadingOptions,
  output: Output,
): Promise<{ policy: Model; reference: Model | undefined; baseName: string; fineTuned: boolean }> {
  const { policy, base, ...names } = await loadPolicy(device, config, output);
  // The cached log-probabilities are the policy's own before training, the uniform reference needs no model.
  const needsCopy = !config.precompute_ref_log_probs && (config.reference === "auto" || config.reference === "copy");
  let reference: Model | undefined;
  if (config.ref_model_name_or_path !== config.model_name_or_path) {
    reference = await referenceModel(device, policy, config, config.ref_model_name_or_path, output);
  } else if (needsCopy && !policy.adapter && policy.numbers !== "f32" && !config.sync_ref_model) {
    // What is to be said of the folder was said when the policy was loaded.
    const loading = loadOptions(config, output);
    const silent = { ...loading, category: "reference weights", onWarning: () => undefined } as const;
    reference = await loadShown(device, base, silent, output);
  }
  return { policy, reference, ...names };
}

/** The adapter that is trained: the one in `folder`, or a new one. */
async function trainedAdapter(
  policy: Model,
  folder: string | undefined,
  config: RunConfig,
  output: Output,
): Promise<LoraAdapter> {
  if (folder !== undefined) {
    const adapter = await loadAdapter(policy, folder, { onWarning: (sentence) => output.warning(sentence) });
    const { rank, alpha, rslora, dora } = adapter.options;
    output.info(
      `going on with the adapter ${folder}: rank ${rank}, alpha ${alpha}${rslora ? ", rslora" : ""}${dora ? ", DoRA" : ""}; lora_ options are its own.`,
    );
    return adapter;
  }
  const targets = targetModules(config.lora_target_modules);
  const adapter = LoraAdapter.create(policy.device, policy.config, {
    rank: config.lora_r,
    alpha: config.lora_alpha,
    dropout: config.lora_dropout,
    rslora: config.use_rslora,
    dora: config.use_dora,
    savedModules: someOf(config.lora_modules_to_save),
    excludeModules: someOf(config.lora_exclude_modules),
    layersToTransform: someOf(config.lora_layers_to_transform),
    layersPattern: someOf(config.lora_layers_pattern),
    rankPattern: config.lora_rank_pattern,
    alphaPattern: config.lora_alpha_pattern,
    bias: config.bias,
    ...(targets === undefined ? {} : { targetModules: targets }),
  });
  adapter.initialize(config.seed);
  await adapter.readBase(policy);
  return adapter;
}

/** Module names, also written as one text "a,b" or "[a, b]"; "all-linear" or a pattern stays one text. */
function targetModules(written: readonly string[]): readonly string[] | string | undefined {
  const [first, ...more] = written;
  if (first === undefined) return undefined;
  const isList = /^\[.*\]$/.test(first);
  if (more.length === 0 && !isList && (first === "all-linear" || /[*+?()|[\]^$\\]/.test(first))) return first;
  const names = written.flatMap((text) => text.replace(/^\[(.*)\]$/, "$1").split(","));
  return names.map((name) => name.trim().replace(/^(["'])(.*)\1$/, "$2"));
}

function someOf<T>(list: readonly T[]): readonly T[] | undefined {
  return list.length > 0 ? list : undefined;
}
