/** `kto logps`: log-probability of each completion, and its log-ratio to a reference model, row by row. */
import * as z from "zod";
import { ktoOptions } from "../kto/config.ts";
import { parseOptions } from "../kto/parse-options.ts";
import { command } from "./command.ts";
import type { Output } from "./output.ts";
import { commonOptions, evalBatchSize, referenceModel, reuse } from "./shared-options.ts";

const schema = z.strictObject({
  model_name_or_path: reuse(ktoOptions.shape.model_name_or_path, { description: "the model" }),
  ref_model_name_or_path: referenceModel,
  dataset_name: ktoOptions.shape.dataset_name,
  max_length: ktoOptions.shape.max_length,
  per_device_eval_batch_size: evalBatchSize,
  ...commonOptions,
});

export type LogpsOptions = Readonly<z.output<typeof schema>>;

export const logpsCommand = command({
  name: "logps",
  summary: "log-probability and log-ratio of every row",
  examples: ["kto logps --model_name_or_path ./model --dataset_name feedback.jsonl --json"],
  schema,
  parse: ({ values, where }) => parseOptions(schema, values, { where }),
  run: runLogps,
});

async function runLogps(_options: LogpsOptions, _output: Output): Promise<void> {
  throw new Error("kto logps is not wired yet");
}
