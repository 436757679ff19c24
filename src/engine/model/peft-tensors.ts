/**
 * adapter_model.safetensors under PEFT's names: A, B and magnitude of every module that adapter_config.json selects, and
 * what was trained whole beside them. What else lies there is either the same as in the base, and then left out, or
 * refused by its cause.
 */
import { errorMessage, KtoError, ModelFormatError } from "../../errors.ts";
import { openSafetensors, type SafetensorsFile } from "../files/safetensors.ts";
import type { ParameterSpec } from "../gpu/arena.ts";
import { firstNotFinite } from "../number-formats.ts";
import { platform } from "../platform/index.ts";
import { adapterSpecs, basePart, type SavedParameters, savedParameters } from "./adapter-specs.ts";
import type { ModelConfig } from "./config/config.ts";
import { adaptableModules, type LoraModule, type LoraOptions, selectModules } from "./lora-modules.ts";
import { ADAPTER_CONFIG, MERGE_WITH_PEFT, readAdapterConfig } from "./peft-config.ts";
import { sameNumbers } from "./weights/check-tensors.ts";
import {
  currentModuleName,
  isNoParameter,
  moduleName,
  modulePrefix,
  parameterSpecs,
  storedNaming,
} from "./weights/parameters.ts";
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
  readonly saved: SavedParameters;
  /** Whether a tensor is there: PEFT up to 0.20.0 leaves out the biases of "lora_only", and they are the base's then. */
  has(part: string): boolean;
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
  const { options } = await readAdapterConfig(folder);
  const path = platform.joinPath(folder, ADAPTER_WEIGHTS);
  if ((await platform.exists(path)) !== "file") {
    throw new ModelFormatError(`The adapter folder "${folder}" has no ${ADAPTER_WEIGHTS}.`);
  }
  const file = await openSafetensors(path);
  try {
    const { config } = base;
    const names = namesByPart(file, config);
    const { modules, saved } = contentsOf(folder, config, options);
    const wanted = wantedShapes(config, adapterSpecs(modules, options, saved), saved);
    const left = await leftTensors(file, names, wanted, base);
    checkParts(file, names, left, wanted, { config, options });
    if (left.size > 0) {
      onWarning(`${path} also holds ${[...left.keys()].join(", ")}, the same as in the base; they are left out.`);
    }
    const missing = [...wanted.keys()].filter((part) => !names.has(part));
    if (missing.length > 0) {
      onWarning(
        `${path} has no biases, though "bias" of ${ADAPTER_CONFIG} is "lora_only" (PEFT up to 0.20.0 does not save them): those of the base are taken.`,
      );
    }
    return {
      options,
      modules,
      saved,
      has: (part) => names.has(peftName(config, part)),
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

/** The layers that an adapter is for and what is trained beside it, with an error that names its folder and no option. */
function contentsOf(
  folder: string,
  config: ModelConfig,
  options: LoraOptions,
): { readonly modules: LoraModule[]; readonly saved: SavedParameters } {
  try {
    const modules = selectModules(config, options);
    return { modules, saved: savedParameters(config, modules, options) };
  } catch (error) {
    if (!(error instanceof KtoError)) throw error;
    throw new ModelFormatError(
      `${platform.joinPath(folder, ADAPTER_CONFIG)} does not fit the base model: ${errorMessage(error).replace("lora_target_modules", '"target_modules"').replace("lora_modules_to_save", '"modules_to_save"')}`,
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
      .replace(/\.(lora_embedding_[AB])\.default$/, ".$1")
      .replace(
        /\.lora_magnitude_vector(\.default)?\.weight$|\.lora_magnitude_vector\.default$/,
        ".lora_magnitude_vector",
      )
      .replace(/\.(modules_to_save\.default|base_layer)\.(weight|bias)$/, ".$2");
    const other = names.get(part);
    if (other !== undefined) {
      throw new ModelFormatError(`${file.path}: tensors "${other}" and "${name}" are both "${part}".`);
    }
    names.set(part, name);
  }
  return names;
}

/** The shapes of the tensors that an adapter has, by PEFT's names. */
function wantedShapes(
  config: ModelConfig,
  specs: readonly ParameterSpec[],
  saved: SavedParameters,
): Map<string, readonly number[]> {
  const base = new Set(saved.specs.flatMap(({ parts }) => parts.map(({ name }) => name)));
  const parts = specs.flatMap((spec) => spec.parts).filter(({ name }) => !base.has(name) || saved.parts.has(name));
  return new Map(parts.map(({ name, shape }) => [peftName(config, name), shape]));
}

/**
 * The tensors of the base that the file holds whole and that were not asked for, by their names in the base's class:
 * PEFT saves an embedding and a head by itself that were resized or have adapters.
 *
 * @returns those that are the same as in the base; throws ModelFormatError for another
 */
async function leftTensors(
  file: SafetensorsFile,
  names: ReadonlyMap<string, string>,
  wanted: ReadonlyMap<string, unknown>,
  { config, folder }: { readonly config: ModelConfig; readonly folder: string },
): Promise<Map<string, string>> {
  const parts = new Set(parameterSpecs(config).flatMap((spec) => spec.parts.map(({ name }) => name)));
  const prefix = `${PEFT_PREFIX}${modulePrefix(config)}`;
  const saved = new Map<string, string>();
  for (const name of names.keys()) {
    if (wanted.has(name)) continue;
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
      const baseName = fullName(basePart(config, part));
      const found = base.tensors.get(baseName);
      if (found && (await sameNumbers(file, name, found.file, baseName))) continue;
      const [own, theirs] = [file.tensors.get(name), found].map((entry) => `[${entry?.shape.join(", ")}]`);
      const difference =
        own === theirs ? "whose numbers differ from the base's" : `of shape ${own} where the base's is ${theirs}`;
      throw new ModelFormatError(
        `${file.path}: tensor "${name}" is a whole "${moduleName}" ${difference}, though "modules_to_save" does not name it: it was resized or trained beside the adapter, which is not supported; ${MERGE_WITH_PEFT}.`,
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
  readonly options: LoraOptions;
}

/** All that is wanted must be there in its shape, and nothing else may be but what is left out. */
function checkParts(
  file: SafetensorsFile,
  names: ReadonlyMap<string, string>,
  left: ReadonlyMap<string, string>,
  wanted: ReadonlyMap<string, readonly number[]>,
  asked: Asked,
): void {
  for (const [part, name] of names) {
    // PEFT took every name with "bias" in it, masks too.
    if (wanted.has(part) || left.has(part.slice(PEFT_PREFIX.length)) || isNoParameter(part)) continue;
    throw new ModelFormatError(`${file.path}: tensor "${name}" ${leftOver(part, asked)}.`);
  }
  const biases = [...wanted.keys()].filter((part) => part.endsWith(".bias"));
  const savesNone = asked.options.bias === "lora_only" && !biases.some((part) => names.has(part));
  for (const [part, shape] of wanted) {
    const name = names.get(part) ?? part;
    const found = file.tensors.get(name);
    if (found?.shape.join() === shape.join() || (found === undefined && savesNone && biases.includes(part))) continue;
    const module = asked.options.savedModules?.find((own) => found === undefined && belongsTo(part, [own]));
    if (module !== undefined) {
      throw new ModelFormatError(
        `${file.path}: "modules_to_save" names "${module}", but the file has no tensor "${name}" of it.`,
      );
    }
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
function leftOver(part: string, { config, options }: Asked): string {
  if (belongsTo(part, options.savedModules ?? []))
    return 'belongs to "modules_to_save", and to no module of the base model';
  if (part.endsWith(".lora_magnitude_vector") && !options.dora) {
    return `belongs to DoRA, but "use_dora" of ${ADAPTER_CONFIG} is not true`;
  }
  if (part.endsWith(".bias")) return `is a bias, but "bias" of ${ADAPTER_CONFIG} is "${options.bias ?? "none"}"`;
  const module = part.replace(/\.(lora_[AB]\.weight|lora_embedding_[AB]|lora_magnitude_vector)$/, "");
  if (adaptableModules(config).some(({ name }) => peftName(config, name) === module)) {
    return `belongs to a layer that ${ADAPTER_CONFIG} does not select`;
  }
  return `belongs to no layer of the base model that ${ADAPTER_CONFIG} names; the adapter was made for another base`;
}
