/** Options that several commands have, taken from the trainer's so that names, ranges and defaults are the same. */
import * as z from "zod";
import { ktoOptions } from "../../kto/options/kto.ts";
import { option, reuse } from "../../kto/options/parse.ts";

const trainer = ktoOptions.shape;

/** Every command has these. */
export const commonOptions = {
  adapter: trainer.adapter,
  json: trainer.json,
  log_level: trainer.log_level,
  debug: trainer.debug,
};

/** How a model that is not trained is loaded. */
export const modelOptions = {
  model_revision: trainer.model_revision,
  dtype: trainer.dtype,
  adapter_name_or_path: reuse(trainer.adapter_name_or_path, {
    group: "Model and data",
    description: "a LoRA adapter for the model (PEFT folder)",
  }),
};

/** How feedback becomes token ids; for commands that read it. */
export const feedbackOptions = {
  dataset_name: trainer.dataset_name,
  dataset_config: trainer.dataset_config,
  dataset_train_split: trainer.dataset_train_split,
  column_mapping: trainer.column_mapping,
  max_length: trainer.max_length,
  append_eos: trainer.append_eos,
  chat_template_path: trainer.chat_template_path,
  chat_template_kwargs: trainer.chat_template_kwargs,
  overwrite_cache: trainer.overwrite_cache,
};

/** The reference model of commands that compare two models and train none. */
export const referenceModel = reuse(trainer.ref_model_name_or_path, {
  description: "the reference model, for log-ratios",
});

export const evalBatchSize = option(z.number().int().min(1).default(8), {
  group: "Model and data",
  description: "rows computed at once",
  expects: "a whole number of at least 1",
  aliases: ["batch_size"],
});
