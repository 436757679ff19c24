/**
 * Token ids of whole sets of rows, kept on disk, so that a second run on the same feedback does not tokenize it again.
 * A file's name is a hash of all that the ids depend on: the rows' content, the tokenizer's files, the chat template
 * and its variables. Length limits come later and do not count. Nothing here may fail a run: a cache that cannot be
 * read or written is passed over.
 */
import { platform } from "../../engine/platform/index.ts";
import { errorMessage, FileError } from "../../errors.ts";
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
const ending = ".ids";
const digestLength = 64;
/** Files kept, newest first, up to both limits. */
const keptFiles = 32;
const keptBytes = 2 ** 31;

/** Each row's ids, from the cache or from the tokenizer. */
export async function encodeWithCache(
  rows: readonly FeedbackRow[],
  options: CachedEncodeOptions,
): Promise<CachedEncoding> {
  const encode = rowEncoder(options);
  const count = rows.filter((row) => !("promptIds" in row)).length;
  if (count === 0) return { encoded: rows.map(encode) };
  const folder = platform.joinPath(platform.cacheFolder(), "tokens");
  const key = await cacheKey(rows, options);
  if (options.overwriteCache !== true) {
    const found = await readEntry(folder, key, count).catch(unlessFileError);
    if (found !== undefined) {
      let next = 0;
      const encoded = rows.map((row) => ("promptIds" in row ? encode(row) : (found.encoded[next++] ?? encode(row))));
      return { encoded, note: `token ids of ${count} rows read from ${found.path}` };
    }
  }
  const encoded = rows.map(encode);
  const tokenized = rows.flatMap((row, i) => ("promptIds" in row ? [] : (encoded[i] ?? [])));
  try {
    const path = await writeEntry(folder, key, tokenized);
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

/** Undefined where there is none that is whole. */
async function readEntry(
  folder: string,
  key: string,
  count: number,
): Promise<{ path: string; encoded: EncodedRow[] } | undefined> {
  const name = (await entriesIn(folder)).findLast((entry) => entry.endsWith(`-${key}${ending}`));
  if (name === undefined) return undefined;
  const path = platform.joinPath(folder, name);
  const file = await platform.openFile(path);
  try {
    const bodyLength = file.size - digestLength;
    if (bodyLength <= 0 || bodyLength % 4 !== 0) return undefined;
    const body = await file.read(0, bodyLength);
    const written = new TextDecoder().decode(await file.read(bodyLength, digestLength));
    if (written !== digestOf(key, body)) return undefined;
    const encoded = decodeBody(new Uint32Array(body.buffer));
    return encoded?.length === count ? { path, encoded } : undefined;
  } finally {
    await file.close();
  }
}

async function writeEntry(folder: string, key: string, encoded: readonly EncodedRow[]): Promise<string> {
  const body = new Uint8Array(encodeBody(encoded).buffer);
  if (body.length > keptBytes) throw new FileError(`they take more than ${keptBytes / 2 ** 30} GiB.`);
  await platform.makeFolder(folder);
  // The time comes first, so that names are sorted by age.
  const name = `${Date.now().toString(36).padStart(9, "0")}-${key}${ending}`;
  const path = platform.joinPath(folder, name);
  await platform.writeFileAtomic(path, [body, new TextEncoder().encode(digestOf(key, body))]);
  // Another run may remove the same files at the same time.
  await removeOld(folder, name, key).catch(unlessFileError);
  return path;
}

/** Entries that the newest one stands for, or that are too many. */
async function removeOld(folder: string, newest: string, key: string): Promise<void> {
  let files = 0;
  let bytes = 0;
  for (const name of (await entriesIn(folder)).reverse()) {
    const path = platform.joinPath(folder, name);
    const file = await platform.openFile(path);
    await file.close();
    files++;
    bytes += file.size;
    const replaced = name !== newest && name.endsWith(`-${key}${ending}`);
    if (replaced || files > keptFiles || bytes > keptBytes) await platform.removeFile(path);
  }
}

/** Names, oldest first. */
async function entriesIn(folder: string): Promise<string[]> {
  if ((await platform.exists(folder)) !== "folder") return [];
  return (await platform.list(folder)).filter((name) => name.endsWith(ending));
}

function digestOf(key: string, body: Uint8Array): string {
  const hash = platform.sha256();
  hash.update(new TextEncoder().encode(key));
  hash.update(body);
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

/** Files that cannot be read or written are no reason to stop; everything else is. */
function unlessFileError(error: unknown): undefined {
  if (!(error instanceof FileError)) throw error;
}
