/** The options, the help text and the checks of `kto logps`. What it does is in commands/logps.ts. */
import * as z from "zod";
import { ktoOptions } from "../../kto/options/kto.ts";
import { reuse } from "../../kto/options/option.ts";
import { describe } from "../options/description.ts";
import {
  commonOptions,
  evalBatchSize,
  feedbackOptions,
  loadedModelOptions,
  rankOptions,
  referenceModel,
} from "../options/shared.ts";

const schema = z.strictObject({
  model_name_or_path: reuse(ktoOptions.shape.model_name_or_path, { description: "the model" }),
  ref_model_name_or_path: referenceModel,
  ...loadedModelOptions,
  ...feedbackOptions,
  per_device_eval_batch_size: evalBatchSize,
  ...rankOptions,
  ...commonOptions,
});

export type LogpsOptions = Readonly<z.output<typeof schema>>;

export const logpsDescription = describe({
  examples: ["kto logps --model_name_or_path ./model --dataset_name feedback.jsonl --json"],
  schema,
});
