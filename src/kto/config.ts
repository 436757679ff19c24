/**
 * Every option of the trainer: TRL's name, default, range and one line of description; those of LoRA, evaluation and
 * checkpoints in files of their own. The options of the other commands stand in `src/cli`, advice on values in `advice.ts`.
 */
import * as z from "zod";
import { ConfigError } from "../errors.ts";
import { checkpointOptions } from "./checkpoint-options.ts";
import { checkEvaluates, checkEvaluationRows, evaluationOptions, evaluationStrategy } from "./evaluation-options.ts";
import { loraOptions } from "./lora-options.ts";
import { referenceMode, samplingOf } from "./method-options.ts";
import { option, type ParseContext, parseOptions } from "./parse-options.ts";
import { foreignTrlOptions, otherProductsNames } from "./trl-options.ts";

const model = "Model and data";
const method = "KTO";
const training = "Training";
const optimizer = "Optimizer (AdamW)";
const device = "Device";
const logging = "Output";

/** A z.literal("auto") beside a number: solve for the weight that balances the classes. */
const weight = z.union([z.number().positive(), z.literal("auto")]);
const count = z.number().int();

/** Other names of dtypes that people write. */
const DTYPE_ALIASES = {
  fp32: "float32",
  f32: "float32",
  fp16: "float16",
  f16: "float16",
  bf16: "bfloat16",
  half: "float16",
};

/** A size as Hugging Face writes it. */
const SIZE = /^(?!0+(\.0+)?\s*[KMGT]?)\d+(\.\d+)?\s*([KMGT]i?B)?$/i;

/** Bytes of "5GB" (decimal), "5GiB" (binary) or a plain number. */
export function sizeInBytes(text: string): number {
  const [, number = "0", unit = ""] = /^([\d.]+)\s*(\w*)$/.exec(text.trim()) ?? [];
  const power = ["", "K", "M", "G", "T"].indexOf(unit.charAt(0).toUpperCase());
  return Math.floor(Number(number) * (unit.toLowerCase().includes("ib") ? 1024 : 1000) ** Math.max(0, power));
}

