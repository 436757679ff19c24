/** The options, the help text and the checks of `kto export`. What it does is in commands/export.ts. */
import * as z from "zod";
import { ConfigError } from "../../errors.ts";
import { optionGroup, reuse } from "../../kto/options/option.ts";
import { parseOptions } from "../../kto/options/parse.ts";
import { describe } from "../options/description.ts";
import { commonOptions, loadedModelOptions } from "../options/shared.ts";

const { option } = optionGroup("Model");
const { adapter: _, ...outputOptions } = commonOptions;

const schema = z.strictObject({
  model_name_or_path: option(z.string().min(1).optional(), {
    description: "the model; with an adapter its base (default: the one that the adapter names)",
    expects: "a Hugging Face model folder or hub id",
    placeholder: "model",
    aliases: ["model", "base_model"],
  }),
  model_revision: reuse(loadedModelOptions.model_revision, { group: "Model" }),
  adapter_name_or_path: option(z.string().min(1).optional(), {
    description: "a LoRA adapter (PEFT folder), written as llama.cpp's adapter",
    expects: "a folder with adapter_config.json",
    placeholder: "folder",
    aliases: ["lora_model_name_or_path"],
  }),
  merge_adapter: option(z.boolean().default(false), {
    description: "write the whole model with the adapter merged into it instead",
  }),
  gguf: option(z.enum(["f32", "f16", "bf16", "q8_0", "q4_0"]), {
    description: "write a GGUF file with numbers of this type",
    aliases: ["outtype"],
  }),
  output: option(z.string().min(1), {
    description: "the file to write; a Modelfile for Ollama lies beside it",
    expects: "a file for the result",
    placeholder: "file",
    aliases: ["outfile"],
  }),
  ...outputOptions,
});

export type ExportOptions = Readonly<z.output<typeof schema>>;

export const exportDescription = describe({
  examples: [
    "kto export --model_name_or_path ./aligned --gguf q8_0 --output aligned.gguf",
    "kto export --adapter_name_or_path ./adapter --gguf f16 --output adapter.gguf",
    "kto export --adapter_name_or_path ./adapter --merge_adapter --gguf q4_0 --output merged.gguf",
  ],
  schema,
  parse: ({ values, where }) => {
    const options: ExportOptions = parseOptions(schema, values, { where });
    if (options.model_name_or_path === undefined && options.adapter_name_or_path === undefined) {
      throw new ConfigError("Nothing to export is named: give model_name_or_path or adapter_name_or_path.");
    }
    return options;
  },
});
