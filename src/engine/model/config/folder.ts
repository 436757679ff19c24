/**
 * A Hugging Face model folder without its weights: reads the configuration, and copies tokenizer and templates to a
 * folder that is written.
 */
import { FileError, ModelFormatError } from "../../../errors.ts";
import type { StoredFormat } from "../../../kernels/kernel.ts";
import { readModelText } from "../../files/json-file.ts";
import { platform } from "../../platform/index.ts";
import { type ModelConfig, parseEndTokens, parseModelConfig } from "./config.ts";
import { unwrappedText } from "./wrapped.ts";

/** Files of a model folder that say how text becomes tokens; copied unchanged beside trained weights. */
export const TOKENIZER_FILES = [
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "vocab.json",
  "merges.txt",
  "tokenizer.model",
  "chat_template.jinja",
  "chat_template.json",
];

/** Where a model folder has chat templates besides chat_template.jinja, each as name.jinja. */
export const TEMPLATES_FOLDER = "additional_chat_templates";

/** The other files that are carried along with whole models. */
export const MODEL_FILES = ["config.json", "generation_config.json"];

/** Names of stored formats in config.json, under "dtype" (transformers 5) or "torch_dtype". */
export const DTYPE_NAMES: Readonly<Record<StoredFormat, string>> = { f32: "float32", f16: "float16", bf16: "bfloat16" };

/**
 * Reads a model folder's `config.json`, and its end tokens from `generation_config.json` where that has them, as
 * Hugging Face does. Throws FileError for a missing folder, ModelFormatError for a missing config.json and for a
 * malformed file.
 */
export async function readModelConfig(folder: string): Promise<ModelConfig> {
  const found = await platform.exists(folder);
  if (found !== "folder") {
    throw new FileError(
      `The model folder "${folder}" ${found === "file" ? "is a file" : "does not exist"}; give a local Hugging Face folder with config.json and model.safetensors.`,
    );
  }
  const file = platform.joinPath(folder, "config.json");
  if ((await platform.exists(file)) !== "file") {
    throw new ModelFormatError(`The model folder "${folder}" has no config.json.`);
  }
  const config = parseModelConfig(await readModelText(file), file);
  const generationFile = platform.joinPath(folder, "generation_config.json");
  if ((await platform.exists(generationFile)) !== "file") return config;
  const eosTokenIds = parseEndTokens(await readModelText(generationFile), generationFile);
  return eosTokenIds === undefined ? config : { ...config, eosTokenIds };
}

/**
 * The folder whose tokenizer and templates go with a model: its adapter's, where that was saved with a tokenizer, since
 * it was trained with it; else the model's own.
 */
export async function textFolder(model: {
  readonly folder: string;
  readonly adapter?: { readonly folder: string | undefined } | undefined;
}): Promise<string> {
  const own = model.adapter?.folder;
  if (own === undefined) return model.folder;
  const tokenizer = platform.joinPath(own, "tokenizer.json");
  return (await platform.exists(tokenizer)) === "file" ? own : model.folder;
}

/** Copies a model folder's tokenizer and templates, making the folder if need be. */
export async function writeTokenizerFiles(from: string, to: string): Promise<void> {
  await platform.makeFolder(to);
  for (const name of TOKENIZER_FILES) {
    const source = platform.joinPath(from, name);
    if ((await platform.exists(source)) === "file") await copyFile(source, platform.joinPath(to, name));
  }
  const templates = await templatesIn(from);
  if (templates.length > 0) await platform.makeFolder(platform.joinPath(to, TEMPLATES_FOLDER));
  for (const name of templates) {
    const path = (folder: string) => platform.joinPath(folder, TEMPLATES_FOLDER, name);
    await copyFile(path(from), path(to));
  }
}

/** The files of a model folder's additional templates. */
export async function templatesIn(folder: string): Promise<string[]> {
  const path = platform.joinPath(folder, TEMPLATES_FOLDER);
  if ((await platform.exists(path)) !== "folder") return [];
  return (await platform.list(path)).filter((name) => name.endsWith(".jinja"));
}

/**
 * Copies what a model folder holds beside its weights; config.json says what the weights are stored as from now on, and
 * is that of the text model where this was read out of a model of text and images.
 */
