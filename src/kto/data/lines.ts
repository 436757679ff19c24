/** Reads text files in pieces, as lines or as elements of a JSON list, and holds only one of them at a time. */
import { parseExactJson } from "../../engine/files/exact-json.ts";
import { LFS_POINTER_LENGTH, refuseLfsPointer } from "../../engine/files/lfs-pointer.ts";
import { platform, type ReadableFile } from "../../engine/platform/index.ts";
import { DatasetError, errorMessage } from "../../errors.ts";

const pieceBytes = 1 << 20;
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

/** @throws DatasetError if a feedback file is empty, or a Git LFS pointer in place of the file */
export async function checkHasRows(file: ReadableFile): Promise<void> {
  if (file.size === 0) throw new DatasetError(`${file.path} is empty; give a file that holds rows.`);
  const start = await file.read(0, Math.min(file.size, LFS_POINTER_LENGTH));
  refuseLfsPointer(file.path, new TextDecoder("latin1").decode(start), DatasetError);
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

function joined(pieces: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let offset = 0;
  for (const piece of pieces) {
    whole.set(piece, offset);
    offset += piece.length;
  }
  return whole;
}

/** The error for a row that does not end. */
export function tooLong(path: string, line: number): DatasetError {
  return new DatasetError(
    `${path}:${line} begins a row of more than ${longestRow / 2 ** 20} MiB; a quote or a bracket may not be closed.`,
  );
}

/** One element of a JSON list. */
export interface ListElement {
  readonly value: unknown;
  /** 1-based line on which it begins. */
  readonly line: number;
  /** 1-based position in the list. */
  readonly element: number;
}

/**
 * The elements of the JSON list that a file holds. The text is split at the list's own commas; each element is then
 * parsed by itself.
 *
 * @throws DatasetError naming the line of what is not JSON
 */
export async function* readJsonList(path: string): AsyncGenerator<ListElement> {
  const splitter = new ListSplitter(path);
  for await (const { text, line } of readLines(path)) yield* splitter.add(text, line);
  splitter.end();
}

/** Whether a file's first two lines are JSON objects, so that it holds one object per line. */
export async function holdsObjectsByLine(path: string): Promise<boolean> {
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

/** Splits the text of a list at its own commas, which it tells from others by following strings and brackets. */
class ListSplitter {
  readonly #path: string;
  #state: "before" | "inside" | "after" = "before";
  #depth = 0;
  #inString = false;
  /** The text of the element that is being read. */
  #pieces: string[] = [];
  #held = 0;
  #startLine = 0;
  #element = 0;
  #lastLine = 1;
  #afterComma = false;

  constructor(path: string) {
    this.#path = path;
  }

  *add(text: string, line: number): Generator<ListElement> {
    this.#lastLine = line;
    let position = 0;
    if (this.#state === "before") {
      position = text.search(/\S/);
      if (position < 0) return;
      if (text[position] !== "[") throw this.#noList(text, line);
      this.#state = "inside";
      position++;
    }
    let start = position;
    if (this.#state === "inside") {
      for (; position < text.length; position++) {
        const character = text[position];
        if (this.#inString) {
          if (character === "\\") position++;
          else if (character === '"') this.#inString = false;
        } else if (character === '"') this.#inString = true;
        else if (character === "{" || character === "[") this.#depth++;
        else if (this.#depth > 0) {
          if (character === "}" || character === "]") this.#depth--;
        } else if (character === "," || character === "]") {
          this.#hold(text.slice(start, position), line);
          const found = this.#take(line, character === "]");
          if (found !== undefined) yield found;
          start = position + 1;
          this.#afterComma = character === ",";
          if (character === "]") {
            this.#state = "after";
            break;
          }
        }
      }
    }
    if (this.#state === "inside") {
      this.#hold(text.slice(start), line);
      if (this.#pieces.length > 0) this.#hold("\n", line);
    } else if (/\S/.test(text.slice(start))) {
      throw new DatasetError(`${this.#path}:${line} is not valid JSON: there is text after the end of the list.`);
    }
  }

  end(): void {
    if (this.#state === "before") {
      throw new DatasetError(`${this.#path} holds no rows; it has no list of rows at its top level.`);
    }
    if (this.#state === "inside") {
      throw new DatasetError(`${this.#path}:${this.#lastLine} is not valid JSON: the list of rows does not end.`);
    }
  }

  /** Keeps a piece of the current element. White space before an element is not part of it. */
  #hold(piece: string, line: number): void {
    if (this.#pieces.length === 0) {
      if (!/\S/.test(piece)) return;
      this.#startLine = line;
    }
    this.#pieces.push(piece);
    this.#held += piece.length;
    if (this.#held > longestRow) throw tooLong(this.#path, this.#startLine);
  }

  /** Returns the element that ends here, or undefined if the list is empty. */
  #take(line: number, isLast: boolean): ListElement | undefined {
    const text = this.#pieces.join("");
    this.#pieces = [];
    this.#held = 0;
    if (text === "") {
      if (isLast && !this.#afterComma) return undefined;
      throw new DatasetError(`${this.#path}:${line} is not valid JSON: an element is missing beside a comma.`);
    }
    try {
      return { value: parseExactJson(text), line: this.#startLine, element: ++this.#element };
    } catch (error) {
      const position = Number(/position (\d+)/.exec(errorMessage(error))?.[1] ?? 0);
      const faulty = this.#startLine + text.slice(0, position).split("\n").length - 1;
      throw new DatasetError(`${this.#path}:${faulty} is not valid JSON: ${withoutPlace(errorMessage(error))}.`, {
        cause: error,
      });
    }
  }

  #noList(text: string, line: number): DatasetError {
    if (isJson(text)) {
      const remedy = "if it holds one object per line, name it .jsonl";
      return new DatasetError(
        `${this.#path} is not valid JSON of the form [row, row, ...], no list of rows; ${remedy}.`,
      );
    }
    if (/^\s*\{/.test(text)) return new DatasetError(`${this.#path} holds no list of rows at its top level.`);
    return new DatasetError(`${this.#path}:${line} is not valid JSON: a list of rows begins with "[".`);
  }
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** Removes the position that V8 names, since it counts from the element and not from the beginning of the file. */
function withoutPlace(message: string): string {
  return message.replace(/ (in JSON )?at position \d+( \(line \d+ column \d+\))?/, "");
}
