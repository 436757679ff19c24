/**
 * The options that every training run has, whatever it trains for, and the checks that need several of them. A method
 * adds its own (`kto.ts`, `sft.ts`) and may give these other defaults.
 */
import type { ScheduleType } from "../../engine/schedule.ts";
import { ConfigError } from "../../errors.ts";
import { checkpointOptions } from "./checkpoint.ts";
import {
  checkEvaluates,
  checkEvaluationRows,
  drawsSamples,
  evaluationOptions,
  evaluationStrategy,
} from "./evaluation.ts";
import { hubOptions } from "./hub.ts";
import { asksForJudge, judgeOptions } from "./judge.ts";
import { loraOptions } from "./lora.ts";
import { modelOptions } from "./model.ts";
import type { OptionsOf } from "./option.ts";
import { deviceOptions, outputOptions } from "./output.ts";
import { checkQuantizedTraining, quantizationOptions } from "./quantization.ts";
import { checkRanksOptions, ranksOptions } from "./ranks.ts";
import { scheduleParameters } from "./schedule.ts";
import { type OptimizerName, optimizerOptions, samplingOf, trainingOptions } from "./training.ts";

/** The options of every command that trains, in the order of the help text. */
export const runOptions = {
  ...modelOptions,
  ...trainingOptions,
  ...loraOptions,
  ...quantizationOptions,
  ...optimizerOptions,
  ...evaluationOptions,
  ...judgeOptions,
  ...checkpointOptions,
  ...ranksOptions,
  ...deviceOptions,
  ...outputOptions,
  ...hubOptions,
};

/** The whole configuration of a command that trains. */
export type RunConfig = OptionsOf<typeof runOptions>;

/**
 * The options that every trainer takes. Names are those of transformers' TrainingArguments and of TRL's KTOConfig, and
 * so are the defaults where nothing else is said. A trainer throws ConfigError for a value that is out of range.
 */
