/**
 * Rows to token ids, with the ids of whole sets of rows kept on disk, so that a second run on the same feedback does not
 * tokenize it again. The rows are read twice, first to know whether they were seen before; no text is held.
 *
 * A file's name is a hash of all that the ids depend on: the rows' content, the tokenizer's files, the chat template
 * and its variables. Length limits come later and do not count. Nothing here may fail a run: a cache that cannot be
 * read or written is passed over.
 */

import { EntryCache, unlessFileError } from "../../engine/files/entry-cache.ts";
import { platform, type Sha256 } from "../../engine/platform/index.ts";
import { counted, DatasetError, errorMessage } from "../../errors.ts";
import { type EncodedRow, type EncodeRowOptions, rowEncoder } from "./encode.ts";
import { storedRows, TokenIdStore } from "./token-ids.ts";
import type { FeedbackRow, FeedbackRows } from "./types.ts";

export interface CachedEncodeOptions extends EncodeRowOptions {
  /** The folder with the tokenizer's files. */
  readonly modelFolder: string;
  /** Tokenize whatever the cache holds, and put the result into it; default false. */
  readonly overwriteCache?: boolean;
}

/** What a first pass over rows finds. */
export interface RowsSurvey {
  /** Of all content that ids are made of. */
  readonly digest: string;
  readonly texts: number;
  readonly chats: number;
}

/** Raised when the files' layout changes, or when the same rows would give other ids: also by another library. */
const formatVersion = 2;
const cache = new EntryCache("tokens", ".ids");

/**
 * Reads the rows once, for what has to be known before they are encoded.
 *
 * @param rows that can be gone through again, from the first
 */
export async function surveyRows(rows: FeedbackRows): Promise<RowsSurvey> {
  const hash = platform.sha256();
  let texts = 0;
  let chats = 0;
  for await (const row of rows) {
    addRow(hash, row);
    if ("prompt" in row) texts++;
    else if ("promptMessages" in row) chats++;
  }
  return { digest: hash.digest(), texts, chats };
}

/**
 * Hands each row's ids, from the cache or from the tokenizer, to `use`. Those from the tokenizer are held in any case,
 * to be kept; `use` may hold on to them without a copy.
 *
 * @param survey of the same rows
 * @returns what became of the cache, for people; undefined where there was nothing to tokenize
 * @throws DatasetError as `rowEncoder`'s function does, and if the rows are not those of the survey; what `use` throws
 */
export async function encodeWithCache(
  rows: FeedbackRows,
  survey: RowsSurvey,
  options: CachedEncodeOptions,
  use: (row: FeedbackRow, encoded: EncodedRow) => void,
): Promise<string | undefined> {
  const encode = rowEncoder(options);
  const count = survey.texts + survey.chats;
  if (count === 0) {
    for await (const row of rows) use(row, encode(row));
    return undefined;
  }
  const key = await cacheKey(survey, options);
  const found = options.overwriteCache === true ? undefined : await cache.read(key);
  const kept = found && storedRows(new Uint32Array(found.body.buffer), count);
  const store = new TokenIdStore();
  const hash = platform.sha256();
  for await (const row of rows) {
    addRow(hash, row);
    if ("promptIds" in row) use(row, encode(row));
    else use(row, kept?.next().value ?? store.add(encode(row)));
  }
  if (hash.digest() !== survey.digest) {
    throw new DatasetError("The feedback changed while it was read; run the command again.");
  }
  if (found && kept) return `token ids of ${counted(count, "row")} read from ${found.path}`;
  try {
    return `${counted(count, "row")} tokenized; the ids are kept in ${await cache.write(key, ...store.body())}`;
  } catch (error) {
    unlessFileError(error);
    return `${counted(count, "row")} tokenized; the ids are not kept: ${errorMessage(error)}`;
  }
}

async function cacheKey(survey: RowsSurvey, options: CachedEncodeOptions): Promise<string> {
  const { chatTemplate, templateOptions, appendEos = true, modelFolder } = options;
  const hash = platform.sha256();
  addPart(hash, ["format", formatVersion, appendEos]);
  for (const name of ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]) {
    const path = platform.joinPath(modelFolder, name);
    addPart(hash, [name, (await platform.exists(path)) === "file" ? await platform.readText(path) : null]);
  }
  if (chatTemplate !== undefined) {
    // A template that writes the date renders otherwise tomorrow.
    const date = chatTemplate.usesDate ? new Date().toDateString() : null;
    addPart(hash, [chatTemplate.text, templateOptions ?? {}, date]);
  }
  addPart(hash, ["rows", survey.digest]);
  return hash.digest();
}

/** Rows that are ids already need no cache. */
function addRow(hash: Sha256, row: FeedbackRow): void {
  if ("prompt" in row) addPart(hash, [row.prompt, row.completion]);
  else if ("promptMessages" in row) {
    addPart(hash, [row.promptMessages, row.completionMessages, row.tools ?? null, row.templateOptions ?? null]);
  }
}

const encoder = new TextEncoder();

/** Each part is one line of JSON, so that no two lists of parts give one text. */
function addPart(hash: Sha256, part: unknown): void {
  hash.update(encoder.encode(`${JSON.stringify(part)}\n`));
}
