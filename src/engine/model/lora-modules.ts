/**
 * The options of a LoRA adapter and the linear layers that they select, each with its rank and alpha. The rules are
 * PEFT's: check_target_module_exists in its tuners_utils.py, get_pattern_key in its utils/other.py. What an adapter
 * computes stands in `lora.ts`.
 */
import { ConfigError, shown } from "../../errors.ts";
import { fromPython, textsMatching } from "../files/foreign-pattern.ts";
import type { ModelConfig } from "./config/config.ts";
import { HEAD_MODULE, moduleName, parameterSpecs } from "./weights/parameters.ts";

/**
 * The options of a LoRA adapter. Names of modules are those of Hugging Face's class, prefix included, e.g.
 * "model.layers.0.self_attn.q_proj".
 */
export interface LoraOptions {
  /** r, for every module that no key of `rankPattern` matches. */
  readonly rank: number;
  /** For every module that no key of `alphaPattern` matches. */
  readonly alpha: number;
  /** Share of the inputs that training leaves out, from 0 to below 1. */
  readonly dropout: number;
  /** Divides alpha by sqrt(r) in place of r (Kalajdzievski 2023). */
  readonly rslora: boolean;
  /**
   * A list of module names, each of which also selects the modules that end in "." and it ("q_proj", "mlp.down_proj");
   * "all-linear" for every linear layer of the decoder; any other text is a regular expression for whole names.
   * Default: PEFT's for the family.
   */
  readonly targetModules?: readonly string[] | string | undefined;
  /**
   * The modules that get no adapter though they are targets: a list of names, or a regular expression for whole names.
   */
  readonly excludeModules?: readonly string[] | string | undefined;
  /** The layers, by number from 0, that `targetModules` as a list is for. Default: all. */
  readonly layersToTransform?: number | readonly number[] | undefined;
  /** Regular expressions for what stands before the number of a layer, e.g. "layers". Default: anything. */
  readonly layersPattern?: readonly string[] | string | undefined;
  /** Ranks by regular expressions for the ends of module names, from a dot on; the first that matches counts. */
  readonly rankPattern?: Readonly<Record<string, number>> | undefined;
  /** Alphas in the same way. */
  readonly alphaPattern?: Readonly<Record<string, number>> | undefined;
  /** Weight-decomposed: the length of each output's row of weights is trained apart (`use_dora`); default false. */
  readonly dora?: boolean | undefined;
  /** Modules that are trained whole beside the adapter, by the ends of their names (`modules_to_save`). */
  readonly savedModules?: readonly string[] | undefined;
  /** The base's biases that are trained beside it: none (default), all, or those of its targets. */
  readonly bias?: LoraBias | undefined;
}

/** PEFT's words for `bias`. */
export const LORA_BIASES = ["none", "all", "lora_only"] as const;
export type LoraBias = (typeof LORA_BIASES)[number];

/**
 * A layer as weight files name it: columns [outFrom, outFrom + outputs) of the result of one of our parameters. The
 * embedding is a layer whose inputs are tokens.
 */
export interface LinearModule {
  readonly kind: "linear" | "embedding" | "head";
  /** Without the prefix ("model.", "transformer."), e.g. "layers.0.self_attn.q_proj". */
  readonly name: string;
  /** Our parameter, e.g. "layers.0.qkv.weight". */
  readonly parameter: string;
  /** Whether the parameter is stored as [inputs, outputs], and not as [outputs, inputs]. */
  readonly inOut: boolean;
  readonly inputs: number;
  readonly outputs: number;
  readonly outFrom: number;
  /** Columns of that result. */
  readonly width: number;
}

/** A linear layer with an adapter. */
export interface LoraModule extends LinearModule {
  readonly rank: number;
  readonly alpha: number;
  /** alpha / r, or alpha / sqrt(r) (rslora): what the product of A and B is multiplied with. */
  readonly scale: number;
}

/**
 * The layers that can have an adapter, in the order of a forward pass: the embedding of tokens, the linear layers of the
 * blocks, the head, which is one of its own where it is tied.
 */
export function adaptableModules(config: ModelConfig): LinearModule[] {
  const { hiddenSize, vocabSize, tiedHead } = config;
  const [first] = parameterSpecs(config);
  const name = first?.parts[0]?.name.replace(/\.weight$/, "") ?? "";
  const place = { outFrom: 0 };
  return [
    {
      ...{ kind: "embedding", name, parameter: "embedding", inOut: true, inputs: vocabSize },
      ...{ outputs: hiddenSize, width: hiddenSize, ...place },
    },
    ...linearModules(config),
    {
      ...{ kind: "head", name: HEAD_MODULE, parameter: tiedHead ? "embedding" : "head", inOut: false },
      ...{ inputs: hiddenSize, outputs: vocabSize, width: vocabSize, ...place },
    },
  ];
}

