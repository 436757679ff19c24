/**
 * adapter_model.safetensors under PEFT's names: A and B of every module that adapter_config.json selects. What lies
 * beside them is either the same as in the base, and then left out, or refused by its cause.
 */
import { errorMessage, KtoError, ModelFormatError } from "../../errors.ts";
import type { ParameterSpec } from "../gpu/arena.ts";
import { openSafetensors, type SafetensorsFile } from "../files/safetensors.ts";
import { firstNotFinite } from "../number-formats.ts";
import { platform } from "../platform/index.ts";
import type { ModelConfig } from "./config/config.ts";
import { adapterSpecs } from "./lora.ts";
import { type LoraModule, type LoraOptions, linearModules, selectModules } from "./lora-modules.ts";
import { ADAPTER_CONFIG, MERGE_WITH_PEFT, readAdapterConfig } from "./peft-config.ts";
import { sameNumbers } from "./weights/check-tensors.ts";
import { currentModuleName, modulePrefix, parameterSpecs, storedNaming } from "./weights/parameters.ts";
import { openWeights } from "./weights/weight-files.ts";

export const ADAPTER_WEIGHTS = "adapter_model.safetensors";

/** Before the names of the base's class. */
const PEFT_PREFIX = "base_model.model.";

/** The name that PEFT gives a tensor of ours, e.g. "layers.0.self_attn.q_proj.lora_A.weight". */
export function peftName(config: ModelConfig, part: string): string {
  return `${PEFT_PREFIX}${moduleName(config, part)}`;
}

/** The open file of an adapter, whose tensors were checked against the base model. Close it. */
export interface AdapterFile {
  readonly options: LoraOptions;
  readonly modules: readonly LoraModule[];
  /** A tensor of ours as f32 values. Throws ModelFormatError for values that are not finite. */
  read(part: string): Promise<Float32Array<ArrayBuffer>>;
  close(): Promise<void>;
}

/**
 * Opens an adapter's folder over a base model.
 *
 * @param onWarning takes a sentence on tensors that are left out because the base has the same
 * @throws FileError, ModelFormatError naming the file, and the tensor that is missing, left over or of another shape
 */
