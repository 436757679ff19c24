/** `kto train`: KTO training from a feedback file and a model folder to a model folder. */
import { type KtoConfig, ktoOptions, ktoParseContext, parseKtoConfig } from "../kto/config.ts";
import { command } from "./command.ts";
import type { Output } from "./output.ts";

export const trainCommand = command({
  name: "train",
  summary: "align a model with thumbs-up/thumbs-down feedback (KTO)",
  examples: [
    "kto train --model_name_or_path ./model --dataset_name feedback.jsonl --output_dir ./aligned",
    "kto train --config run.yaml beta=0.2 learning_rate=1e-6",
  ],
  schema: ktoOptions,
  context: ktoParseContext,
  parse: ({ values, where }) => parseKtoConfig(values, where),
  run: runTrain,
});

async function runTrain(_config: KtoConfig, _output: Output): Promise<void> {
  throw new Error("kto train is not wired yet");
}
