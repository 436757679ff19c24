/** The options, the help text and the checks of `kto generate`. What it does is in commands/generate.ts. */
import * as z from "zod";
import { ConfigError } from "../../errors.ts";
import { ktoOptions } from "../../kto/options/kto.ts";
import { option, reuse } from "../../kto/options/option.ts";
import { parseOptions } from "../../kto/options/parse.ts";
import { describe, type OptionInput } from "../options/description.ts";
import { chatTemplateOptions, checkSampling, samplingOptions } from "../options/sampling.ts";
import { commonOptions, loadedModelOptions, rankOptions } from "../options/shared.ts";

const prompts = "Model and prompts";
const sampling = "Sampling";

const schema = z.strictObject({
  model_name_or_path: reuse(ktoOptions.shape.model_name_or_path, { group: prompts, description: "the model" }),
  ...loadedModelOptions,
  model_revision: reuse(ktoOptions.shape.model_revision, { group: prompts }),
  prompt: option(z.array(z.string()).default([]), {
    group: prompts,
    description: "a text to continue; may be given several times",
    aliases: ["prompts"],
  }),
  prompts_file: option(z.string().min(1).optional(), {
    group: prompts,
    description:
      "prompts from a file: one on each line, or prompt (or messages) of each row of a .jsonl file, with its tools and chat_template_kwargs",
    expects: "a text or .jsonl file",
    placeholder: "file",
  }),
  max_new_tokens: option(z.number().int().min(1).default(64), {
    group: sampling,
    description: "longest continuation",
  }),
  num_return_sequences: option(z.number().int().min(1).default(1), {
    group: sampling,
    description: "continuations of each prompt",
    aliases: ["num_samples"],
  }),
  stream: option(z.boolean().optional(), {
    group: sampling,
    description: "print the text as it comes; default: on a terminal, where there is one continuation",
  }),
  chat: option(z.boolean().default(false), {
    group: "Chat",
    description: "prompts are a user's messages, put into the chat template; implied by the options below",
  }),
  ...chatTemplateOptions,
  ...samplingOptions,
  ...rankOptions,
  ...commonOptions,
});

export type GenerateCommandOptions = Readonly<z.output<typeof schema>>;

export const generateDescription = describe({
  examples: [
    'kto generate --model_name_or_path ./aligned --prompt "Once upon a time" --temperature 0.8',
    "kto generate --model_name_or_path ./aligned --prompts_file openings.txt --greedy --json",
  ],
  schema,
  parse: parseGenerateOptions,
});

/** Checks the options; `greedy` of the result also covers do_sample false and temperature 0. */
export function parseGenerateOptions({ values, ...context }: OptionInput): GenerateCommandOptions {
  const options = parseOptions(schema, values, context);
  if (options.prompt.length === 0 && options.prompts_file === undefined) {
    throw new ConfigError('there is nothing to continue: give --prompt "text" or --prompts_file file.');
  }
  checkSampling(options);
  const greedy = options.greedy || options.do_sample === false || options.temperature === 0;
  if (greedy) refuseSeveral(options);
  const { system, chat_template_path } = options;
  const chat = options.chat || system !== undefined || chat_template_path !== undefined;
  return { ...options, greedy, chat };
}

/** Greedy decoding finds the same continuation each time. */
export function refuseSeveral(options: Pick<GenerateCommandOptions, "num_return_sequences">): void {
  if (options.num_return_sequences > 1) {
    throw new ConfigError(
      `option "num_return_sequences" is ${options.num_return_sequences}, but greedy decoding gives one continuation only: sample, or set it to 1.`,
    );
  }
}