export async function writeCompanions(
  from: string,
  to: string,
  dtype: StoredFormat,
  { unties = false }: { readonly unties?: boolean } = {},
): Promise<void> {
  await writeTokenizerFiles(from, to);
  for (const name of MODEL_FILES) {
    const source = platform.joinPath(from, name);
    if ((await platform.exists(source)) !== "file") continue;
    const target = platform.joinPath(to, name);
    const changed = name === "config.json" ? ofWhole(await readModelText(source), dtype, unties) : undefined;
    if (changed === undefined) await copyFile(source, target);
    else await platform.writeFileAtomic(target, changed);
  }
}

/** A config.json for a text model alone, of weights of this dtype that are not quantised; undefined if it is one already. */
function ofWhole(text: string, dtype: StoredFormat, unties: boolean): string | undefined {
  const unquantised = withoutKey(unwrappedText(text) ?? text, "quantization_config");
  const plain = unties ? untied(unquantised) : unquantised;
  const changed = withDtype(plain, dtype);
  return changed ?? (plain === text ? undefined : plain);
}

/** A config.json whose model has a head of its own. */
function untied(text: string): string {
  const pattern = /("tie_word_embeddings"\s*:\s*)(?:true|null)/g;
  return pattern.test(text)
    ? text.replace(pattern, "$1false")
    : text.replace("{", '{\n  "tie_word_embeddings": false,');
}

/** The text of a JSON object without a key of its own and the key's value, an object; all else keeps its spelling. */
function withoutKey(text: string, unwanted: string): string {
  const value = (JSON.parse(text) as Record<string, unknown>)[unwanted];
  if (typeof value !== "object" || value === null) return text;
  let depth = 0;
  let from: number | undefined;
  for (const { 0: token, index } of text.matchAll(/"(?:[^"\\]|\\.)*"(?:\s*:)?|[{}[\]]/g)) {
    if (depth === 1 && from === undefined && token.endsWith(":") && JSON.parse(token.slice(0, -1)) === unwanted) {
      from = index;
    }
    if (token === "{" || token === "[") depth++;
    else if (token === "}" || token === "]") {
      depth--;
      if (from === undefined || depth !== 1) continue;
      const [before, after] = [text.slice(0, from), text.slice(index + 1)];
      // With the comma that parted it from the next key, or else from the one before.
      return /^\s*,/.test(after) ? before + after.replace(/^\s*,\s*/, "") : before.replace(/,?\s*$/, "") + after;
    }
  }
  return text;
}

/**
 * A config.json that names this dtype; undefined if it does already, or names none and the weights are f32. All else
 * keeps its spelling: JSON.stringify would turn 10000.0 into 10000, which Python reads as a number of another type.
 */
function withDtype(text: string, dtype: StoredFormat): string | undefined {
  const config = JSON.parse(text) as Record<string, unknown>;
  const name = DTYPE_NAMES[dtype];
  const keys = ["dtype", "torch_dtype"].filter((key) => config[key] !== undefined);
  if (keys.every((key) => (config[key] ?? DTYPE_NAMES.f32) === name) && (keys.length > 0 || dtype === "f32"))
    return undefined;
  if (keys.length === 0) return text.replace("{", `{\n  "torch_dtype": "${name}",`);
  let changed = "";
  let copied = 0;
  let depth = 0;
  for (const { 0: token, 1: key, 2: value, index } of text.matchAll(JSON_PIECES)) {
    if (token === "{" || token === "[") depth++;
    else if (token === "}" || token === "]") depth--;
    else if (depth === 1 && key !== undefined && value !== undefined && keys.includes(JSON.parse(key) as string)) {
      const end = index + token.length;
      changed += `${text.slice(copied, end - value.length)}"${name}"`;
      copied = end;
    }
  }
  return changed + text.slice(copied);
}

/** Brackets, and strings; where a string is a key with a string or null as its value, key and value too. */
const JSON_PIECES = /("(?:[^"\\]|\\.)*")(?:\s*:\s*("(?:[^"\\]|\\.)*"|null))?|[{}[\]]/g;

/** Copies a file as bytes, since a tokenizer.model is no text. */
async function copyFile(from: string, to: string): Promise<void> {
  const file = await platform.openFile(from);
  try {
    await platform.writeFileAtomic(to, [await file.read(0, file.size)]);
  } finally {
    await file.close();
  }
}
