/** `kto merge`: merges a LoRA adapter into its base model and writes the whole model. Needs no GPU. */

import * as z from "zod";
import { mergeAdapter } from "../../engine/model/merge.ts";
import { readAdapterConfig } from "../../engine/model/peft-config.ts";
import { ConfigError } from "../../errors.ts";
import { ktoOptions } from "../../kto/options/kto.ts";
import { option, reuse } from "../../kto/options/option.ts";
import { sizeInBytes } from "../../kto/options/output.ts";
import { parseOptions } from "../../kto/options/parse.ts";
import { command } from "../options/command.ts";
import { commonOptions } from "../options/shared.ts";
import { formatOf, modelFolder } from "../session/models.ts";
import { checkKind, checkOutputFolder } from "../session/rows.ts";
import type { Output } from "../terminal/output.ts";

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
    description: "numbers in the files; auto as the base model's files store them",
    aliases: ["dtype"],
    nullMeans: "auto",
  }),
  max_shard_size: reuse(ktoOptions.shape.max_shard_size, { group: models }),
  ...outputOptions,
});

export type MergeCommandOptions = Readonly<z.output<typeof schema>>;

export const mergeCommand = command({
  examples: [
    "kto merge --adapter_name_or_path ./adapter --output_dir ./merged",
    "kto merge --adapter_name_or_path ./adapter --model_name_or_path ./base --output_dir ./merged --save_dtype float32",
  ],
  schema,
  parse: ({ values, where }) => parseOptions(schema, values, { where }),
  run: runMerge,
});

async function runMerge(options: MergeCommandOptions, output: Output): Promise<void> {
  const adapter = await modelFolder(options.adapter_name_or_path, output);
  const { baseModel } = await readAdapterConfig(adapter);
  const base = options.model_name_or_path ?? baseModel;
  if (base === undefined) {
    throw new ConfigError(`The adapter ${adapter} does not say what its base model is; name it as model_name_or_path.`);
  }
  await checkOutputFolder(options);
  await checkKind(options.output_dir, false);
  const dtype = formatOf(options.save_dtype);
  await mergeAdapter(await modelFolder(base, output), adapter, options.output_dir, {
    ...(dtype === undefined ? {} : { dtype }),
    maxShardBytes: sizeInBytes(options.max_shard_size),
    onWarning: (sentence) => output.warning(sentence),
  });
  if (output.json) output.jsonLine({ output_dir: options.output_dir, base_model: base, adapter });
  else output.result(`merged ${adapter} into ${base}; the model is in ${options.output_dir}`);
}
