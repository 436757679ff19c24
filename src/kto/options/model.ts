/** The options that say which model and which rows, under TRL's names. */
import * as z from "zod";
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
  column_mapping: option(z.record(z.string(), z.union([z.string(), z.record(z.string(), z.unknown())])).optional(), {
    description: "the file's name for each of our columns, where it differs, also for the rating of an export",
    expects: 'a JSON object or a mapping, such as {"prompt": "question", "label": "thumb"}',
  }),
  label_threshold: option(z.number().optional(), {
    description: "for labels on a scale: numbers from here on are desirable, smaller ones undesirable",
    expects: "a number, such as 4 on a scale from 1 to 5",
  }),
  max_length: trainerOption(count.min(2).default(1024), {
    description: "tokens of prompt and completion together, at most the model's context; longer rows are cut",
    nullMeans: Number.MAX_SAFE_INTEGER,
  }),
  append_eos: option(z.boolean().default(true), {
    description: "end completions of text with the tokenizer's EOS token; false for texts that were cut short",
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
  // A symbol as key holds what JavaScript does not keep of the numbers (exact-json.ts).
  chat_template_kwargs: option(z.record(z.union([z.string(), z.symbol()]), z.unknown()).optional(), {
    exact: true,
    description: "variables of the chat template, such as enable_thinking; a row's own go before them",
    expects: 'a JSON object or a mapping, such as {"enable_thinking": false}',
  }),
  overwrite_cache: option(z.boolean().default(false), {
    description: "compute token ids again, also those that the cache holds",
  }),
  shuffle_dataset: trainerOption(z.boolean().default(true), {
    description: "draw the rows in a seeded random order, another one in each epoch",
  }),
};
