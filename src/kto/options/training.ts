/**
 * The options of the updates, under transformers' names: rows, schedule, AdamW. Also the order of the rows, which is
 * said in several ways.
 */
import * as z from "zod";
import { ConfigError } from "../../errors.ts";
import { option } from "./parse.ts";

const training = "Training";
const optimizer = "Optimizer (AdamW)";
const count = z.number().int();

export const trainingOptions = {
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
  fp16: option(z.boolean().default(false), {
    group: training,
    description:
      "keep activations as f16: about half their memory, gradients right to about 1%; what is computed, weights, gradients and moments stay f32, so there is no loss scale (the adapter must have shader-f16)",
    expects: "true or false",
  }),
  gradient_checkpointing: option(z.boolean().default(false), {
    group: training,
    description:
      "keep only the inputs of layers and compute the rest again in the backward pass: less memory, the same gradients, more time (TRL's default is true)",
    expects: "true or false",
  }),
  seed: option(count.min(0).max(0xffffffff).default(42), {
    group: training,
    description: "the same seed on the same adapter, with the same kernels chosen, gives the same model, bit for bit",
    expects: "a whole number from 0 to 4294967295",
  }),
};

export const optimizerOptions = {
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
};

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
