/** The options, the help text and the checks of `kto chat`. What it does is in commands/chat.ts. */
import * as z from "zod";
import { ktoOptions } from "../../kto/options/kto.ts";
import { option, reuse } from "../../kto/options/option.ts";
import { parseOptions } from "../../kto/options/parse.ts";
import { describe } from "../options/description.ts";
import { chatTemplateOptions, checkSampling, samplingOptions } from "../options/sampling.ts";
import { commonOptions, loadedModelOptions } from "../options/shared.ts";

const schema = z.strictObject({
  model_name_or_path: reuse(ktoOptions.shape.model_name_or_path, { group: "Model", description: "the model" }),
  ...loadedModelOptions,
  model_revision: reuse(ktoOptions.shape.model_revision, { group: "Model" }),
  ...chatTemplateOptions,
  max_new_tokens: option(z.number().int().min(1).default(512), {
    group: "Sampling",
    description: "longest answer",
  }),
  max_length: option(z.number().int().min(2).default(4096), {
    group: "Chat",
    description: "tokens of the whole conversation that there is memory for; at most the model's context",
  }),
  ...samplingOptions,
  ...commonOptions,
});

export type ChatOptions = Readonly<z.output<typeof schema>>;

export const chatDescription = describe({
  examples: [
    'kto chat --model_name_or_path ./aligned --system "Answer briefly."',
    "kto chat --model_name_or_path ./aligned --greedy --json < questions.txt",
  ],
  schema,
  parse: ({ values, ...context }) => {
    const options = parseOptions(schema, values, context);
    checkSampling(options);
    return options;
  },
});
