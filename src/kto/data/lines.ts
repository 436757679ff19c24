/** Reads text files as lines, in pieces, and holds only one line at a time. `json-list.ts` reads lists. */
import { joined } from "../../engine/bytes.ts";
import { LFS_POINTER_LENGTH, refuseLfsPointer } from "../../engine/files/lfs-pointer.ts";
import { platform, type ReadableFile } from "../../engine/platform/index.ts";
import { DatasetError } from "../../errors.ts";

/** How much of a file is read at once. */
export const pieceBytes = 1 << 20;
const newline = 0x0a;
/** The longest row in characters or bytes. V8's strings end at about twice as much. */
export const longestRow = 256 * 2 ** 20;

/**
 * The lines of a UTF-8 file without their "\n", numbered from 1; a byte order mark is dropped.
 *
 * @throws DatasetError if the file is empty or a line is not UTF-8 or too long; FileError if it cannot be read
 */
export async function* readLines(path: string): AsyncGenerator<{ text: string; line: number }> {
  const file = await platform.openFile(path);
  try {
    await checkHasRows(file);
    const decoder = new TextDecoder("utf-8", { fatal: true });
    let line = 0;
    for await (const bytes of lineBytes(file)) {
      line++;
      let text: string;
      try {
        text = decoder.decode(bytes);
      } catch (error) {
        throw new DatasetError(`${path}:${line} is not UTF-8 text; save the file as UTF-8.`, { cause: error });
      }
      yield { text, line };
    }
  } finally {
    await file.close();
  }
}

/** How files begin that hold feedback in a form that is not read, and what to do with them. */
const unreadForms: readonly [begin: string, advice: string][] = [
  ["\x1f\x8b", "is compressed (gzip); unpack it with gunzip first"],
  ["PK\x03\x04", "is a zip archive; unpack it first"],
  ["\x28\xb5\x2f\xfd", "is compressed (zstd); unpack it with unzstd first"],
  ["\xff\xfe", "is UTF-16 text; save the file as UTF-8"],
  ["\xfe\xff", "is UTF-16 text; save the file as UTF-8"],
];

/** @throws DatasetError if a feedback file is empty, compressed or UTF-16, or a Git LFS pointer in place of the file */
export async function checkHasRows(file: ReadableFile): Promise<void> {
  if (file.size === 0) throw new DatasetError(`${file.path} is empty; give a file that holds rows.`);
  const start = await file.read(0, Math.min(file.size, LFS_POINTER_LENGTH));
  const text = new TextDecoder("latin1").decode(start);
  // Where "latin1" means Windows-1252, as in browsers, it has other characters for some bytes.
  const codes = String.fromCharCode(...start.subarray(0, 4));
  const [, advice] = unreadForms.find(([begin]) => codes.startsWith(begin)) ?? [];
  if (advice !== undefined) throw new DatasetError(`${file.path} ${advice}.`);
  refuseLfsPointer(file.path, text, DatasetError);
}

async function* lineBytes(file: ReadableFile): AsyncGenerator<Uint8Array> {
  /** The pieces of a line whose end has not been read yet. */
  let begun: Uint8Array[] = [];
  let held = 0;
  let line = 1;
  for (let offset = 0; offset < file.size; offset += pieceBytes) {
    const piece = await file.read(offset, Math.min(pieceBytes, file.size - offset));
    let start = 0;
    for (let end = piece.indexOf(newline); end >= 0; end = piece.indexOf(newline, start)) {
      const rest = piece.subarray(start, end);
      yield begun.length > 0 ? joined([...begun, rest]) : rest;
      begun = [];
      held = 0;
      line++;
      start = end + 1;
    }
    if (start < piece.length) begun.push(piece.subarray(start));
    held += piece.length - start;
    if (held > longestRow) throw tooLong(file.path, line);
  }
  if (begun.length > 0) yield joined(begun);
}

/** The error for a row that does not end. */
export function tooLong(path: string, line: number): DatasetError {
  return new DatasetError(
    `${path}:${line} begins a row of more than ${longestRow / 2 ** 20} MiB; a quote or a bracket may not be closed.`,
  );
}

/** Whether a file's first two lines are JSON objects, so that it holds one object per line. */
export async function holdsObjectsByLine(path: string): Promise<boolean> {
  // A list may be one line of any length, also inside an object, so that the file's beginning must decide.
  const start = await beginningOf(path);
  if (!start.startsWith("{") || holdsRecords(start)) return false;
  let first = true;
  for await (const { text } of readLines(path)) {
    if (text.trim() === "") continue;
    if (!/^\s*\{/.test(text)) return false;
    if (!first) return true;
    if (!isJson(text)) return false;
    first = false;
  }
  return false;
}

/** Whether the list of an object's records follows, as in a Dify export, which is one object of any size. */
export function endsBeforeRecords(text: string): boolean {
  return /[{,]\s*"feedback_data"\s*:\s*$/.test(text);
}

/** Whether an object that begins so holds such a list. */
export function holdsRecords(beginning: string): boolean {
  return beginning.startsWith("{") && beginning.split("[").slice(0, -1).some(endsBeforeRecords);
}

/** The first thousands of characters from the first on that is no white space. */
async function beginningOf(path: string): Promise<string> {
  const file = await platform.openFile(path);
  try {
    const start = await file.read(0, Math.min(file.size, 1 << 14));
    return new TextDecoder("utf-8").decode(start).trimStart();
  } finally {
    await file.close();
  }
}

/** Whether a text is JSON. */
export function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
