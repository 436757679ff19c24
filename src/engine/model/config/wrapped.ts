/**
 * Checkpoints of models for text and images whose text model is of a family that is known here. Their `config.json` has
 * the text model's configuration under "text_config"; this file reads it, and writes the config.json that the text model
 * has as a model of its own.
 */
import type { Keys } from "./config-keys.ts";
import type { RotaryType } from "./families.ts";

/** A model around the text model. */
export type WrapperType = "gemma3" | "mistral3" | "qwen3_5";

/** The type of the text model where "text_config" does not say it. */
const WRAPPED: Readonly<Record<WrapperType, RotaryType>> = {
  gemma3: "gemma3_text",
  mistral3: "mistral",
  qwen3_5: "qwen3_5_text",
};

/** Classes of text models that a wrapper may hold. */
const CLASSES: Readonly<Record<string, string>> = {
  gemma3_text: "Gemma3ForCausalLM",
  mistral: "MistralForCausalLM",
  ministral3: "Ministral3ForCausalLM",
  qwen3_5_text: "Qwen3_5ForCausalLM",
};

/** Keys that a text model takes from the file around it where it has none of its own. */
const SHARED = ["bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings", "dtype", "torch_dtype"];

export const WRAPPERS = Object.keys(WRAPPED) as readonly WrapperType[];

export function isWrapper(name: string): name is WrapperType {
  return WRAPPERS.some((wrapper) => wrapper === name);
}

/**
 * The keys of the text model, with those that only the file around it has.
 *
 * @throws ModelFormatError where there is no such object, or one of another kind of model
 */
export function textConfigOf(read: Keys, wrapper: WrapperType): Readonly<Record<string, unknown>> {
  const text = read.object("text_config");
  if (text === undefined) throw read.error(`key "text_config" is missing`);
  const added = addedKeys(read.json, text.json, wrapper);
  const type = text.json.model_type ?? added.model_type;
  if (typeof type === "string" && Object.hasOwn(CLASSES, type)) return { ...text.json, ...added };
  throw read.error(`"model_type" of "text_config" is ${JSON.stringify(type)}, which is not supported in "${wrapper}"`);
}

/** What the text model's own file needs beside its "text_config". */
function addedKeys(outer: Keys["json"], text: Keys["json"], wrapper: WrapperType): Record<string, unknown> {
  const type = String(text.model_type ?? WRAPPED[wrapper]);
  const missing = (key: string) => (text[key] ?? null) === null;
  const shared = SHARED.filter((key) => missing(key) && (outer[key] ?? null) !== null);
  return {
    ...(missing("architectures") && CLASSES[type] !== undefined ? { architectures: [CLASSES[type]] } : {}),
    ...(missing("model_type") ? { model_type: type } : {}),
    ...Object.fromEntries(shared.map((key) => [key, outer[key]])),
  };
}

/** Strings, and brackets of objects and lists. */
const JSON_TOKENS = /"(?:[^"\\]|\\.)*"|[{}[\]]/g;

/**
 * The text of a config.json for the text model alone, its numbers spelled as in the file; undefined for a file that is
 * no wrapper's. JSON.stringify would turn 10000.0 into 10000, which Python reads as a number of another type.
 *
 * @param text of a config.json that `parseModelConfig` has read
 */
export function unwrappedText(text: string): string | undefined {
  const outer = JSON.parse(text) as Record<string, unknown>;
  if (typeof outer.model_type !== "string" || !isWrapper(outer.model_type)) return undefined;
  const inner = outer.text_config as Record<string, unknown>;
  const added = addedKeys(outer, inner, outer.model_type);
  // A key that is there as null gives way to the value that is added.
  const body = Object.keys(added).reduce(
    (rest, key) => rest.replace(new RegExp(`\\s*"${key}"\\s*:\\s*null(\\s*,)?`), ""),
    innerText(text).replace(/\n {2}/g, "\n"),
  );
  const lines = Object.entries(added).map(([key, value]) => `\n  ${JSON.stringify(key)}: ${JSON.stringify(value)},`);
  return `${body.replace("{", `{${lines.join("")}`).replace(/,(\s*)\}$/, "$1}")}\n`;
}

/** The object under the key "text_config" of a JSON object, as it is written there. */
function innerText(text: string): string {
  let depth = 0;
  let start: number | undefined;
  let isKey = false;
  for (const { 0: token, index } of text.matchAll(JSON_TOKENS)) {
    if (token === "{" || token === "[") {
      if (depth === 1 && isKey) start = index;
      depth++;
    } else if (token === "}" || token === "]") {
      depth--;
      if (depth === 1 && start !== undefined) return text.slice(start, index + 1);
    }
    isKey = depth === 1 && token === '"text_config"' && /^\s*:\s*\{/.test(text.slice(index + token.length));
  }
  throw new Error("a configuration without the text_config that was read from it");
}
