/** The options, the help text and the checks of `kto init`. What it does is in commands/init.ts. */
import * as z from "zod";
import { ktoOptions } from "../../kto/options/kto.ts";
import { option } from "../../kto/options/option.ts";
import { describe } from "../options/description.ts";
import { commonOptions, feedbackOptions } from "../options/shared.ts";

const group = "Configuration";

const schema = z.strictObject({
  model_name_or_path: ktoOptions.shape.model_name_or_path,
  model_revision: ktoOptions.shape.model_revision,
  ...feedbackOptions,
  output_dir: option(z.string().min(1).default("./aligned"), {
    group,
    description: "the folder that the trained model will be in",
    expects: "a folder for the results",
    placeholder: "folder",
  }),
  output: option(z.string().min(1).default("run.yaml"), {
    group,
    description: 'the configuration file to write; "-" writes it to stdout',
    expects: 'the name of a file, or "-"',
    placeholder: "file",
  }),
  overwrite: option(z.boolean().default(false), { group, description: "replace a file of this name" }),
  device_memory: option(ktoOptions.shape.max_shard_size.unwrap().optional(), {
    group,
    description:
      "memory that the run may take on the adapter, such as 24GB (default: 8GB on a GPU, whose memory WebGPU does not tell, and half of the machine's on a software adapter)",
    expects: 'a size such as "24GB" or a number of bytes',
    placeholder: "size",
  }),
  ...commonOptions,
});

export type InitOptions = Readonly<z.output<typeof schema>>;

export const initDescription = describe({
  examples: [
    "kto init --model_name_or_path ./model --dataset_name feedback.jsonl",
    "kto init --model_name_or_path Qwen/Qwen3-0.6B --dataset_name feedback.jsonl --device_memory 24GB --output qwen.yaml",
  ],
  schema,
});