/** Every linear layer of the decoder's blocks; not the embedding, not the head. */
export function linearModules(config: ModelConfig): LinearModule[] {
  const modules: LinearModule[] = [];
  for (const { name: parameter, shape, parts } of parameterSpecs(config)) {
    if (shape.length < 2 || !parameter.startsWith("layers.")) continue;
    const { inOutWeights: inOut } = config;
    const width = shape[inOut ? 1 : 0] ?? 0;
    let outFrom = 0;
    for (const part of parts) {
      const [first = 0, second = 0] = part.shape;
      const [outputs, inputs] = inOut ? [second, first] : [first, second];
      const name = part.name.replace(/\.weight$/, "");
      modules.push({ kind: "linear", name, parameter, inOut, inputs, outputs, outFrom, width });
      outFrom += outputs;
    }
  }
  return modules;
}

/**
 * PEFT's default targets by family; the others have the attention's query and value projections. PEFT has none for
 * Phi-3: it gets the matrix that holds these.
 */
const DEFAULT_TARGETS: Readonly<Record<string, readonly string[]>> = { gpt2: ["c_attn"], phi3: ["qkv_proj"] };
const USUAL_TARGETS = ["q_proj", "v_proj"];

/** What `target_modules` of a PEFT configuration says: the default by name, "all-linear" as a list. */
export function targetNames(
  config: ModelConfig,
  targetModules: LoraOptions["targetModules"],
): readonly string[] | string {
  if (isAllLinear(targetModules)) return lastNames(linearModules(config));
  return targetModules ?? DEFAULT_TARGETS[config.modelType] ?? USUAL_TARGETS;
}

/**
 * The layers that get an adapter, in the order of a forward pass. As in PEFT, a target that is in no model does no harm
 * beside others; `checkTargets` is stricter.
 *
 * @throws ConfigError naming the option, what it holds and the modules that there are
 */
export function selectModules(config: ModelConfig, options: LoraOptions): LoraModule[] {
  const all = adaptableModules(config);
  const wholeName = ({ name }: LinearModule) => moduleName(config, name);
  const names = all.map(wholeName);
  const targets = targetsAmong(names, config, options);
  if (targets.size === 0) {
    const narrowed = options.excludeModules !== undefined || options.layersToTransform !== undefined;
    throw new ConfigError(
      `lora_target_modules ${shown(targetNames(config, options.targetModules))} matches no layer${narrowed ? ' that "exclude_modules" and "layers_to_transform" leave' : ""}; ${known(all)}.`,
    );
  }
  const ranks = valuesByPattern(options.rankPattern, names, "rank_pattern");
  const alphas = valuesByPattern(options.alphaPattern, names, "alpha_pattern");
  return all
    .filter((module) => targets.has(wholeName(module)))
    .map((module) => {
      const rank = ranks.get(wholeName(module)) ?? options.rank;
      const alpha = alphas.get(wholeName(module)) ?? options.alpha;
      return { ...module, rank, alpha, scale: alpha / (options.rslora ? Math.sqrt(rank) : rank) };
    });
}

/**
 * Checks the targets of a new adapter: each name of a list is a layer, a regular expression does not match the embedding
 * of positions, for which PEFT would make an adapter too; ranks, alphas, excluded modules and numbers of layers are those
 * of some layer.
 *
 * @throws ConfigError naming the target and the modules that there are
 */
export function checkTargets(config: ModelConfig, options: LoraOptions): void {
  const { targetModules } = options;
  const all = adaptableModules(config);
  checkNarrowing(
    all.map(({ name }) => moduleName(config, name)),
    options,
  );
  const names = all.map(({ name }) => moduleName(config, name));
  const targets = targetNames(config, targetModules);
  if (targets.length === 0) throw new ConfigError(`lora_target_modules is empty; ${known(all)}.`);
  const isText = typeof targets === "string";
  const wrong = isText
    ? matching(targets, otherModules(config), "lora_target_modules")[0]
    : targets.find((target) => matching([target], names, "lora_target_modules").length === 0);
  if (wrong === undefined) return;
  throw new ConfigError(
    `lora_target_modules ${isText ? `${shown(targets)} matches` : "names"} "${wrong}", which is no layer that an adapter is made for; ${known(all)}.`,
  );
}

