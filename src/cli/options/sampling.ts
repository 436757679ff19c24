/**
 * The options of how generate, chat and eval draw tokens. Their values without an option are in session/sampling.ts.
 */
import * as z from "zod";
import { ConfigError } from "../../errors.ts";
import { type OptionsOf, optionGroup, reuse } from "../../kto/options/option.ts";
import { runOptions } from "../../kto/options/run.ts";

const { option } = optionGroup("Sampling");
const chat = optionGroup("Chat");

export const samplingOptions = {
  temperature: option(z.number().min(0).optional(), {
    description: "divides the logits; 0 is the same as --greedy; default generation_config.json's, else 1",
  }),
  top_k: option(z.number().int().min(-1).optional(), {
    description: "sample among the k likeliest tokens, 0 or -1 for all; default generation_config.json's, else 0",
    expects: "a whole number of at least 0, or -1",
  }),
  top_p: option(z.number().gt(0).max(1).optional(), {
    description:
      "sample among the likeliest tokens that make up this probability; default generation_config.json's, else 1",
  }),
  min_p: option(z.number().min(0).max(1).optional(), {
    description:
      "sample among tokens at least this many times as probable as the likeliest; default generation_config.json's, else 0",
  }),
  repetition_penalty: option(z.number().gt(0).optional(), {
    description: "makes tokens that occurred less likely where above 1; default generation_config.json's, else 1",
  }),
  greedy: option(z.boolean().default(false), { description: "always take the likeliest token" }),
  do_sample: option(z.boolean().optional(), {
    description: "false is the same as --greedy; default generation_config.json's, else true",
  }),
  stop_strings: option(z.array(z.string().min(1)).default([]), {
    description:
      "end before this text, or before this token where it is one, special tokens included; may be given several times",
  }),
  seed: reuse(runOptions.seed, {
    group: "Sampling",
    description: "the same seed on the same adapter gives the same text",
  }),
};

export const chatTemplateOptions = {
  chat_template_path: chat.option(z.string().min(1).optional(), {
    description: "a .jinja file, or a folder with one, in place of the model's chat template",
    expects: "a file or folder",
    placeholder: "file",
  }),
  chat_template_kwargs: reuse(runOptions.chat_template_kwargs, {
    group: "Chat",
    description: "variables of the chat template, such as enable_thinking",
  }),
  system: chat.option(z.string().optional(), { description: "a system message before the chat" }),
};

export type Sampling = OptionsOf<typeof samplingOptions>;

/** @throws ConfigError for options that contradict each other */
export function checkSampling({ greedy, do_sample }: Sampling): void {
  if (greedy && do_sample === true) {
    throw new ConfigError("options greedy and do_sample contradict each other: keep one.");
  }
}