/** The options, in the order of the help text. `ref_model_name_or_path` is filled in by `parseKtoConfig`. */
export const ktoOptions = z.strictObject({
  model_name_or_path: option(z.string().min(1), {
    group: model,
    description: "the model to train: a local folder, or an id on the Hugging Face hub",
    expects: 'a local Hugging Face model folder or a hub id such as "owner/name"',
    placeholder: "model",
    aliases: ["model", "base_model"],
  }),
  ref_model_name_or_path: option(z.string().min(1).optional(), {
    group: model,
    description: "the frozen reference model (default: the model as it is before training)",
    expects: 'a local Hugging Face model folder or a hub id such as "owner/name"',
    placeholder: "model",
    aliases: ["ref_model"],
  }),
  model_revision: option(z.string().min(1).default("main"), {
    group: model,
    description: "which branch, tag or commit of a model on the hub; a reference of another name is taken from main",
    expects: "a branch, a tag or a commit",
    placeholder: "revision",
    nullMeans: "main",
  }),
  dataset_name: option(z.string().min(1), {
    group: model,
    description: "the feedback: rows of prompt, completion, label, or of prompt, chosen, rejected",
    expects: "a local feedback file or the hub id of a data set",
    placeholder: "data",
    aliases: ["dataset"],
  }),
  dataset_config: option(z.string().min(1).optional(), {
    group: model,
    description: "the subset of a data set: one that its README declares, a folder, or how its files' names begin",
    expects: "the name of a subset",
    placeholder: "name",
  }),
  dataset_train_split: option(z.string().min(1).default("train"), {
    group: model,
    description: "the split of a folder of files, or a slice of the rows, such as train[:100] or train[10%:]",
    expects: "the name of a split, or a slice of one such as train[:100]",
    placeholder: "split",
  }),
  column_mapping: option(z.record(z.string(), z.string()).optional(), {
    group: model,
    description: "the file's own names of columns, where they are others than ours",
    expects: 'a JSON object or a mapping, such as {"prompt": "question", "label": "thumb"}',
  }),
  max_length: option(count.min(2).default(1024), {
    group: model,
    description: "tokens of prompt and completion together, at most the model's context; longer rows are cut",
    expects: "a whole number of at least 2",
    nullMeans: Number.MAX_SAFE_INTEGER,
  }),
  dtype: option(z.enum(["auto", "float32", "float16", "bfloat16"]).default("auto"), {
    group: model,
    description: "numbers of the model's matrices: auto as its files store them; what is trained is kept in float32",
    expects: '"auto", "float32", "float16" or "bfloat16"',
    aliases: ["torch_dtype"],
    valueAliases: DTYPE_ALIASES,
    nullMeans: "auto",
  }),
  chat_template_path: option(z.string().min(1).optional(), {
    group: model,
    description: "the chat template for rows of messages (default: the model folder's own)",
    expects: "a .jinja file or a folder that holds a chat template",
    placeholder: "path",
  }),
  chat_template_kwargs: option(z.record(z.string(), z.unknown()).optional(), {
    group: model,
    description: "variables of the chat template, such as enable_thinking; a row's own go before them",
    expects: 'a JSON object or a mapping, such as {"enable_thinking": false}',
  }),
  overwrite_cache: option(z.boolean().default(false), {
    group: model,
    description: "compute token ids and reference log-probs anew, also those that the cache holds",
    expects: "true or false",
  }),
  shuffle_dataset: option(z.boolean().default(true), {
    group: model,
    description: "draw the rows in a seeded random order, anew in each epoch",
    expects: "true or false",
  }),

  beta: option(z.number().positive().default(0.1), {
    group: method,
    description: "how strongly the model is held to the reference; higher stays closer",
    expects: "a number above 0",
  }),
  desirable_weight: option(weight.default(1), {
    group: method,
    description: "lambda_D, the weight of thumbs-up rows; auto balances the classes",
    expects: 'a number above 0 or "auto"',
  }),
  undesirable_weight: option(weight.default(1), {
    group: method,
    description: "lambda_U, the weight of thumbs-down rows; auto balances the classes",
    expects: 'a number above 0 or "auto"',
  }),
  loss_type: option(z.enum(["kto", "apo_zero_unpaired"]).default("kto"), {
    group: method,
    description: "apo_zero_unpaired (alias kto_zero) sets the reference point to 0",
    expects: '"kto" or "apo_zero_unpaired"',
    valueAliases: { kto_zero: "apo_zero_unpaired" },
  }),
  reference: option(z.enum(["auto", "copy", "adapter_off", "cached", "uniform"]).default("auto"), {
    group: method,
    description:
      "copy: a frozen model beside the trained one; adapter_off: the model without its adapter; cached: its log-probs computed before training and kept on disk, so that it takes no memory then; uniform: no reference, the entropy is measured on mismatched pairs; auto: adapter_off with an adapter, else copy",
    expects: '"auto", "copy", "adapter_off", "cached" or "uniform"',
  }),
  precompute_ref_log_probs: option(z.boolean().default(false), {
    group: method,
    description: 'the same as reference "cached"',
    expects: "true or false",
  }),
  reference_point_scope: option(z.enum(["microbatch", "step"]).default("microbatch"), {
    group: method,
    description: "the rows over which the reference point is taken when gradients are accumulated",
    expects: '"microbatch" or "step"',
  }),

  per_device_train_batch_size: option(count.min(1).default(8), {
    group: training,
    description: "rows in a microbatch, at least 2: each prompt also meets the completion of another row",
    expects: "a whole number of at least 2",
  }),
  gradient_accumulation_steps: option(count.min(1).default(1), {
    group: training,
    description: "microbatches in one update",
    expects: "a whole number of at least 1",
  }),
  num_train_epochs: option(z.number().positive().default(3), {
    group: training,
    description: "passes over the data",
    expects: "a number above 0",
  }),
  max_steps: option(count.refine((steps) => steps === -1 || steps >= 1).default(-1), {
    group: training,
    description: "updates in all, in place of num_train_epochs; -1 for as many as the epochs need",
    expects: "a whole number of at least 1, or -1 for as many as the epochs need",
  }),
  group_by_length: option(z.boolean().default(false), {
    group: training,
    description:
      "rows of similar length come into one microbatch; prompts and completions are packed without padding in any case",
    expects: "true or false",
  }),
  train_sampling_strategy: option(z.enum(["random", "sequential", "group_by_length"]).default("random"), {
    group: training,
    description: "sequential: as shuffle_dataset false; group_by_length: as group_by_length true",
    expects: '"random", "sequential" or "group_by_length"',
    nullMeans: "random",
  }),
  freeze_parameters: option(z.array(z.string()).default([]), {
    group: training,
    description:
      "regular expressions, found anywhere in a tensor's Hugging Face name, of parameters that are not trained and take no gradients and moments",
    expects: "regular expressions such as embed_tokens or layers\\.[0-3]\\.",
    placeholder: "patterns",
  }),
  gradient_checkpointing: option(z.boolean().default(false), {
    group: training,
    description:
      "keep only the inputs of layers and compute the rest again in the backward pass: less memory, the same gradients, more time (TRL's default is true)",
    expects: "true or false",
  }),
  seed: option(count.min(0).max(0xffffffff).default(42), {
    group: training,
    description: "the same seed on the same adapter gives the same model, bit for bit",
    expects: "a whole number from 0 to 4294967295",
  }),

  ...loraOptions,

  learning_rate: option(z.number().min(0).default(5e-6), {
    group: optimizer,
    description: "the highest rate of the schedule",
    expects: "a number of at least 0",
  }),
  lr_scheduler_type: option(z.enum(["constant", "linear", "cosine"]).default("linear"), {
    group: optimizer,
    description: "how the rate goes on after the warm-up; linear and cosine end at 0",
    expects: '"constant", "linear" or "cosine"',
  }),
  warmup_steps: option(count.min(0).default(0), {
    group: optimizer,
    description: "updates in which the rate rises from 0; goes before warmup_ratio",
    expects: "a whole number of at least 0 (warmup_ratio takes a share of all steps)",
  }),
  warmup_ratio: option(z.number().min(0).max(1).default(0), {
    group: optimizer,
    description: "the warm-up as a share of all updates",
    expects: "a number from 0 to 1",
  }),
  weight_decay: option(z.number().min(0).default(0), {
    group: optimizer,
    description: "decoupled decay of all weights but biases and norms",
    expects: "a number of at least 0",
  }),
  adam_beta1: option(z.number().min(0).lt(1).default(0.9), {
    group: optimizer,
    description: "memory of the gradient's mean",
    expects: "a number from 0 to below 1",
  }),
  adam_beta2: option(z.number().min(0).lt(1).default(0.999), {
    group: optimizer,
    description: "memory of the gradient's square",
    expects: "a number from 0 to below 1",
  }),
  adam_epsilon: option(z.number().positive().default(1e-8), {
    group: optimizer,
    description: "added to the root of the square",
    expects: "a number above 0",
  }),
  max_grad_norm: option(z.number().min(0).default(1), {
    group: optimizer,
    description: "gradients are scaled down to this norm; 0 for no clipping",
    expects: "a number of at least 0",
  }),

  ...evaluationOptions,

  ...checkpointOptions,

  dry_run: option(z.boolean().default(false), {
    group: device,
    description:
      "tell what the run would do, the memory it needs and the time it takes, and stop; a little of it is run",
    expects: "true or false",
  }),
  adapter: option(z.string().min(1).optional(), {
    group: device,
    description:
      "the GPU: auto, hardware, lavapipe, swiftshader, a number or part of a name in kto doctor's list (default: KTO_ADAPTER in the environment, else auto)",
    expects: "auto, a kind of adapter, a number or part of a name in the list of kto doctor",
    placeholder: "adapter",
    nullMeans: "auto",
  }),

  output_dir: option(z.string().min(1), {
    group: logging,
    description: "the folder for the trained model and metrics.jsonl",
    expects: "a folder for the results",
    placeholder: "folder",
    aliases: ["output"],
  }),
  overwrite_output_dir: option(z.boolean().default(false), {
    group: logging,
    description: "allow an output_dir that is not empty",
    expects: "true or false",
  }),
  save_dtype: option(z.enum(["float32", "float16", "bfloat16"]).default("float32"), {
    group: logging,
    description: "numbers in the files of a model that was trained whole; an adapter is saved in float32",
    expects: '"float32", "float16" or "bfloat16"',
    valueAliases: DTYPE_ALIASES,
  }),
  max_shard_size: option(z.string().regex(SIZE).default("5GB"), {
    group: logging,
    description: "split larger weights into several files",
    expects: 'a size such as "5GB", "500MB" or a number of bytes',
    placeholder: "size",
  }),
  logging_steps: option(count.min(1).default(10), {
    group: logging,
    description: "write a line of metrics.jsonl every so many updates",
    expects: "a whole number of at least 1",
  }),
  logging_first_step: option(z.boolean().default(false), {
    group: logging,
    description: "also write a line for the first update",
    expects: "true or false",
  }),
  json: option(z.boolean().default(false), {
    group: logging,
    description: "results as JSON on stdout",
    expects: "true or false",
  }),
  log_level: option(z.enum(["debug", "info", "warning", "error"]).default("info"), {
    group: logging,
    description: "how much is told on stderr",
    expects: '"debug", "info", "warning" or "error"',
    valueAliases: { warn: "warning", critical: "error", passive: "info" },
  }),
  debug: option(z.boolean().default(false), {
    group: logging,
    description: "show where an error came from",
    expects: "true or false",
  }),
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
