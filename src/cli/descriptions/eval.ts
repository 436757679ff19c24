/** The options, the help text and the checks of `kto eval`. What it does is in commands/eval.ts. */
import * as z from "zod";
import { ConfigError } from "../../errors.ts";
import { asksForJudge, judgeOptions } from "../../kto/options/judge.ts";
import { ktoOptions } from "../../kto/options/kto.ts";
import { option, reuse } from "../../kto/options/option.ts";
import { parseOptions } from "../../kto/options/parse.ts";
import { describe, type OptionInput } from "../options/description.ts";
import { chatTemplateOptions, checkSampling, samplingOptions } from "../options/sampling.ts";
import { commonOptions, evalBatchSize, feedbackOptions, loadedModelOptions, rankOptions } from "../options/shared.ts";

const method = "KTO";
const answers = "Answers to judge";
const { dataset_train_split: _, ...feedback } = feedbackOptions;

const schema = z.strictObject({
  model_name_or_path: reuse(ktoOptions.shape.model_name_or_path, { description: "the model" }),
  ref_model_name_or_path: reuse(ktoOptions.shape.ref_model_name_or_path, {
    description: "the reference, and the judge's other model (default: an adapter's base)",
  }),
  ...loadedModelOptions,
  ...feedback,
  dataset_name: reuse(ktoOptions.shape.ref_model_name_or_path, {
    aliases: ["dataset"],
    description: "feedback for losses and rewards; without prompts of their own, its prompts are judged",
    expects: "a local feedback file or the hub id of a data set",
    placeholder: "data",
  }),
  dataset_test_split: reuse(ktoOptions.shape.dataset_test_split, {
    group: "Model and data",
    description: "which split of a data set, also a slice of it, such as test[:100]",
    aliases: ["dataset_train_split"],
  }),
  per_device_eval_batch_size: evalBatchSize,
  beta: ktoOptions.shape.beta,
  desirable_weight: ktoOptions.shape.desirable_weight,
  undesirable_weight: ktoOptions.shape.undesirable_weight,
  loss_type: reuse(ktoOptions.shape.loss_type, { group: method }),
  ...judgeOptions,
  prompt: option(z.array(z.string()).default([]), {
    group: answers,
    description: "a prompt for both models; may be given several times",
    aliases: ["prompts"],
  }),
  prompts_file: option(z.string().min(1).optional(), {
    group: answers,
    description: "prompts from a file: one on each line, or prompt (or messages) of each row of a .jsonl file",
    expects: "a text or .jsonl file",
    placeholder: "file",
  }),
  judge_prompts: option(z.number().int().min(1).default(100), {
    group: answers,
    description: "prompts that are judged at most",
  }),
  max_new_tokens: option(z.number().int().min(1).default(256), {
    group: answers,
    description: "the longest answer",
  }),
  ...samplingOptions,
  chat: option(z.boolean().default(false), {
    group: answers,
    description: "prompts are a user's messages, put into the chat template; implied by system",
  }),
  system: reuse(chatTemplateOptions.system, { group: answers }),
  ...rankOptions,
  ...commonOptions,
});

export type EvalOptions = Readonly<z.output<typeof schema>>;

export const evalDescription = describe({
  examples: [
    "kto eval --model_name_or_path ./aligned --ref_model_name_or_path ./model --dataset_name feedback.jsonl",
    "kto eval --model_name_or_path ./aligned --ref_model_name_or_path ./model --prompts_file prompts.txt --judge judge.mjs",
    "kto eval --model_name_or_path ./adapter --prompts_file prompts.txt --judge_base_url http://localhost:8080/v1 --judge_model qwen3",
  ],
  schema,
  parse: parseEvalOptions,
});

/** @throws ConfigError */
export function parseEvalOptions({ values, ...context }: OptionInput): EvalOptions {
  const options = parseOptions(schema, values, context);
  checkSampling(options);
  const judged = asksForJudge(options);
  const hasPrompts = options.prompt.length > 0 || options.prompts_file !== undefined;
  if (!judged && hasPrompts) {
    throw new ConfigError("there are prompts but no judge of the answers: give judge, or judge_model.");
  }
  if (options.dataset_name === undefined && !judged) {
    throw new ConfigError("there is nothing to evaluate: give dataset_name, or prompts and a judge.");
  }
  if (options.dataset_name === undefined && !hasPrompts) {
    throw new ConfigError("the judge has no prompts: give prompt, prompts_file or dataset_name.");
  }
  return { ...options, chat: options.chat || options.system !== undefined };
}