export async function openAdapter(
  folder: string,
  base: { readonly config: ModelConfig; readonly folder: string },
  onWarning: (sentence: string) => void,
): Promise<AdapterFile> {
  const { options, savedModules } = await readAdapterConfig(folder);
  const path = platform.joinPath(folder, ADAPTER_WEIGHTS);
  if ((await platform.exists(path)) !== "file") {
    throw new ModelFormatError(`The adapter folder "${folder}" has no ${ADAPTER_WEIGHTS}.`);
  }
  const file = await openSafetensors(path);
  try {
    const names = namesByPart(file, base.config);
    const saved = await savedTensors(file, names, base);
    const modules = modulesOf(folder, base.config, options);
    checkParts(file, names, saved, adapterSpecs(modules, options), { config: base.config, savedModules, options });
    for (const name of savedModules) {
      if ([...saved.keys()].some((part) => belongsTo(part, [name]))) continue;
      throw new ModelFormatError(`${path}: "modules_to_save" names "${name}", but the file has no tensor of it.`);
    }
    if (saved.size > 0) {
      onWarning(`${path} also holds ${[...saved.keys()].join(", ")}, the same as in the base; they are left out.`);
    }
    return {
      options,
      modules,
      async read(part) {
        const name = names.get(peftName(base.config, part)) ?? "";
        const values = await file.readF32(name);
        const at = firstNotFinite(values);
        if (at < 0) return values;
        throw new ModelFormatError(
          `${path}: tensor "${name}" holds ${values[at]} (element ${at}); the file is damaged.`,
        );
      },
      close: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** The layers that an adapter is for, with an error that names its folder and not an option. */
function modulesOf(folder: string, config: ModelConfig, options: LoraOptions): LoraModule[] {
  try {
    return selectModules(config, options);
  } catch (error) {
    if (!(error instanceof KtoError)) throw error;
    throw new ModelFormatError(
      `${platform.joinPath(folder, ADAPTER_CONFIG)} does not fit the base model: ${errorMessage(error).replace("lora_target_modules", '"target_modules"')}`,
      { cause: error },
    );
  }
}

/**
 * The names in the file by the names that PEFT writes: a state dict that was saved without PEFT still has the adapter's
 * name in its tensors', "default" for the first.
 */
function namesByPart(file: SafetensorsFile, config: ModelConfig): Map<string, string> {
  const names = new Map<string, string>();
  for (const name of file.tensors.keys()) {
    const part = (
      name.startsWith(PEFT_PREFIX) ? `${PEFT_PREFIX}${currentModuleName(config, name.slice(PEFT_PREFIX.length))}` : name
    )
      .replace(/\.(lora_[AB])\.default\.weight$/, ".$1.weight")
      .replace(/\.lora_magnitude_vector(\.default)?\.weight$|\.lora_magnitude_vector\.default$/, ".lora_magnitude_vector")
      .replace(/\.(modules_to_save\.default|base_layer)\.(weight|bias)$/, ".$2");
    const other = names.get(part);
    if (other !== undefined) {
      throw new ModelFormatError(`${file.path}: tensors "${other}" and "${name}" are both "${part}".`);
    }
    names.set(part, name);
  }
  return names;
}

/**
 * The tensors of the base that the file holds whole, by their names in the base's class: PEFT saves `modules_to_save`,
 * and by itself an embedding and a head that were resized or have adapters.
 *
 * @returns those that are the same as in the base; throws ModelFormatError for another
 */
async function savedTensors(
  file: SafetensorsFile,
  names: ReadonlyMap<string, string>,
  { config, folder }: { readonly config: ModelConfig; readonly folder: string },
): Promise<Map<string, string>> {
  const parts = new Set(parameterSpecs(config).flatMap((spec) => spec.parts.map(({ name }) => name)));
  const prefix = `${PEFT_PREFIX}${modulePrefix(config)}`;
  const saved = new Map<string, string>();
  for (const name of names.keys()) {
    const isHead = name === `${PEFT_PREFIX}lm_head.weight`;
    const part = isHead ? "lm_head.weight" : name.startsWith(prefix) ? name.slice(prefix.length) : "";
    if (isHead || parts.has(part)) saved.set(name.slice(PEFT_PREFIX.length), part);
  }
  if (saved.size === 0) return saved;
  const base = await openWeights(folder);
  try {
    const { fullName } = storedNaming(config, base.tensors.keys());
    for (const [moduleName, part] of saved) {
      const name = names.get(`${PEFT_PREFIX}${moduleName}`) ?? "";
      const isTied = config.tiedHead && part === "lm_head.weight";
      const embedding = parameterSpecs(config)[0]?.parts[0]?.name ?? "";
      const baseName = fullName(isTied ? embedding : part);
      const found = base.tensors.get(baseName);
      if (found && (await sameNumbers(file, name, found.file, baseName))) continue;
      const [own, theirs] = [file.tensors.get(name), found].map((entry) => `[${entry?.shape.join(", ")}]`);
      const difference =
        own === theirs ? "whose numbers differ from the base's" : `of shape ${own} where the base's is ${theirs}`;
      throw new ModelFormatError(
        `${file.path}: tensor "${name}" is a whole "${moduleName}" ${difference}, trained or resized beside the adapter (modules_to_save, or saved by PEFT itself), which is not supported; ${MERGE_WITH_PEFT}.`,
      );
    }
  } finally {
    await base.close();
  }
  return saved;
}

/** What adapter_config.json asks for over a base. */
interface Asked {
  readonly config: ModelConfig;
  readonly savedModules: readonly string[];
  readonly options: LoraOptions;
}

/** A and B of every module must be there in their shapes, and nothing else may be but what was saved whole. */
function checkParts(
  file: SafetensorsFile,
  names: ReadonlyMap<string, string>,
  saved: ReadonlyMap<string, string>,
  specs: readonly ParameterSpec[],
  asked: Asked,
): void {
  const { config } = asked;
  const wanted = new Map(
    specs.flatMap(({ parts }) => parts.map(({ name, shape }) => [peftName(config, name), shape] as const)),
  );
  for (const [part, name] of names) {
    if (wanted.has(part) || saved.has(part.slice(PEFT_PREFIX.length))) continue;
    throw new ModelFormatError(`${file.path}: tensor "${name}" ${leftOver(part, asked)}.`);
  }
  for (const [part, shape] of wanted) {
    const name = names.get(part) ?? part;
    const found = file.tensors.get(name);
    if (found?.shape.join() === shape.join()) continue;
    throw new ModelFormatError(
      `${file.path}: tensor "${name}" ${found ? `has shape [${found.shape.join(", ")}]` : "is missing"}, but the base model wants it as [${shape.join(", ")}]; the adapter was made for another base.`,
    );
  }
}

/** Is this the name of a tensor of one of these modules, which are named whole or by their last words? */
function belongsTo(part: string, modules: readonly string[]): boolean {
  return modules.some((module) => `.${part}`.includes(`.${module}.`));
}

/** Why a tensor cannot be read, after its name. */
function leftOver(part: string, { config, savedModules, options }: Asked): string {
  if (belongsTo(part, savedModules)) return 'belongs to "modules_to_save", and to no module of the base model';
  if (part.endsWith(".lora_magnitude_vector") && !options.dora) {
    return `belongs to DoRA, but "use_dora" of ${ADAPTER_CONFIG} is not true`;
  }
  if (part.includes("lora_embedding_") || part.startsWith(`${PEFT_PREFIX}lm_head.lora_`)) {
    return `is an adapter of the embedding or the head, which is not supported; ${MERGE_WITH_PEFT}`;
  }
  if (part.endsWith(".bias")) return `is a trained bias, which is not supported; ${MERGE_WITH_PEFT}`;
  const module = part.replace(/\.(lora_[AB]\.weight|lora_magnitude_vector)$/, "");
  if (linearModules(config).some(({ name }) => peftName(config, name) === module)) {
    return `belongs to a layer that ${ADAPTER_CONFIG} does not select`;
  }
  return `belongs to no layer of the base model that ${ADAPTER_CONFIG} names; the adapter was made for another base`;
}
