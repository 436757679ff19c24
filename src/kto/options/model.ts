/** The options that say which model and which rows, under TRL's names. */
import * as z from "zod";
import { knownTemplateNames } from "../../engine/known-templates.ts";
import { optionGroup } from "./option.ts";

const { option, trainerOption } = optionGroup("Model and data");
const count = z.number().int();

/** Other names of dtypes that people write. */
export const DTYPE_ALIASES = {
  fp32: "float32",
  f32: "float32",
  fp16: "float16",
  f16: "float16",
  bf16: "bfloat16",
  half: "float16",
};

export const modelNameOption = {
  model_name_or_path: option(z.string().min(1), {
    description: "the model to train: a local folder, or an id on the Hugging Face hub",
    expects: 'a local Hugging Face model folder or a hub id such as "owner/name"',
    placeholder: "model",
    aliases: ["model", "base_model"],
  }),
};

export const modelOptions = {
  ...modelNameOption,
  model_revision: option(z.string().min(1).default("main"), {
    description: "the branch, tag or commit of a model on the hub; a reference of another name is taken from main",
    expects: "a branch, a tag or a commit",
    placeholder: "revision",
    nullMeans: "main",
  }),
  dataset_name: option(z.string().min(1), {
    description:
      "the feedback: rows of prompt, completion, label, or of prompt, chosen, rejected, or what a chat program exports",
    expects: "a local feedback file, several with commas between them, a folder, or the hub id of a data set",
    placeholder: "data",
    aliases: ["dataset"],
  }),
  dataset_config: option(z.string().min(1).optional(), {
    description: "the subset of a data set: a name from its README, a folder, or how its files' names begin",
    expects: "the name of a subset",
    placeholder: "name",
  }),
  dataset_train_split: option(z.string().min(1).default("train"), {
    description: "the split of a folder of files, or a slice of the rows, such as train[:100] or train[10%:]",
    expects: "the name of a split, or a slice of one such as train[:100]",
    placeholder: "split",
  }),
  column_mapping: option(
    z.record(z.string(), z.union([z.string(), z.array(z.string()), z.record(z.string(), z.unknown())])).optional(),
    {
      description: "the file's name for each of our columns, where it differs, also for the rating of an export",
      expects: 'a JSON object or a mapping, such as {"prompt": "question", "label": "thumb"}',
    },
  ),
  label_threshold: option(z.number().optional(), {
    description: "for labels on a scale: numbers from here on are desirable, smaller ones undesirable",
    expects: "a number, such as 4 on a scale from 1 to 5",
  }),
  max_samples: option(count.min(1).optional(), {
    description:
      "the most rows that are read of the training data and of the data that is evaluated on; the first ones",
    placeholder: "rows",
  }),
  max_length: trainerOption(count.min(2).default(1024), {
    description: "tokens of prompt and completion together, at most the model's context; longer rows are cut",
    nullMeans: Number.MAX_SAFE_INTEGER,
  }),
  append_eos: option(z.boolean().default(true), {
    description: "end completions of text with the tokenizer's EOS token; false for texts that were cut short",
  }),
  text_as_chat: option(z.boolean().default(false), {
    description: "rows of text are a user's message and the assistant's answer, which go through the chat template",
  }),
  prompt_format: option(z.string().min(1).optional(), {
    description: "what is put around a text prompt: {prompt} stands for it, {system} for the row's system prompt",
    expects: "a text with {prompt} in it",
    placeholder: "text",
  }),
  system_format: option(z.string().min(1).optional(), {
    description: "what {system} of prompt_format becomes in a row with a system prompt (default: the prompt itself)",
    expects: "a text with {system} in it",
    placeholder: "text",
  }),
  completion_format: option(z.string().min(1).optional(), {
    description: "what is put around a text completion: {completion} stands for it",
    expects: "a text with {completion} in it",
    placeholder: "text",
  }),
  dtype: option(z.enum(["auto", "float32", "float16", "bfloat16"]).default("auto"), {
    description:
      "number format of the model's matrices: auto as its files store them; what is trained is kept in float32",
    aliases: ["torch_dtype"],
    valueAliases: DTYPE_ALIASES,
    nullMeans: "auto",
  }),
  chat_template_path: option(z.string().min(1).optional(), {
    description: "the chat template for rows of messages (default: the model folder's own)",
    expects: "a .jinja file or a folder that holds a chat template",
    placeholder: "path",
  }),
  chat_template_name: option(z.enum(knownTemplateNames).optional(), {
    description:
      "the name that other trainers have for a chat template; the model's own must write the same, or the run is refused",
  }),
  // A symbol as key holds what JavaScript does not keep of the numbers (exact-json.ts).
  chat_template_kwargs: option(z.record(z.union([z.string(), z.symbol()]), z.unknown()).optional(), {
    exact: true,
    description: "variables of the chat template, such as enable_thinking; a row's own go before them",
    expects: 'a JSON object or a mapping, such as {"enable_thinking": false}',
  }),
  dataset_num_proc: option(count.min(1).default(1), {
    description: "threads that render and tokenize rows, at most one for each core; the ids are the same",
    nullMeans: 1,
  }),
  overwrite_cache: option(z.boolean().default(false), {
    description: "compute token ids again, also those that the cache holds",
  }),
  shuffle_dataset: trainerOption(z.boolean().default(true), {
    description: "draw the rows in a seeded random order, another one in each epoch",
  }),
};

/** How rows that are longer than max_length are cut, where more than their end is. */
export const lengthOptions = {
  max_prompt_length: option(count.min(1).optional(), {
    description:
      "in rows longer than max_length prompts are cut to so many tokens, and completions to the rest of max_length; default 512 with truncation_mode keep_end or keep_start, else prompts are not cut",
  }),
  truncation_mode: option(z.enum(["keep_end", "keep_start", "proportional"]).optional(), {
    description:
      "the end of a prompt that max_prompt_length keeps, default keep_end; proportional: prompt and completion share max_length by their lengths, as in LLaMA-Factory",
  }),
  excess_length_strategy: option(z.enum(["truncate", "drop", "raise"]).default("truncate"), {
    description: "rows longer than max_length are cut, dropped or refused",
    nullMeans: "truncate",
  }),
};
