/** The options of evaluation during training, under TRL's and transformers' names, and which of them need others. */
import * as z from "zod";
import { ConfigError } from "../../errors.ts";
import { type OptionsOf, optionGroup } from "./option.ts";
import { STEPS_OR_SHARE, stepsOrShare } from "./steps.ts";

const { option, trainerOption } = optionGroup("Evaluation");
const count = z.number().int();

export const evaluationOptions = {
  eval_strategy: trainerOption(z.enum(["no", "steps", "epoch"]).optional(), {
    description: "when to evaluate; default: by steps where there are rows to evaluate on, else no",
    aliases: ["evaluation_strategy"],
  }),
  eval_steps: trainerOption(stepsOrShare.clone().optional(), {
    description: "updates between evaluations; below 1 a share of the run; default logging_steps",
    expects: STEPS_OR_SHARE,
    placeholder: "number",
  }),
  eval_on_start: trainerOption(z.boolean().default(false), { description: "also evaluate before the first update" }),
  per_device_eval_batch_size: trainerOption(count.min(1).default(8), {
    description: "rows in a microbatch of the evaluation",
  }),
  eval_dataset_name: option(z.string().min(1).optional(), {
    description: "rows to evaluate on: a file, or the id of a data set, of which dataset_test_split is taken",
    expects: "a local feedback file or the hub id of a data set",
    placeholder: "data",
    aliases: ["eval_dataset", "validation_file", "eval_file"],
  }),
  dataset_test_split: option(z.string().min(1).default("test"), {
    description: "the split to evaluate on, also a slice of one, such as train[90%:]",
    expects: "the name of a split",
    placeholder: "split",
    nullMeans: "test",
  }),
  validation_split: option(z.union([count.min(2), z.number().gt(0).lt(1)]).optional(), {
    description:
      "hold out this share of the training rows, or so many of them, to evaluate on; rows of one prompt stay together",
    expects: "a share between 0 and 1, or a whole number of rows of at least 2",
    placeholder: "number",
    aliases: ["eval_split_ratio", "val_size", "val_set_size"],
  }),
  metric_for_best_model: trainerOption(z.string().min(1).optional(), {
    description: "the metric of the evaluation that says which model is the best; default loss",
    expects: "a metric such as loss or rewards/margins",
    placeholder: "metric",
  }),
  greater_is_better: trainerOption(z.boolean().optional(), {
    description:
      "whether more of metric_for_best_model is better; default: true unless its name ends in loss, losses or inconsistent",
  }),
  load_best_model_at_end: trainerOption(z.boolean().default(false), {
    description: "save the best model of the run's evaluations, not the last",
  }),
  early_stopping_patience: trainerOption(count.min(1).optional(), {
    description: "stop after so many evaluations in a row without an improvement",
  }),
  early_stopping_threshold: trainerOption(z.number().min(0).default(0), {
    description: "how much better than the best an improvement must be for early_stopping_patience",
  }),
  eval_prompts_file: option(z.string().min(1).optional(), {
    description: "prompts that are continued at each evaluation, into samples.jsonl",
    expects: "a text or .jsonl file",
    placeholder: "file",
  }),
  eval_samples: option(count.min(0).optional(), {
    description: "how many prompts are continued: of eval_prompts_file (default all), else of the rows evaluated on",
  }),
  eval_max_new_tokens: option(count.min(1).default(64), { description: "the longest continuation in samples.jsonl" }),
};

type EvaluationOptions = OptionsOf<typeof evaluationOptions>;

/** When a run evaluates: what was asked for, else by steps where there are rows for it. */
export function evaluationStrategy(
  options: Pick<EvaluationOptions, "eval_strategy">,
  hasRows: boolean,
): "no" | "steps" | "epoch" {
  return options.eval_strategy ?? (hasRows ? "steps" : "no");
}

/** Whether prompts are continued at each evaluation. */
export function drawsSamples({
  eval_samples: count,
  eval_prompts_file: file,
}: Pick<EvaluationOptions, "eval_samples" | "eval_prompts_file">): boolean {
  return count !== 0 && (count ?? file) !== undefined;
}

/** The options that mean nothing without an evaluation. */
type Dependents = Pick<EvaluationOptions, "eval_on_start" | "load_best_model_at_end" | "early_stopping_patience"> &
  Partial<Pick<EvaluationOptions, "eval_prompts_file" | "eval_samples">>;

/** @throws ConfigError for an option that needs an evaluation where there is none */
export function checkEvaluates(options: Dependents, strategy: "no" | "steps" | "epoch"): void {
  if (strategy !== "no") return;
  const asked = Object.entries({
    eval_on_start: options.eval_on_start,
    load_best_model_at_end: options.load_best_model_at_end,
    early_stopping_patience: options.early_stopping_patience,
    eval_prompts_file: options.eval_prompts_file,
    eval_samples: options.eval_samples,
  }).find(([, value]) => Boolean(value));
  if (asked === undefined) return;
  throw new ConfigError(
    `option "${asked[0]}" is ${JSON.stringify(asked[1])}, but the run does not evaluate: set eval_strategy to "steps" or "epoch", and give rows as eval_dataset_name or validation_split.`,
  );
}

/** @throws ConfigError where two options each say what the rows of the evaluation are */
export function checkEvaluationRows(options: Pick<EvaluationOptions, "eval_dataset_name" | "validation_split">): void {
  if (options.eval_dataset_name === undefined || options.validation_split === undefined) return;
  throw new ConfigError("options eval_dataset_name and validation_split both say what to evaluate on: keep one.");
}
