/** Options that several commands have, taken from those that train so that names, ranges and defaults are the same. */
import * as z from "zod";
import { referenceModelOption } from "../../kto/options/method.ts";
import { lengthOptions } from "../../kto/options/model.ts";
import { optionGroup, reuse } from "../../kto/options/option.ts";
import { quantizationOptions } from "../../kto/options/quantization.ts";
import { runOptions } from "../../kto/options/run.ts";

const { option } = optionGroup("Model and data");

/** Every command has these. */
export const commonOptions = pick("adapter", "json", "log_level", "quiet", "debug");

/** Options of commands whose work several ranks share. */
export const rankOptions = pick("rank_timeout", "log_ranks");

/** How a model that is not trained is loaded. */
export const loadedModelOptions = {
  ...pick("model_revision", "dtype"),
  ...quantizationOptions,
  adapter_name_or_path: reuse(runOptions.adapter_name_or_path, {
    group: "Model and data",
    description: "a LoRA adapter for the model (PEFT folder)",
  }),
};

/** How feedback becomes token ids; for commands that read it. */
export const feedbackOptions = {
  ...pick(
    ...(["dataset_name", "dataset_config", "dataset_train_split", "column_mapping"] as const),
    ...(["label_threshold", "max_samples", "max_length", "append_eos", "text_as_chat"] as const),
    ...(["prompt_format", "system_format", "completion_format", "chat_template_path"] as const),
    ...(["chat_template_name", "chat_template_kwargs", "dataset_num_proc", "overwrite_cache"] as const),
  ),
  ...lengthOptions,
};

/** The reference model of commands that compare two models and train none. */
export const referenceModel = reuse(referenceModelOption.ref_model_name_or_path, {
  description: "the reference model, for log-ratios",
});

export const evalBatchSize = option(z.number().int().min(1).default(8), {
  description: "rows computed at the same time",
  aliases: ["batch_size"],
});

function pick<Name extends keyof typeof runOptions>(...names: Name[]): Pick<typeof runOptions, Name> {
  return Object.fromEntries(names.map((name) => [name, runOptions[name]])) as Pick<typeof runOptions, Name>;
}
