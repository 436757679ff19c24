/** The options, the help text and the checks of `kto merge`. What it does is in commands/merge.ts. */
import * as z from "zod";
import { ktoOptions } from "../../kto/options/kto.ts";
import { option, reuse } from "../../kto/options/option.ts";
import { quantizationOptions } from "../../kto/options/quantization.ts";
import { describe } from "../options/description.ts";
import { commonOptions } from "../options/shared.ts";

const models = "Models";
const { adapter: _, ...outputOptions } = commonOptions;

const schema = z.strictObject({
  adapter_name_or_path: option(z.string().min(1), {
    group: models,
    description: "the adapter (PEFT folder)",
    expects: "a folder with adapter_config.json",
    placeholder: "folder",
    aliases: ["lora_model_name_or_path"],
  }),
  model_name_or_path: option(z.string().min(1).optional(), {
    group: models,
    description: "the base model (default: the one that the adapter names)",
    expects: "a Hugging Face model folder or hub id",
    placeholder: "model",
    aliases: ["model", "base_model"],
  }),
  output_dir: reuse(ktoOptions.shape.output_dir, { group: models, description: "the folder for the whole model" }),
  overwrite_output_dir: reuse(ktoOptions.shape.overwrite_output_dir, { group: models }),
  save_dtype: option(z.enum(["auto", "float32", "float16", "bfloat16"]).default("auto"), {
    group: models,
    description: "numbers in the files; auto as the base model's files store them, bfloat16 for a quantised base",
    aliases: ["dtype"],
    nullMeans: "auto",
  }),
  ...quantizationOptions,
  max_shard_size: reuse(ktoOptions.shape.max_shard_size, { group: models }),
  ...outputOptions,
});

export type MergeCommandOptions = Readonly<z.output<typeof schema>>;

export const mergeDescription = describe({
  examples: [
    "kto merge --adapter_name_or_path ./adapter --output_dir ./merged",
    "kto merge --adapter_name_or_path ./adapter --model_name_or_path ./base --output_dir ./merged --save_dtype float32",
  ],
  schema,
});
