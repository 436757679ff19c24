/**
 * Every option of the trainer, put together from the files that describe them (TRL's name, default, range, one line
 * each), and the checks that need several of them. The options of the other commands stand in `src/cli`, advice on
 * values in `advice.ts`.
 */
import * as z from "zod";
import { ConfigError } from "../errors.ts";
import { checkpointOptions } from "./checkpoint-options.ts";
import { checkEvaluates, checkEvaluationRows, evaluationOptions, evaluationStrategy } from "./evaluation-options.ts";
import { loraOptions } from "./lora-options.ts";
import { methodOptions, referenceMode, referenceModelOption } from "./method-options.ts";
import { modelOptions } from "./model-options.ts";
import { deviceOptions, outputOptions } from "./output-options.ts";
import { type ParseContext, parseOptions } from "./parse-options.ts";
import { optimizerOptions, samplingOf, trainingOptions } from "./training-options.ts";
import { foreignTrlOptions, otherProductsNames } from "./trl-options.ts";

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
  "max_length",
  "overwrite_cache",
  "shuffle_dataset",
  "group_by_length",
  "train_sampling_strategy",
  "per_device_train_batch_size",
  "gradient_accumulation_steps",
  "num_train_epochs",
  "max_steps",
  "freeze_parameters",
  "gradient_checkpointing",
  "seed",
  "disable_dropout",
  "learning_rate",
  "lr_scheduler_type",
  "warmup_steps",
  "warmup_ratio",
  "weight_decay",
  "adam_beta1",
  "adam_beta2",
  "adam_epsilon",
  "max_grad_norm",
  "logging_steps",
  "logging_first_step",
  "eval_strategy",
  "eval_steps",
  "eval_on_start",
  "per_device_eval_batch_size",
  "metric_for_best_model",
  "greater_is_better",
  "load_best_model_at_end",
  "early_stopping_patience",
  "early_stopping_threshold",
  "save_strategy",
  "save_steps",
  "save_total_limit",
  "save_only_model",
  "resume_from_checkpoint",
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

/** The options that kernels compute with. */
const float32Options = [
  "beta",
  "desirable_weight",
  "undesirable_weight",
  "learning_rate",
  "weight_decay",
  "adam_beta1",
  "adam_beta2",
  "adam_epsilon",
  "max_grad_norm",
] as const;

/** @throws ConfigError for a value that overflows in 32 bits, or that is lost there (a positive one that becomes 0) */
export function checkFloat32(options: TrainerOptions, where?: (name: string) => string): void {
  for (const name of float32Options) {
    const value = options[name];
    if (typeof value !== "number") continue;
    const rounded = Math.fround(value);
    if (Number.isFinite(rounded) && (value === 0 || Math.abs(rounded) >= 2 ** -126)) continue;
    throw new ConfigError(
      `option "${name}"${where?.(name) ?? ""} is ${value}, which 32-bit floating point cannot hold; its numbers lie between 1.2e-38 and 3.4e38.`,
    );
  }
}

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
  checkFloat32(config, where);
  if (config.per_device_train_batch_size < 2 && config.loss_type === "kto") {
    throw new ConfigError(
      `option "per_device_train_batch_size"${where?.("per_device_train_batch_size") ?? ""} is 1, but the reference point is measured on mismatched pairs, each prompt with the completion of another row, and a microbatch of one row has none: use at least 2.`,
    );
  }
  checkEvaluationRows(config);
  checkEvaluates(
    config,
    evaluationStrategy(config, config.eval_dataset_name !== undefined || config.validation_split !== undefined),
  );
  samplingOf(config); // contradictions are told before anything is loaded
  referenceMode(config, {
    adapter: config.use_peft || config.adapter_name_or_path !== undefined || config.reference === "adapter_off",
    given: (config.ref_model_name_or_path ?? config.model_name_or_path) !== config.model_name_or_path,
  });
  return { ...config, ref_model_name_or_path: config.ref_model_name_or_path ?? config.model_name_or_path };
}
