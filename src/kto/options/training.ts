/**
 * The options of the updates, under transformers' names: rows, AdamW. Also the order of the rows, which several options
 * decide. The learning rate's options stand in `schedule.ts`.
 */
import * as z from "zod";
import type { MomentFormat } from "../../engine/gpu/moments.ts";
import type { Precision } from "../../engine/model/precision.ts";
import { ConfigError } from "../../errors.ts";
import { optionGroup } from "./option.ts";
import { scheduleOptions } from "./schedule.ts";

const { trainerOption: training } = optionGroup("Training");
const { trainerOption: optimizer } = optionGroup("Optimizer (AdamW)");
const count = z.number().int();

/** Names of transformers' for AdamW with moments in f32, fused or not, paged or not: one optimizer here. */
const ADAMW = ["adamw_torch", "adamw", "adamw_torch_fused", "adamw_hf", "adamw_apex_fused"] as const;
const PAGED_ADAMW = ["paged_adamw", "paged_adamw_32bit"] as const;
/** Names of optimizers that keep AdamW's moments in eight bits. */
const ADAMW_8BIT = ["adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit"] as const;

/** All names of optimizers. */
export const OPTIMIZERS = [...ADAMW, ...PAGED_ADAMW, ...ADAMW_8BIT] as const;
export type OptimizerName = (typeof OPTIMIZERS)[number];

/** How the optimizer of this name keeps its moments. */
export function momentFormatOf({ optim }: { readonly optim: OptimizerName }): MomentFormat {
  return (ADAMW_8BIT as readonly string[]).includes(optim) ? "8bit" : "f32";
}

/** More than any run has, and few enough that the updates of all of them are counted exactly. */
const MOST_EPOCHS = 1e6;

/** Whether a text is a regular expression. What it matches only a model can tell. */
function isPattern(text: string): boolean {
  try {
    new RegExp(text);
    return true;
  } catch {
    return false;
  }
}

export const trainingOptions = {
  per_device_train_batch_size: training(count.min(1).default(8), { description: "rows in a microbatch" }),
  gradient_accumulation_steps: training(count.min(1).default(1), { description: "microbatches in one update" }),
  num_train_epochs: training(z.number().positive().max(MOST_EPOCHS).default(3), {
    description: "passes over the data",
  }),
  max_steps: training(count.refine((steps) => steps === -1 || steps >= 1).default(-1), {
    description: "updates in all, in place of num_train_epochs; -1 for as many as the epochs need",
    expects: "a whole number of at least 1, or -1 for as many as the epochs need",
  }),
  group_by_length: training(z.boolean().default(false), {
    description:
      "put rows of similar length into one microbatch; prompts and completions are packed without padding in any case",
  }),
  train_sampling_strategy: training(z.enum(["random", "sequential", "group_by_length"]).default("random"), {
    description: "the order of rows; sequential: as shuffle_dataset false; group_by_length: as group_by_length true",
    nullMeans: "random",
  }),
  freeze_parameters: training(z.array(z.string().refine(isPattern)).default([]), {
    description:
      "regular expressions, found anywhere in a tensor's Hugging Face name, of parameters that are not trained and take no gradients and moments",
    expects: "regular expressions such as embed_tokens or layers\\.[0-3]\\.",
    placeholder: "patterns",
  }),
  fp16: training(z.boolean().default(false), {
    description:
      "keep activations as f16: about half their memory, gradients right to about 1%; all else (weights, gradients, moments, arithmetic) stays f32, so there is no loss scale (the adapter must have shader-f16)",
  }),
  bf16: training(z.boolean().default(false), {
    description:
      "let products of layers and of attention round what they multiply to 16 bits (f16 with a scale, sums in f32) where the adapter has subgroup matrices and they are faster, gradients right to about 1%; weights and activations stay f32; without such matrices it is f32",
    nullMeans: false,
  }),
  neftune_noise_alpha: training(z.number().min(0).optional(), {
    description:
      "NEFTune: noise on the embeddings of training, even within alpha / sqrt(tokens of the microbatch's longest row x hidden size); not of the reference and of evaluations",
    float32: true,
  }),
  gradient_checkpointing: training(z.boolean().default(false), {
    description:
      "keep only the inputs of layers and compute the rest again in the backward pass: less memory, the same gradients, more time (TRL's default is true)",
  }),
  data_seed: training(count.min(0).max(0xffffffff).optional(), {
    description: "the seed of the order of the rows and of their pairs; default seed",
  }),
  seed: training(count.min(0).max(0xffffffff).default(42), {
    description: "the same seed on the same adapter, with the same kernels chosen, gives the same model, bit for bit",
  }),
};

export const optimizerOptions = {
  ...scheduleOptions,
  optim: optimizer(z.enum(OPTIMIZERS).default("adamw_torch"), {
    description:
      "AdamW under its names in transformers; those with 8bit keep the moments of parameters of 4096 elements and more as codes of eight bits (2 bytes a parameter in place of 8); nothing is paged",
    nullMeans: "adamw_torch",
    valueAliases: {
      ...{ adamw_torch_xla: "adamw_torch", adamw_torch_npu_fused: "adamw_torch", adamw_anyprecision: "adamw_torch" },
      // Codes of other libraries, of as many bits or fewer.
      ...{ adamw_torch_8bit: "adamw_8bit", adamw_torch_4bit: "adamw_8bit" },
    },
  }),
  weight_decay: optimizer(z.number().min(0).default(0), {
    description: "decoupled decay of all weights but biases and norms",
    float32: true,
  }),
  adam_beta1: optimizer(z.number().min(0).lt(1).default(0.9), {
    description: "how much of the gradient's running mean each update keeps",
    float32: true,
  }),
  adam_beta2: optimizer(z.number().min(0).lt(1).default(0.999), {
    description: "how much of the gradient's running mean square each update keeps",
    float32: true,
  }),
  adam_epsilon: optimizer(z.number().positive().default(1e-8), {
    description: "added to the root of the mean square",
    float32: true,
  }),
  max_grad_norm: optimizer(z.number().min(0).default(1), {
    description: "scale gradients down to this norm; 0 for no clipping",
    float32: true,
  }),
};

/**
 * What a run computes in.
 *
 * @throws ConfigError for both of fp16 and bf16
 */
export function precisionOf({ fp16, bf16 }: { readonly fp16: boolean; readonly bf16: boolean }): Precision {
  if (fp16 && bf16) {
    throw new ConfigError("fp16 and bf16 are both true: keep one; fp16 has the products of bf16 and less memory.");
  }
  return fp16 ? "fp16" : bf16 ? "bf16" : "f32";
}

interface SamplingOptions {
  readonly shuffle_dataset: boolean;
  readonly train_sampling_strategy: "random" | "sequential" | "group_by_length";
  readonly group_by_length: boolean;
}

/**
 * Whether rows are shuffled, and whether rows of similar length come together.
 *
 * @throws ConfigError where two options contradict each other
 */
export function samplingOf(options: SamplingOptions): { readonly shuffle: boolean; readonly groupByLength: boolean } {
  const { shuffle_dataset, train_sampling_strategy: strategy, group_by_length } = options;
  const groupByLength = group_by_length || strategy === "group_by_length";
  const shuffle = shuffle_dataset && strategy !== "sequential";
  if (groupByLength && !shuffle) {
    throw new ConfigError(
      `group_by_length puts rows in a random order of its own, but ${shuffle_dataset ? 'train_sampling_strategy "sequential"' : "shuffle_dataset false"} keeps the order of the file: keep one.`,
    );
  }
  return { shuffle, groupByLength };
}
