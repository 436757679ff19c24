/** `kto generate`: samples continuations of prompts from a model. */
import * as z from "zod";
import { ConfigError, DatasetError, errorMessage } from "../errors.ts";
import { ktoOptions } from "../kto/config.ts";
import { option, parseOptions } from "../kto/parse-options.ts";
import { command } from "./command.ts";
import { readTextFile } from "./files.ts";
import type { Output } from "./output.ts";
import { commonOptions, modelOptions, reuse } from "./shared-options.ts";

const prompts = "Model and prompts";
const sampling = "Sampling";

const schema = z.strictObject({
  model_name_or_path: reuse(ktoOptions.shape.model_name_or_path, { group: prompts, description: "the model" }),
  ...modelOptions,
  model_revision: reuse(ktoOptions.shape.model_revision, { group: prompts }),
  prompt: option(z.array(z.string()).default([]), {
    group: prompts,
    description: "a text to continue; may be given several times",
    expects: "text",
    aliases: ["prompts"],
  }),
  prompts_file: option(z.string().min(1).optional(), {
    group: prompts,
    description: "prompts from a file: one on each line, or the prompt field of each row of a .jsonl file",
    expects: "a text or .jsonl file",
    placeholder: "file",
  }),
  max_new_tokens: option(z.number().int().min(1).default(64), {
    group: sampling,
    description: "longest continuation",
    expects: "a whole number of at least 1",
  }),
  num_return_sequences: option(z.number().int().min(1).default(1), {
    group: sampling,
    description: "continuations of each prompt",
    expects: "a whole number of at least 1",
  }),
  temperature: option(z.number().min(0).default(1), {
    group: sampling,
    description: "divides the logits; 0 is the same as --greedy",
    expects: "a number of at least 0",
  }),
  top_k: option(z.number().int().min(0).default(0), {
    group: sampling,
    description: "sample among the k likeliest tokens; 0 for all",
    expects: "a whole number of at least 0",
  }),
  top_p: option(z.number().gt(0).max(1).default(1), {
    group: sampling,
    description: "sample among the likeliest tokens that make up this probability",
    expects: "a number above 0 and at most 1",
  }),
  greedy: option(z.boolean().default(false), {
    group: sampling,
    description: "always take the likeliest token",
    expects: "true or false",
  }),
  do_sample: option(z.boolean().optional(), {
    group: sampling,
    description: "false is the same as --greedy",
    expects: "true or false",
  }),
  seed: reuse(ktoOptions.shape.seed, {
    group: sampling,
    description: "the same seed on the same adapter gives the same text",
  }),
  ...commonOptions,
});

export type GenerateOptions = Readonly<z.output<typeof schema>>;

export const generateCommand = command({
  name: "generate",
  summary: "sample from a model",
  examples: [
    'kto generate --model_name_or_path ./aligned --prompt "Once upon a time" --temperature 0.8',
    "kto generate --model_name_or_path ./aligned --prompts_file openings.txt --greedy --json",
  ],
  schema,
  parse: ({ values, where }) => parseGenerateOptions(values, where),
  run: runGenerate,
});

/** Checks the options; `greedy` then says all that do_sample, temperature 0 and greedy said. */
export function parseGenerateOptions(
  values: Readonly<Record<string, unknown>>,
  where: (name: string) => string,
): GenerateOptions {
  const options = parseOptions(schema, values, { where });
  if (options.prompt.length === 0 && options.prompts_file === undefined) {
    throw new ConfigError('there is nothing to continue: give --prompt "text" or --prompts_file file.');
  }
  if (options.greedy && options.do_sample === true) {
    throw new ConfigError("options greedy and do_sample contradict each other: keep one.");
  }
  const greedy = options.greedy || options.do_sample === false || options.temperature === 0;
  if (greedy && options.num_return_sequences > 1) {
    throw new ConfigError(
      `option "num_return_sequences" is ${options.num_return_sequences}, but greedy decoding gives one continuation only: sample, or set it to 1.`,
    );
  }
  return { ...options, greedy };
}

/**
 * The prompts in order, those of the command line first.
 *
 * @throws FileError if the file cannot be read; DatasetError for a row without a prompt, naming file and line
 */
export async function readPrompts(options: Pick<GenerateOptions, "prompt" | "prompts_file">): Promise<string[]> {
  const file = options.prompts_file;
  if (file === undefined) return [...options.prompt];
  const text = await readTextFile(file, "prompts file");
  const rows = text.split(/\r?\n/).map((line, index) => ({ line, place: `${file}:${index + 1}` }));
  const written = rows.filter(({ line }) => line.trim() !== "");
  const fromFile = /\.jsonl$/i.test(file)
    ? written.map(({ line, place }) => promptOfRow(line, place))
    : written.map(({ line }) => line);
  if (fromFile.length === 0) throw new DatasetError(`${file} holds no prompt.`);
  return [...options.prompt, ...fromFile];
}

function promptOfRow(line: string, place: string): string {
  let row: unknown;
  try {
    row = JSON.parse(line);
  } catch (error) {
    throw new DatasetError(`${place} is not valid JSON: ${errorMessage(error)}.`, { cause: error });
  }
  const prompt = typeof row === "object" && row !== null && "prompt" in row ? row.prompt : undefined;
  if (typeof prompt !== "string") throw new DatasetError(`${place} has no "prompt" that is text.`);
  return prompt;
}

async function runGenerate(options: GenerateOptions, output: Output): Promise<void> {
  const prompts = await readPrompts(options);
  const { withDevice } = await import("./session.ts");
  const { loadModel } = await import("./models.ts");
  const { Generator } = await import("../engine/model/generate.ts");
  const { decodeContinuation, loadTokenizer } = await import("../engine/tokenizer.ts");
  await withDevice(options, output, async (device) => {
    const model = await loadModel(device, options, output);
    const tokenizer = await loadTokenizer(model.folder);
    const requests = prompts.flatMap((prompt) => {
      const ids = tokenizer.encode(prompt);
      return Array.from({ length: options.num_return_sequences }, () => ({ prompt, ids }));
    });
    const longest = Math.max(...requests.map(({ ids }) => ids.length));
    const generator = new Generator(model, {
      maxBatch: Math.min(requests.length, MOST_SIDE_BY_SIDE),
      maxLength: longest + options.max_new_tokens,
    });
    const results = await generator.generate(
      requests.map(({ ids }) => ids),
      {
        maxNewTokens: options.max_new_tokens,
        temperature: options.greedy ? 0 : options.temperature,
        topK: options.top_k,
        topP: options.top_p,
        seed: options.seed,
      },
    );
    for (const [index, { prompt, ids }] of requests.entries()) {
      const { ids: newIds = [], finish } = results[index] ?? {};
      const completion = decodeContinuation(tokenizer, ids, newIds);
      if (output.json) output.jsonLine({ index, prompt, completion, tokens: newIds.length, finish });
      else output.result(`${index > 0 ? "\n" : ""}${prompt}${completion}`);
    }
  });
}

/** Sequences whose caches are held at once. */
const MOST_SIDE_BY_SIDE = 64;
