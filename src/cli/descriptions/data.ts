/** The options, the help text and the checks of `kto data`. What it does is in commands/data.ts. */
import * as z from "zod";
import { ktoOptions } from "../../kto/options/kto.ts";
import { option, reuse } from "../../kto/options/option.ts";
import { describe } from "../options/description.ts";
import { commonOptions, feedbackOptions } from "../options/shared.ts";

const { adapter: _, ...outputOptions } = commonOptions;

const schema = z.strictObject({
  ...feedbackOptions,
  model_name_or_path: reuse(ktoOptions.shape.ref_model_name_or_path, {
    aliases: ["model", "base_model"],
    description: "the model whose tokens are counted and shown (default: none, and characters are)",
  }),
  model_revision: ktoOptions.shape.model_revision,
  labels: option(z.enum(["required", "optional"]).default("required"), {
    group: "Model and data",
    description: "optional: rows may lack a label, as kto sft takes them, and are then desirable",
  }),
  output: option(
    z
      .string()
      .regex(/\.jsonl$/i)
      .optional(),
    {
      group: "Output",
      description: "write the rows as lines of prompt, completion, label",
      expects: "a path that ends in .jsonl",
      placeholder: "file.jsonl",
    },
  ),
  ...outputOptions,
});

export type DataOptions = Readonly<z.output<typeof schema>>;

export const dataDescription = describe({
  examples: [
    "kto data --dataset_name feedback.csv --model_name_or_path ./model",
    "kto data --dataset_name pairs.parquet --output unpaired.jsonl",
  ],
  schema,
});
