/** The options, the help text and the checks of `kto sft`. What it does is in commands/sft.ts. */
import { parseSftConfig, sftOptions, sftParseContext } from "../../kto/options/sft.ts";
import { describe } from "../options/description.ts";

export const sftDescription = describe({
  examples: [
    "kto sft --model_name_or_path ./model --dataset_name answers.jsonl --output_dir ./tuned",
    "kto train --model_name_or_path ./tuned --dataset_name feedback.jsonl --output_dir ./aligned",
  ],
  schema: sftOptions,
  context: sftParseContext,
  parse: ({ values, ...context }) => parseSftConfig(values, context.where, context),
});
