/**
 * How a model's authors want it sampled: generation_config.json of its folder, under our names. Its end tokens are read
 * with the model (folder.ts).
 */
import { ModelFormatError, shown } from "../../../errors.ts";
import { parseJsonObject, readModelText } from "../../files/json-file.ts";
import { platform } from "../../platform/index.ts";

/** Keys without an effect here, each with the test for a value that would have one. */
const NOT_SUPPORTED: Readonly<Record<string, (value: unknown) => boolean>> = {
  suppress_tokens: hasEntries,
  begin_suppress_tokens: hasEntries,
  bad_words_ids: hasEntries,
  no_repeat_ngram_size: (value) => typeof value === "number" && value > 0,
  typical_p: (value) => typeof value === "number" && value < 1,
  num_beams: (value) => typeof value === "number" && value > 1,
};

function hasEntries(value: unknown): boolean {
  return Array.isArray(value) && value.length > 0;
}

/** @throws ModelFormatError naming the file and the key whose value cannot be used */
export async function readGenerationDefaults(folder: string) {
  const file = platform.joinPath(folder, "generation_config.json");
  const found = (await platform.exists(file)) === "file";
  return parseGenerationDefaults(found ? await readModelText(file) : "{}", file);
}

/**
 * What the file sets; the rest is undefined. `ignored` are keys that would change what is generated but are not
 * supported.
 *
 * @param file for messages
 */
export function parseGenerationDefaults(text: string, file: string) {
  const config = parseJsonObject(text, file);
  const refuse = (key: string, expected: string): never => {
    throw new ModelFormatError(`${file}: "${key}" is ${shown(config[key])}; it must be ${expected}.`);
  };
  const number = (key: string, expected: string, fits: (value: number) => boolean): number | undefined => {
    const value = config[key];
    if (value === undefined || value === null) return undefined;
    if (typeof value === "number" && fits(value)) return value;
    return refuse(key, expected);
  };
  const doSample = config.do_sample ?? undefined;
  if (doSample !== undefined && typeof doSample !== "boolean") refuse("do_sample", "true or false");
  // vLLM writes "all tokens" as -1.
  const topK = number("top_k", "a whole number of at least 0", (value) => Number.isInteger(value) && value >= -1);
  return {
    doSample: doSample === undefined ? undefined : doSample === true,
    temperature: number("temperature", "a number of at least 0", (value) => value >= 0),
    topK: topK === -1 ? 0 : topK,
    topP: number("top_p", "a number above 0 and at most 1", (value) => value > 0 && value <= 1),
    minP: number("min_p", "a number from 0 to 1", (value) => value >= 0 && value <= 1),
    repetitionPenalty: number("repetition_penalty", "a number above 0", (value) => value > 0),
    ignored: Object.keys(NOT_SUPPORTED).filter((key) => config[key] != null && NOT_SUPPORTED[key]?.(config[key])),
  };
}
