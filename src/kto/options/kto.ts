/**
 * Every option of KTO training, put together from the files that describe them (TRL's name, default, range, one line
 * each), and the checks that need several of them. The options of the other commands stand in `src/cli`, advice on
 * values in `advice.ts`.
 */
import * as z from "zod";
import { ConfigError } from "../../errors.ts";
import { checkpointOptions } from "./checkpoint.ts";
import { evaluationOptions } from "./evaluation.ts";
import { judgeOptions } from "./judge.ts";
import { loraOptions } from "./lora.ts";
import { methodOptions, referenceChoice, referenceModelOption } from "./method.ts";
import { modelOptions } from "./model.ts";
import { deviceOptions, outputOptions } from "./output.ts";
import { type ParseContext, parseOptions } from "./parse.ts";
import { checkRunConfig, runOptionNames } from "./run.ts";
import { optimizerOptions, trainingOptions } from "./training.ts";
import { foreignTrlOptions, otherProductsNames } from "./trl.ts";

const { model_name_or_path, ...otherModelOptions } = modelOptions;

/** The options, in the order of the help text. `ref_model_name_or_path` is filled in by `parseKtoConfig`. */
export const ktoOptions = z.strictObject({
  model_name_or_path,
  ...referenceModelOption,
  ...otherModelOptions,
  ...methodOptions,
  ...trainingOptions,
  ...loraOptions,
  ...optimizerOptions,
  ...evaluationOptions,
  ...judgeOptions,
  ...checkpointOptions,
  ...deviceOptions,
  ...outputOptions,
});

/** A complete, checked configuration. */
export type KtoConfig = Readonly<z.output<typeof ktoOptions> & { ref_model_name_or_path: string }>;

/** The options that the trainer itself takes; the others are the command line's. */
export const trainerOptionNames = [
  "beta",
  "desirable_weight",
  "undesirable_weight",
  "loss_type",
  "reference",
  "precompute_ref_log_probs",
  "reference_point_scope",
  "overwrite_cache",
  ...runOptionNames,
] as const;

/** The options of training itself, under TRL's names; ranges and defaults are those of the command line. */
export type TrainerOptions = Pick<KtoConfig, (typeof trainerOptionNames)[number]>;

/** Their schema, with the same ranges and defaults. */
export const trainerOptions = ktoOptions.pick(
  Object.fromEntries(trainerOptionNames.map((name) => [name, true])) as Record<
    (typeof trainerOptionNames)[number],
    true
  >,
);

/** What `parseKtoConfig` knows beyond the schema: TRL's other options and the names of other products. */
export const ktoParseContext: ParseContext = { foreign: foreignTrlOptions, otherProducts: otherProductsNames };

/**
 * Checks options and fills in the defaults. Names may be aliases and in kebab-case; values may be text, as from a
 * command line or YAML ("true", "yes", "1e-4", "none").
 *
 * @param where tells where an option was set, to follow its name in messages, e.g. " in run.yaml"
 * @throws ConfigError, one sentence: the option, its value and its range, or the nearest known option
 */
export function parseKtoConfig(input: Readonly<Record<string, unknown>>, where?: (name: string) => string): KtoConfig {
  const context = where === undefined ? ktoParseContext : { ...ktoParseContext, where };
  const config = parseOptions(ktoOptions, input, context);
  checkRunConfig(config, where);
  if (config.per_device_train_batch_size < 2 && config.loss_type === "kto") {
    throw new ConfigError(
      `option "per_device_train_batch_size"${where?.("per_device_train_batch_size") ?? ""} is 1, but the reference point is measured on mismatched pairs, each prompt with the completion of another row, and a microbatch of one row has none: use at least 2.`,
    );
  }
  const { model_name_or_path: model, ref_model_name_or_path: asked = model, adapter_name_or_path: adapter } = config;
  // Whoever names the base of an adapter as the reference means the base, not the adapter as it starts.
  const namesBase = adapter !== undefined && config.ref_model_name_or_path === model && config.reference === "auto";
  const decided: KtoConfig = {
    ...config,
    reference: namesBase ? "base" : config.reference,
    ref_model_name_or_path: asked,
  };
  referenceChoice(decided, {
    // A model folder may turn out to hold an adapter.
    adapter: config.use_peft || adapter !== undefined || decided.reference === "base",
    continued: adapter !== undefined,
    given: asked !== model,
  });
  return decided;
}