export interface RunOptions {
  /**
   * Tokens of prompt and completion together, at most the model's context; longer rows are cut. At least 2; default
   * 1024, as in TRL. The trainer refuses longer examples: `tokenizeRows` cuts them.
   */
  readonly max_length: number;
  /** Draw the rows in a seeded random order, another one in each epoch. Default true. */
  readonly shuffle_dataset: boolean;
  /** Rows in a microbatch. At least 1; default 8. */
  readonly per_device_train_batch_size: number;
  /** Microbatches in one update. At least 1; default 1. */
  readonly gradient_accumulation_steps: number;
  /** Passes over the data. Above 0, fractions too, at most a million; default 3. */
  readonly num_train_epochs: number;
  /** Updates in all, in place of num_train_epochs; -1 for as many as the epochs need. Default -1. */
  readonly max_steps: number;
  /**
   * Put rows of similar length into one microbatch; prompts and completions are packed without padding in any case.
   * Default false.
   */
  readonly group_by_length: boolean;
  /**
   * The order of rows; sequential: as shuffle_dataset false; group_by_length: as group_by_length true. Default
   * "random".
   */
  readonly train_sampling_strategy: "random" | "sequential" | "group_by_length";
  /**
   * Regular expressions, found anywhere in a tensor's Hugging Face name, of parameters that are not trained and take no
   * gradients and moments. Default none. Not an option of TRL's.
   */
  readonly freeze_parameters: string[];
  /**
   * Keep activations as f16: about half their memory, gradients right to about 1%; all else (weights, gradients,
   * moments, arithmetic) stays f32, so there is no loss scale (the adapter must have shader-f16). Default false.
   */
  readonly fp16: boolean;
  /**
   * Let products of layers and of attention round what they multiply to 16 bits (f16 with a scale, sums in f32) where
   * the adapter has subgroup matrices and they are faster, gradients right to about 1%; weights and activations stay
   * f32; without such matrices it is f32. Default false. Not together with fp16, which has the same products.
   */
  readonly bf16: boolean;
  /**
   * Keep only the inputs of layers and compute the rest again in the backward pass: less memory, the same gradients,
   * more time (TRL's default is true). Default false.
   */
  readonly gradient_checkpointing: boolean;
  /**
   * NEFTune: noise on the embeddings of training, even within alpha / sqrt(tokens of the microbatch's longest row x
   * hidden size); not of the reference and of evaluations. Default none.
   */
  readonly neftune_noise_alpha?: number | undefined;
  /**
   * The same seed on the same adapter, with the same kernels chosen, gives the same model, bit for bit. A whole number
   * of 32 bits; default 42. It decides the order of rows, their pairs, a new adapter, dropout and noise.
   */
  readonly seed: number;
  /** The seed of the order of the rows and of their pairs; default seed. */
  readonly data_seed?: number | undefined;
  /** Train without dropout, also where lora_dropout is not 0 (TRL's default). Default true. */
  readonly disable_dropout: boolean;
  /** The highest rate of the schedule. Default 5e-6, the upper end of what TRL's page on KTO recommends. */
  readonly learning_rate: number;
  /**
   * How the rate goes on after the warm-up; constant has no warm-up. Default "linear", down to 0 after the last update.
   * Formulas: transformers' get_scheduler.
   */
  readonly lr_scheduler_type: ScheduleType;
  /**
   * Parameters of the schedule, such as {"num_cycles": 3} or {"min_lr_rate": 0.1}. Default none. `ScheduleParameters`
   * has them all.
   */
  readonly lr_scheduler_kwargs: Record<string, unknown>;
  /**
   * Updates in which the rate rises from 0; below 1 a share of all updates; goes before warmup_ratio. Default 0. A
   * share is rounded up, as in transformers 5.
   */
  readonly warmup_steps: number;
  /** The warm-up as a share of all updates. From 0 to 1; default 0. */
  readonly warmup_ratio: number;
  /**
   * AdamW under its names in transformers; those with 8bit keep the moments of parameters of 4096 elements and more as
   * codes of eight bits (2 bytes a parameter in place of 8); nothing is paged. Default "adamw_torch".
   */
  readonly optim: OptimizerName;
  /** Decoupled decay of all weights but biases and norms. Multiplied by the learning rate; default 0 (AdamW). */
  readonly weight_decay: number;
  /** How much of the gradient's running mean each update keeps. From 0 to below 1; default 0.9 (AdamW's beta 1). */
  readonly adam_beta1: number;
  /** How much of the gradient's running mean square each update keeps. From 0 to below 1; default 0.999 (beta 2). */
  readonly adam_beta2: number;
  /** Added to the root of the mean square. Above 0; default 1e-8. */
  readonly adam_epsilon: number;
  /** Scale gradients down to this norm; 0 for no clipping. The 2-norm of all gradients together; default 1. */
  readonly max_grad_norm: number;
  /** When to evaluate; default: by steps where there are rows to evaluate on, else no. */
  readonly eval_strategy?: "no" | "steps" | "epoch" | undefined;
  /** Updates between evaluations; below 1 a share of the run; default logging_steps. */
  readonly eval_steps?: number | undefined;
  /** Also evaluate before the first update. Default false. */
  readonly eval_on_start: boolean;
  /** Rows in a microbatch of the evaluation. At least 1; default 8. */
  readonly per_device_eval_batch_size: number;
  /** The metric of the evaluation that says which model is the best; default loss. With or without "eval_". */
  readonly metric_for_best_model?: string | undefined;
  /**
   * Whether more of metric_for_best_model is better; default: true unless its name ends in loss, losses or
   * inconsistent.
   */
  readonly greater_is_better?: boolean | undefined;
  /** Save the best model of the run's evaluations, not the last. Default false. */
  readonly load_best_model_at_end: boolean;
  /**
   * Stop after so many evaluations in a row without an improvement. Default never. As transformers'
   * EarlyStoppingCallback.
   */
  readonly early_stopping_patience?: number | undefined;
  /**
   * How much better than the best an improvement must be for early_stopping_patience. In units of the metric; default
   * 0.
   */
  readonly early_stopping_threshold: number;
  /**
   * When to save a checkpoint: every save_steps updates or every epoch, and at the end; no for none. Default "steps".
   * There are checkpoints only where the trainer has an `outputFolder`.
   */
  readonly save_strategy: "no" | "steps" | "epoch";
  /** Updates between checkpoints; below 1 a share of the run. Default 500. */
  readonly save_steps: number;
  /**
   * How many checkpoints are kept, the latest; neither the last good one nor the best is ever removed. At least 1;
   * default all.
   */
  readonly save_total_limit?: number | undefined;
  /** Leave the optimizer out of checkpoints: smaller, but a run cannot be resumed from them. Default false. */
  readonly save_only_model: boolean;
  /** Go on from the last good checkpoint in output_dir (true), or from a checkpoint's folder. Default false. */
  readonly resume_from_checkpoint: boolean | string;
  /**
   * Let each rank keep the optimizer's moments of its share of the parameters alone, and update that share; the numbers
   * are the same. Default false.
   */
  readonly shard_optimizer: boolean;
  /**
   * DiLoCo, for slow links: so many updates of each rank by itself, then one outer step on the mean of what they
   * changed; default: gradients are summed in every update. At least 1. Douillard et al. 2023.
   */
  readonly sync_every?: number | undefined;
  /** How far the outer step goes along the mean of what ranks changed, with sync_every. Above 0; default 0.7. */
  readonly outer_learning_rate: number;
  /** Nesterov momentum of the outer step, with sync_every. From 0 to below 1; default 0.9. */
  readonly outer_momentum: number;
  /** Write a line of metrics.jsonl every so many updates; below 1 a share of the run. Default 10, as in TRL. */
  readonly logging_steps: number;
  /** Also write a line for the first update. Default false. */
  readonly logging_first_step: boolean;
  /**
   * Write what logged updates did with each example to examples.jsonl, at most 1000 updates and 256 examples of each.
   * Default true. In a program: give it with `TrainingStep`.
   */
  readonly log_examples: boolean;
}

/**
 * What a trainer asks of its options together.
 *
 * @returns the same options, the schedule's parameters as numbers and in their order
 * @throws ConfigError for options that contradict each other
 */
export function checkRunOptions<Options extends RunOptions>(
  options: Options,
  where?: (name: string) => string,
): Options {
  samplingOf(options);
  checkRanksOptions(options);
  return { ...options, lr_scheduler_kwargs: scheduleParameters(options, where) };
}

/** Checks a command's options against each other, before any file is read. */
export function checkRunConfig<Config extends RunConfig>(config: Config, where?: (name: string) => string): Config {
  checkQuantizedTraining(config, where);
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
  return checkRunOptions(config, where);
}
