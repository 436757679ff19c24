/**
 * The parameters of an adapter, under PEFT's names: A, B and magnitudes of its modules, and what of the base is trained
 * whole beside them (`modules_to_save`, `bias`). What they compute stands in `lora.ts`.
 */
import { ConfigError } from "../../errors.ts";
import type { ParameterSpec } from "../gpu/arena.ts";
import type { ModelConfig } from "./config/config.ts";
import type { LinearModule, LoraModule, LoraOptions } from "./lora-modules.ts";
import { HEAD_MODULE, moduleName, parameterSpecs } from "./weights/parameters.ts";

/** Names of a module's parameters; `file` names their tensors. */
export function partNames({ kind, name }: Pick<LinearModule, "kind" | "name">): {
  readonly a: string;
  readonly b: string;
  readonly magnitude: string;
  readonly file: { readonly a: string; readonly b: string };
} {
  // In PEFT the embedding's are bare parameters, and the others the weights of linear layers.
  const [a, b, end] =
    kind === "embedding" ? ["lora_embedding_A", "lora_embedding_B", ""] : ["lora_A", "lora_B", ".weight"];
  return {
    ...{ a: `${name}.${a}`, b: `${name}.${b}`, magnitude: `${name}.lora_magnitude_vector` },
    file: { a: `${name}.${a}${end}`, b: `${name}.${b}${end}` },
  };
}

/** The parameters of the base that are trained whole beside an adapter. */
export interface SavedParameters {
  /** Ours, with all of their parts. */
  readonly specs: readonly ParameterSpec[];
  /** The parts that are trained: of fused biases and norms perhaps not all. */
  readonly parts: ReadonlySet<string>;
}

/** All parameters of an adapter: A [r, in], B [out, r] and, with DoRA, m [out] of each module; then what is saved whole. */
export function adapterSpecs(
  modules: readonly LoraModule[],
  { dora = false }: Pick<LoraOptions, "dora">,
  saved: Pick<SavedParameters, "specs"> = { specs: [] },
): ParameterSpec[] {
  const spec = (name: string, shape: readonly number[], part = name): ParameterSpec => {
    return { name, shape, decay: true, parts: [{ name: part, shape }] };
  };
  const own = modules.flatMap((module) => {
    const { inputs, outputs, rank } = module;
    const { a, b, magnitude, file } = partNames(module);
    return [
      spec(a, [rank, inputs], file.a),
      spec(b, [outputs, rank], file.b),
      ...(dora ? [spec(magnitude, [outputs])] : []),
    ];
  });
  return [...own, ...saved.specs];
}

/**
 * What `modules_to_save` and `bias` train of a model. A name of a module selects every module whose whole name ends in
 * it, as in PEFT, with all that is below; a head that is tied becomes one of its own.
 *
 * @throws ConfigError for a name that matches nothing, a module that has an adapter too, or a part of a fused matrix
 */
export function savedParameters(
  config: ModelConfig,
  modules: readonly LoraModule[],
  { savedModules = [], bias = "none" }: Pick<LoraOptions, "savedModules" | "bias">,
): SavedParameters {
  const specs = specsWithHead(config);
  const all = specs.flatMap((spec) => spec.parts.map(({ name }) => name));
  const parts = new Set<string>();
  for (const wanted of savedModules) {
    const found = all.filter((part) => modulesOf(config, part).some((module) => module.endsWith(wanted)));
    if (wanted === "" || found.length === 0) {
      const known = [...new Set(all.map((part) => (modulesOf(config, part)[0] ?? "").replace(/^.*\./, "")))].sort();
      throw new ConfigError(
        `lora_modules_to_save names "${wanted}", which is no module of this model; it has ${known.join(", ")}.`,
      );
    }
    for (const part of found) parts.add(part);
  }
  for (const { name } of modules) {
    if (!parts.has(`${name}.weight`)) continue;
    throw new ConfigError(
      `lora_modules_to_save selects "${name}", which gets an adapter by lora_target_modules too: leave it out of one.`,
    );
  }
  const targets = new Set(modules.map(({ name }) => `${name}.bias`));
  for (const part of all) {
    if (part.endsWith(".bias") && (bias === "all" || (bias === "lora_only" && targets.has(part)))) parts.add(part);
  }
  const selected = specs.filter((spec) => spec.parts.some(({ name }) => parts.has(name)));
  for (const spec of selected) {
    const left = spec.parts.filter(({ name }) => !parts.has(name)).map(({ name }) => name);
    if (spec.shape.length === 1 || left.length === 0) continue;
    throw new ConfigError(
      `lora_modules_to_save selects a part of what is stored as one matrix, without ${left.join(", ")}: name all of them or none.`,
    );
  }
  return { specs: selected, parts };
}

/** The parameters of a model whose head is one of its own. */
function specsWithHead(config: ModelConfig): ParameterSpec[] {
  return parameterSpecs({ ...config, tiedHead: false });
}

/** The whole names of the modules that a tensor belongs to, its own first; not the decoder, nor the list of its layers. */
function modulesOf(config: ModelConfig, part: string): string[] {
  const [, module = part] = /^(.*)\.(?:weight|bias)$/.exec(part) ?? [];
  const names: string[] = [];
  for (let name = module; /\./.test(name) || names.length === 0; name = name.replace(/\.[^.]*$/, "")) names.push(name);
  // "layers.0" is a module, "layers" is a list, which PEFT refuses.
  return names.map((name) => moduleName(config, name));
}

/** Whether embedding and head, which are tied in the base, become two by an adapter. */
export function unties(config: ModelConfig, modules: readonly LoraModule[], saved: SavedParameters): boolean {
  if (!config.tiedHead) return false;
  const own = saved.specs.some(({ name }) => name === "embedding" || name === "head");
  return own || modules.some(({ kind }) => kind !== "linear");
}

/** The tensor that a part is filled from in the base, whose head may be its embedding. */
export function basePart(config: ModelConfig, part: string): string {
  const embedding = parameterSpecs(config)[0]?.parts[0]?.name ?? part;
  return config.tiedHead && part === `${HEAD_MODULE}.weight` ? embedding : part;
}
