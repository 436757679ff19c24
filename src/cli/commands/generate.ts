/** `kto generate`: samples continuations of prompts from a model. */

import * as z from "zod";
import { textFolder } from "../../engine/model/config/folder.ts";
import { Generator } from "../../engine/model/generate/generate.ts";
import { TextStream } from "../../engine/text/text-stream.ts";
import { loadTokenizer } from "../../engine/text/tokenizer.ts";
import { ConfigError } from "../../errors.ts";
import { ktoOptions } from "../../kto/options/kto.ts";
import { option, reuse } from "../../kto/options/option.ts";
import { parseOptions } from "../../kto/options/parse.ts";
import { command } from "../options/command.ts";
import {
  chatTemplateOptions,
  checkSampling,
  endTokens,
  resolveSampling,
  samplingOptions,
} from "../options/sampling.ts";
import { commonOptions, modelOptions } from "../options/shared.ts";
import { loadModel } from "../session/models.ts";
import { type Prompt, promptEncoder, readPrompts } from "../session/prompts.ts";
import { withDevice } from "../session/rows.ts";
import type { Output } from "../terminal/output.ts";

const prompts = "Model and prompts";
const sampling = "Sampling";

const schema = z.strictObject({
  model_name_or_path: reuse(ktoOptions.shape.model_name_or_path, { group: prompts, description: "the model" }),
  ...modelOptions,
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
  ...commonOptions,
});

export type GenerateOptions = Readonly<z.output<typeof schema>>;

export const generateCommand = command({
  examples: [
    'kto generate --model_name_or_path ./aligned --prompt "Once upon a time" --temperature 0.8',
    "kto generate --model_name_or_path ./aligned --prompts_file openings.txt --greedy --json",
  ],
  schema,
  parse: ({ values, where }) => parseGenerateOptions(values, where),
  run: runGenerate,
});

/** Checks the options; `greedy` of the result also covers do_sample false and temperature 0. */
export function parseGenerateOptions(
  values: Readonly<Record<string, unknown>>,
  where: (name: string) => string,
): GenerateOptions {
  const options = parseOptions(schema, values, { where });
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
function refuseSeveral(options: Pick<GenerateOptions, "num_return_sequences">): void {
  if (options.num_return_sequences > 1) {
    throw new ConfigError(
      `option "num_return_sequences" is ${options.num_return_sequences}, but greedy decoding gives one continuation only: sample, or set it to 1.`,
    );
  }
}

async function runGenerate(options: GenerateOptions, output: Output): Promise<void> {
  const prompts = await readPrompts(options);
  await withDevice(options, output, async (device) => {
    const model = await loadModel(device, options, output);
    const textsFolder = await textFolder(model);
    const tokenizer = await loadTokenizer(textsFolder);
    const sampling = await resolveSampling(options, model.folder, output);
    if (sampling.temperature === 0) refuseSeveral(options);
    const encode = await promptEncoder(prompts, tokenizer, textsFolder, options);
    const requests = prompts.flatMap((prompt) => {
      const ids = encode(prompt);
      return Array.from({ length: options.num_return_sequences }, () => ({ prompt, ids }));
    });
    const longest = Math.max(...requests.map(({ ids }) => ids.length));
    const maxLength = longest + options.max_new_tokens;
    const fitting = Math.max(1, Generator.mostSideBySide(model, maxLength));
    const generator = new Generator(model, {
      maxBatch: Math.min(requests.length, MOST_SIDE_BY_SIDE, fitting),
      maxLength,
    });
    // A chat's answer stands alone; a text goes on from its prompt.
    const openingOf = (prompt: Prompt) => (options.chat || typeof prompt !== "string" ? "" : prompt);
    const isLive = options.stream ?? (requests.length === 1 && output.streams.stdout.isTTY === true);
    const live = isLive && !output.json;
    const streams = requests.map(({ ids }) => new TextStream(tokenizer, ids, { stopStrings: options.stop_strings }));
    const texts = requests.map(() => "");
    // Of several sequences the first is shown while it is generated, the others after it.
    const add = (index: number, piece: string) => {
      texts[index] = (texts[index] ?? "") + piece;
      if (live && index === 0 && piece !== "") output.piece(piece);
    };
    const [first] = requests;
    if (live && first) output.piece(openingOf(first.prompt));
    const results = await generator.generate(
      requests.map(({ ids }) => ids),
      {
        ...sampling,
        eosTokenIds: endTokens(options, tokenizer, model.config.eosTokenIds),
        maxNewTokens: options.max_new_tokens,
        seed: options.seed,
        onToken: (index, ids) => {
          const stream = streams[index];
          add(index, stream?.push(ids.at(-1) ?? 0) ?? "");
          return stream?.stopped ? "stop" : undefined;
        },
      },
    );
    for (const [index, { prompt }] of requests.entries()) {
      add(index, streams[index]?.end() ?? "");
      const { ids: newIds = [], finish } = results[index] ?? {};
      const completion = texts[index] ?? "";
      const shown = typeof prompt === "string" ? prompt : prompt.messages;
      if (output.json) output.jsonLine({ index, prompt: shown, completion, tokens: newIds.length, finish });
      else if (live && index === 0) output.result("");
      else output.result(`${index > 0 ? "\n" : ""}${openingOf(prompt)}${completion}`);
    }
  });
}

/** The most sequences that are generated at once. */
const MOST_SIDE_BY_SIDE = 64;
