/**
 * Encodes rows as token ids and keeps the ids on disk, so that a second run on the same feedback does not tokenize it
 * again. The rows are read twice, the first time to find out whether their ids are known. No text is kept in memory.
 *
 * A file's name is a hash of everything that the ids depend on: the rows' contents, the tokenizer's files, the chat
 * template and its variables. Length limits are applied later. A cache that cannot be read or written never fails a
 * run.
 */
import { EntryCache, unlessFileError } from "../../engine/files/entry-cache.ts";
import { exactText } from "../../engine/files/exact-json.ts";
import { platform, type Sha256 } from "../../engine/platform/index.ts";
import { counted, DatasetError, errorMessage } from "../../errors.ts";
import { type EncodedRow, type EncodeRowOptions, rowEncoder } from "./encode.ts";
import { encodedInThreads, type RowWithText, threadsFor } from "./encode-threads.ts";
import { textOfRow } from "./row-texts.ts";
import { storedRows, TokenIdStore } from "./token-ids.ts";
import type { FeedbackRow, FeedbackRows } from "./types.ts";

export interface CachedEncodeOptions extends EncodeRowOptions {
  /** The folder with the tokenizer's files. */
  readonly modelFolder: string;
  /** Where the chat template is, if not in that folder. */
  readonly templatePath?: string | undefined;
  /** Threads that encode at the same time, fewer where there are fewer cores or few rows. Default 1. */
  readonly threads?: number;
  /** Tokenize even if the cache has the ids, and replace them there. Default false. */
  readonly overwriteCache?: boolean;
}

/** The result of a first pass over rows. */
export interface RowsSurvey {
  /** A digest of all contents from which ids are made. */
  readonly digest: string;
  readonly texts: number;
  readonly chats: number;
}

/** What the cache did, for people. */
export interface CacheNote {
  readonly text: string;
  /** False where the ids could not be written, so that the next run tokenizes the rows again. */
  readonly isKept: boolean;
}

/** Raise this when the file format changes, or when the same rows give other ids, for example by another library. */
const formatVersion = 3;
const cache = new EntryCache("tokens", ".ids");

/**
 * Reads the rows once and counts and hashes what will be encoded.
 *
 * @param rows rows that can be iterated again from the first
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
 * Calls `use` with each row's ids, which come from the cache or from the tokenizer. `use` may keep the ids without
 * copying them.
 *
 * @param survey the survey of the same rows
 * @returns what the cache did, or undefined if there was nothing to tokenize
 * @throws DatasetError as `rowEncoder`'s function does, and if the rows have changed since the survey; also whatever
 *   `use` throws
 */
export async function encodeWithCache(
  rows: FeedbackRows,
  survey: RowsSurvey,
  options: CachedEncodeOptions,
  use: (row: FeedbackRow, encoded: EncodedRow) => void,
): Promise<CacheNote | undefined> {
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
  const hashed = hashing(rows, hash);
  const threads = kept ? 1 : threadsFor(count, options.threads ?? 1);
  if (threads === 1) {
    for await (const [row] of hashed) {
      if ("promptIds" in row) use(row, encode(row));
      else use(row, kept?.next().value ?? store.add(encode(row)));
    }
  } else {
    const files = { folder: options.modelFolder, templatePath: options.templatePath };
    for await (const [row, encoded] of encodedInThreads(hashed, threads, options, files)) {
      use(row, "promptIds" in row ? encoded : store.add(encoded));
    }
  }
  if (hash.digest() !== survey.digest) {
    throw new DatasetError("The feedback changed while it was read; run the command again.");
  }
  if (found && kept) return { text: `token ids of ${counted(count, "row")} read from ${found.path}`, isKept: true };
  const tokenized = `${counted(count, "row")} tokenized`;
  try {
    const path = await cache.write(key, ...store.body());
    return { text: `${tokenized}; the ids are kept in ${path}`, isKept: true };
  } catch (error) {
    unlessFileError(error);
    return { text: `${tokenized}; the ids are not kept: ${errorMessage(error)}`, isKept: false };
  }
}

/** The rows with their texts, each added to a hash as it is read. */
async function* hashing(rows: FeedbackRows, hash: Sha256): AsyncGenerator<RowWithText> {
  for await (const row of rows) yield [row, addRow(hash, row)];
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
    // A template that writes the date renders differently on another day.
    const date = chatTemplate.usesDate ? new Date().toDateString() : null;
    addPart(hash, [chatTemplate.text, templateOptions ?? {}, date]);
  }
  addPart(hash, ["rows", survey.digest]);
  return hash.digest();
}

/** Adds a row's text to a hash and returns it. Rows of token ids are not cached and add nothing. */
function addRow(hash: Sha256, row: FeedbackRow): string | undefined {
  const text = textOfRow(row);
  if (text !== undefined) hash.update(encoder.encode(`${text}\n`));
  return text;
}

const encoder = new TextEncoder();

/**
 * Hashes a part as one line of JSON, so that different lists of parts never hash the same text. Numbers and keys are
 * written as they stand in the rows: a template may render 1.0 and 1 differently.
 */
function addPart(hash: Sha256, part: unknown): void {
  hash.update(encoder.encode(`${exactText(part)}\n`));
}
