/**
 * Token ids of whole sets of rows, kept on disk, so that a second run on the same feedback does not tokenize it again.
 * A file's name is a hash of all that the ids depend on: the rows' content, the tokenizer's files, the chat template
 * and its variables. Length limits come later and do not count. Nothing here may fail a run: a cache that cannot be
 * read or written is passed over.
 */
import { platform } from "../../engine/platform/index.ts";
import { errorMessage } from "../../errors.ts";
import { EntryCache, unlessFileError } from "../entry-cache.ts";
import { type EncodedRow, type EncodeRowOptions, rowEncoder } from "./encode.ts";
import type { FeedbackRow } from "./types.ts";

export interface CachedEncodeOptions extends EncodeRowOptions {
  /** The folder with the tokenizer's files. */
  readonly modelFolder: string;
  /** Tokenize whatever the cache holds, and put the result into it; default false. */
  readonly overwriteCache?: boolean;
}

export interface CachedEncoding {
  /** One entry a row. */
  readonly encoded: readonly EncodedRow[];
  /** What became of the cache, for people; undefined where there was nothing to tokenize. */
  readonly note?: string;
}

/** Raised when the files' layout changes, or when the same rows would give other ids: also by another library. */
const formatVersion = 1;
const magic = 0x4b544f49;
const cache = new EntryCache("tokens", ".ids");

/** Each row's ids, from the cache or from the tokenizer. */
export async function encodeWithCache(
  rows: readonly FeedbackRow[],
  options: CachedEncodeOptions,
): Promise<CachedEncoding> {
  const encode = rowEncoder(options);
  const count = rows.filter((row) => !("promptIds" in row)).length;
  if (count === 0) return { encoded: rows.map(encode) };
  const key = await cacheKey(rows, options);
  if (options.overwriteCache !== true) {
    const found = await cache.read(key);
    const kept = found && decodeBody(new Uint32Array(found.body.buffer));
    if (found !== undefined && kept?.length === count) {
      let next = 0;
      const encoded = rows.map((row) => ("promptIds" in row ? encode(row) : (kept[next++] ?? encode(row))));
      return { encoded, note: `token ids of ${count} rows read from ${found.path}` };
    }
  }
  const encoded = rows.map(encode);
  const tokenized = rows.flatMap((row, i) => ("promptIds" in row ? [] : (encoded[i] ?? [])));
  try {
    const path = await cache.write(key, new Uint8Array(encodeBody(tokenized).buffer));
    return { encoded, note: `${count} rows tokenized; their ids are kept in ${path}` };
  } catch (error) {
    unlessFileError(error);
    return { encoded, note: `${count} rows tokenized; their ids are not kept: ${errorMessage(error)}` };
  }
}

async function cacheKey(rows: readonly FeedbackRow[], options: CachedEncodeOptions): Promise<string> {
  const { chatTemplate, templateOptions, appendEos = true, modelFolder } = options;
  const hash = platform.sha256();
  // Each part is one line of JSON, so that no two lists of parts give one text.
  const encoder = new TextEncoder();
  const add = (part: unknown) => hash.update(encoder.encode(`${JSON.stringify(part)}\n`));
  add(["format", formatVersion, appendEos]);
  for (const name of ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]) {
    const path = platform.joinPath(modelFolder, name);
    add([name, (await platform.exists(path)) === "file" ? await platform.readText(path) : null]);
  }
  if (chatTemplate !== undefined) {
    // A template that writes the date renders otherwise tomorrow.
    add([chatTemplate.text, templateOptions ?? {}, chatTemplate.usesDate ? new Date().toDateString() : null]);
  }
  for (const row of rows) {
    if ("prompt" in row) add([row.prompt, row.completion]);
    else if ("promptMessages" in row) {
      add([row.promptMessages, row.completionMessages, row.tools ?? null, row.templateOptions ?? null]);
    }
  }
  return hash.digest();
}

/** [magic, rows], then for each row [flags, prompt tokens, completion tokens], then all ids in the order of rows. */
function encodeBody(encoded: readonly EncodedRow[]): Uint32Array<ArrayBuffer> {
  const header = 2 + 3 * encoded.length;
  const ids = encoded.reduce((sum, { promptIds, completionIds }) => sum + promptIds.length + completionIds.length, 0);
  const words = new Uint32Array(header + ids);
  words.set([magic, encoded.length]);
  let at = header;
  for (const [i, { promptIds, completionIds, aligned, promptIsPrefix }] of encoded.entries()) {
    const flags = (aligned ? 1 : 0) | (promptIsPrefix ? 2 : 0);
    words.set([flags, promptIds.length, completionIds.length], 2 + 3 * i);
    words.set(promptIds, at);
    words.set(completionIds, at + promptIds.length);
    at += promptIds.length + completionIds.length;
  }
  return words;
}

function decodeBody(words: Uint32Array): EncodedRow[] | undefined {
  const count = words[1] ?? 0;
  if (words[0] !== magic) return undefined;
  let at = 2 + 3 * count;
  const take = (length: number) => {
    at += length;
    return words.subarray(at - length, at);
  };
  return Array.from({ length: count }, (_, i) => {
    const [flags = 0, promptLength = 0, completionLength = 0] = words.subarray(2 + 3 * i);
    return {
      promptIds: take(promptLength),
      completionIds: take(completionLength),
      aligned: (flags & 1) !== 0,
      promptIsPrefix: (flags & 2) !== 0,
    };
  });
}
