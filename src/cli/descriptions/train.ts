/** The options, the help text and the checks of `kto train`. What it does is in commands/train.ts. */
import { dialects } from "../../kto/options/dialects/all.ts";
import { ktoOptions, ktoParseContext, parseKtoConfig } from "../../kto/options/kto.ts";
import { describe } from "../options/description.ts";

export const trainDescription = describe({
  examples: [
    "kto train --model_name_or_path ./model --dataset_name feedback.jsonl --output_dir ./aligned",
    "kto train --config run.yaml beta=0.2 learning_rate=1e-6",
  ],
  schema: ktoOptions,
  context: ktoParseContext,
  dialects,
  parse: ({ values, ...context }) => parseKtoConfig(values, context.where, context),
});