/** PEFT passes over patterns that match nothing, so that a slip of the pen would train another adapter. */
function checkNarrowing(names: readonly string[], options: LoraOptions): void {
  const { rankPattern = {}, alphaPattern = {}, excludeModules = [], layersToTransform = [] } = options;
  const unused = [
    ...Object.entries({ lora_rank_pattern: rankPattern, lora_alpha_pattern: alphaPattern }).flatMap(
      ([option, patterns]) =>
        Object.entries(patterns)
          .filter((entry) => valuesByPattern(Object.fromEntries([entry]), names, option).size === 0)
          .map(([pattern]) => [option, shown(pattern)] as const),
    ),
    ...[excludeModules]
      .flat()
      .flatMap((name) =>
        matching(typeof excludeModules === "string" ? name : [name], names, "lora_exclude_modules").length > 0
          ? []
          : [["lora_exclude_modules", shown(name)] as const],
      ),
    ...[layersToTransform]
      .flat()
      .flatMap((layer) =>
        names.some((name) => name.includes(`.${layer}.`)) ? [] : [["lora_layers_to_transform", String(layer)] as const],
      ),
  ];
  const [first] = unused;
  if (first === undefined) return;
  const example = names.find((name) => /\.\d+\./.test(name));
  throw new ConfigError(
    `${first[0]} has ${first[1]}, which is no layer of this model; its modules are named as ${example}.`,
  );
}

/** The modules that an adapter of these options belongs to, by their whole names. */
function targetsAmong(names: readonly string[], config: ModelConfig, options: LoraOptions): Set<string> {
  const { targetModules, excludeModules = [], layersToTransform = [], layersPattern = [] } = options;
  const layers = [layersToTransform].flat();
  if (typeof targetModules === "string" && layers.length > 0)
    throw new ConfigError('"layers_to_transform" goes with lora_target_modules as a list, not with a single text.');
  if (layersPattern.length > 0 && layers.length === 0)
    throw new ConfigError('"layers_pattern" says where the numbers of "layers_to_transform" stand, which is missing.');
  const excluded = new Set(matching(excludeModules, names, '"exclude_modules"'));
  // What PEFT calls so has neither the embedding nor the head.
  const linear = linearModules(config).map(({ name }) => moduleName(config, name));
  const targets = isAllLinear(targetModules) ? linear : targetNames(config, targetModules);
  let found = matching(targets, names, "lora_target_modules");
  if (layers.length > 0) {
    const before = layersPattern.length > 0 ? [layersPattern].flat() : ["[^.]*"];
    const inLayers = before.flatMap((pattern) =>
      textsMatching(
        `^.*?\\.${fromPython(pattern)}\\.(?:${layers.join("|")})\\.`,
        names,
        `"layers_pattern" ${shown(pattern)}`,
      ),
    );
    // PEFT does not ask for the layer of a module that a target names wholly.
    found = found.filter((name) => targets.includes(name) || inLayers.includes(name));
  }
  return new Set(found.filter((name) => !excluded.has(name)));
}

/** The names that a list has, whole or an end from a dot on, or that a regular expression matches whole. */
function matching(wanted: readonly string[] | string, names: readonly string[], option: string): string[] {
  if (typeof wanted === "string")
    return textsMatching(`^(?:${fromPython(wanted)})$`, names, `${option} ${shown(wanted)}`);
  return names.filter((name) => wanted.some((own) => name === own || name.endsWith(`.${own}`)));
}

/** The value of the first pattern that matches a module's name, or an end of it from a dot on. */
function valuesByPattern(
  patterns: Readonly<Record<string, number>> = {},
  names: readonly string[],
  option: string,
): Map<string, number> {
  const values = new Map<string, number>();
  for (const [pattern, value] of Object.entries(patterns)) {
    const source = `^(?:.*\\.)?(?:${fromPython(pattern)})$`;
    for (const name of textsMatching(source, names, `"${option}" ${shown(pattern)}`)) {
      if (!values.has(name)) values.set(name, value);
    }
  }
  return values;
}

function isAllLinear(targetModules: LoraOptions["targetModules"]): boolean {
  return typeof targetModules === "string" && targetModules.toLowerCase() === "all-linear";
}

/** The embeddings of positions, for which PEFT would make an adapter and we cannot, by their whole names. */
function otherModules(config: ModelConfig): string[] {
  return parameterSpecs(config)
    .filter(({ name }) => name === "positions")
    .flatMap(({ parts }) => parts.map(({ name }) => moduleName(config, name.replace(/\.weight$/, ""))));
}

function known(modules: readonly LinearModule[]): string {
  return `this model has ${lastNames(modules).join(", ")}`;
}

function lastNames(modules: readonly LinearModule[]): string[] {
  return [...new Set(modules.map(({ name }) => name.slice(name.lastIndexOf(".") + 1)))].sort();
}
