/** How generate and chat draw tokens: their options, and what holds where neither they nor the model's folder say it. */
import * as z from "zod";
import { readGenerationDefaults } from "../../engine/model/config/generation-config.ts";
import type { SamplingOptions } from "../../engine/model/generate/sample.ts";
import type { Tokenizer } from "../../engine/text/tokenizer.ts";
import { ConfigError } from "../../errors.ts";
import { type OptionsOf, optionGroup, reuse } from "../../kto/options/option.ts";
import { runOptions } from "../../kto/options/run.ts";
import type { Output } from "../terminal/output.ts";

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

type Sampling = OptionsOf<typeof samplingOptions>;

/** @throws ConfigError for options that contradict each other */
export function checkSampling({ greedy, do_sample }: Sampling): void {
  if (greedy && do_sample === true) {
    throw new ConfigError("options greedy and do_sample contradict each other: keep one.");
  }
}

/**
 * The tokens that end a text: the model's, and each stop string that is one token by itself. Text alone would not show
 * the special ones, which are left out of it.
 */
export function endTokens(
  { stop_strings }: Pick<Sampling, "stop_strings">,
  tokenizer: Tokenizer,
  ofModel: readonly number[],
): number[] {
  const wanted = stop_strings.flatMap((text) => {
    const ids = tokenizer.encode(text, { addSpecialTokens: false });
    return ids.length === 1 && tokenizer.decode(ids) === text ? ids : [];
  });
  return [...new Set([...ofModel, ...wanted])];
}

/**
 * Options given go before generation_config.json, which goes before our own defaults: sampling from all tokens.
 *
 * @param output is warned of what the file sets and nothing here does
 */
export async function resolveSampling(
  options: Sampling,
  modelFolder: string,
  output: Pick<Output, "warning">,
): Promise<SamplingOptions> {
  const file = await readGenerationDefaults(modelFolder);
  if (file.ignored.length > 0) {
    output.warning(
      `generation_config.json sets ${file.ignored.join(", ")}, which ${file.ignored.length === 1 ? "is" : "are"} not supported and ignored.`,
    );
  }
  // A temperature that is asked for says that tokens are to be drawn.
  const wantsSampling = options.do_sample ?? (options.temperature !== undefined ? true : file.doSample);
  const greedy = options.greedy || wantsSampling === false;
  return {
    temperature: greedy ? 0 : (options.temperature ?? file.temperature ?? 1),
    topK: Math.max(0, options.top_k ?? file.topK ?? 0),
    topP: options.top_p ?? file.topP ?? 1,
    minP: options.min_p ?? file.minP ?? 0,
    repetitionPenalty: options.repetition_penalty ?? file.repetitionPenalty ?? 1,
  };
}
