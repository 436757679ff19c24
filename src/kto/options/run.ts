/**
 * The options that every training run has, whatever it trains for, and the checks that need several of them. A method
 * adds its own (`config.ts`, `sft-config.ts`) and may give them other defaults.
 */
import * as z from "zod";
import { ConfigError } from "../../errors.ts";
import { checkpointOptions } from "./checkpoint.ts";
import {
  checkEvaluates,
  checkEvaluationRows,
  drawsSamples,
  evaluationOptions,
  evaluationStrategy,
} from "./evaluation.ts";
import { asksForJudge, judgeOptions } from "./judge.ts";
import { loraOptions } from "./lora.ts";
import { modelOptions } from "./model.ts";
import { deviceOptions, outputOptions } from "./output.ts";
import { optimizerOptions, samplingOf, trainingOptions } from "./training.ts";

const schema = z.strictObject({
  ...modelOptions,
  ...trainingOptions,
  ...loraOptions,
  ...optimizerOptions,
  ...evaluationOptions,
  ...judgeOptions,
  ...checkpointOptions,
  ...deviceOptions,
  ...outputOptions,
});

/** What a command that trains knows of its run. */
export type RunConfig = Readonly<z.output<typeof schema>>;

/** Those that a trainer itself takes; the others are the command line's. */
export const runOptionNames = [
  "max_length",
  "shuffle_dataset",
  "group_by_length",
  "train_sampling_strategy",
  "per_device_train_batch_size",
  "gradient_accumulation_steps",
  "num_train_epochs",
  "max_steps",
  "freeze_parameters",
  "fp16",
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

/** The options of a training run, under TRL's names. */
export type RunOptions = Pick<RunConfig, (typeof runOptionNames)[number]>;

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
export function checkFloat32(
  options: Readonly<Partial<Record<(typeof float32Options)[number], unknown>>>,
  where?: (name: string) => string,
): void {
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

/** @throws ConfigError for options that contradict each other, before anything is loaded */
export function checkRunConfig(config: RunConfig, where?: (name: string) => string): void {
  checkFloat32(config, where);
  checkEvaluationRows(config);
  checkEvaluates(
    config,
    evaluationStrategy(config, config.eval_dataset_name !== undefined || config.validation_split !== undefined),
  );
  if (asksForJudge(config) && !drawsSamples(config)) {
    throw new ConfigError(
      "the judge has no answers to compare: give eval_samples or eval_prompts_file, the prompts that are continued at each evaluation.",
    );
  }
  samplingOf(config);
}
