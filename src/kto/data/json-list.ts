/**
 * Reads the elements of a JSON list one after another, however long the list is and whether or not it has line breaks.
 * The bytes are split at the list's own commas, which are told from others by following strings and brackets.
 */
import { joined } from "../../engine/bytes.ts";
import { parseExactJson } from "../../engine/files/exact-json.ts";
import { platform } from "../../engine/platform/index.ts";
import { DatasetError, errorMessage } from "../../errors.ts";
import { exportsLookedFor } from "./exports/shapes.ts";
import { checkHasRows, endsBeforeRecords, holdsRecords, isJson, longestRow, pieceBytes, tooLong } from "./lines.ts";

/** One element of a JSON list. */
export interface ListElement {
  readonly value: unknown;
  /** 1-based line on which it begins. */
  readonly line: number;
  /** 1-based position in the list. */
  readonly element: number;
}

export interface ListOptions {
  /** Parses an element; by default with what templates must see of its numbers. */
  readonly parse?: (text: string) => unknown;
  /**
   * Whether a file may hold one object in place of the list; it is then the only element, unless it has a member that
   * programs are known to write their records in: the elements are then that list's.
   */
  readonly takesObject?: boolean;
}

/** Bytes of characters that have a meaning outside of strings. */
const [newline, quote, backslash, comma] = [0x0a, 0x22, 0x5c, 0x2c];
const [openList, closeList, openObject, closeObject] = [0x5b, 0x5d, 0x7b, 0x7d];
const byteOrderMark = [0xef, 0xbb, 0xbf];

/** Bytes before a list inside an object that tell whether it has the records; spaces are among them. */
const beforeRecordsLength = 256;

function isSpace(byte: number): boolean {
  return byte === 0x20 || byte === newline || byte === 0x0d || byte === 0x09;
}

/**
 * The elements of the JSON list that a file holds; each is parsed by itself.
 *
 * @throws DatasetError naming the line of what is not JSON; FileError if the file cannot be read
 */
export async function* readJsonList(path: string, options: ListOptions = {}): AsyncGenerator<ListElement> {
  const file = await platform.openFile(path);
  try {
    await checkHasRows(file);
    const splitter = new ListSplitter(path, options);
    for (let offset = 0; offset < file.size; offset += pieceBytes) {
      const piece = await file.read(offset, Math.min(pieceBytes, file.size - offset));
      const isMarked = offset === 0 && byteOrderMark.every((byte, i) => piece[i] === byte);
      yield* splitter.add(isMarked ? piece.subarray(byteOrderMark.length) : piece);
    }
    splitter.end();
  } finally {
    await file.close();
  }
}

class ListSplitter {
  readonly #path: string;
  readonly #parse: (text: string) => unknown;
  readonly #takesObject: boolean;
  readonly #decoder = new TextDecoder("utf-8", { fatal: true });
  /** "object" where one object stands in place of the list. */
  #state: "before" | "inside" | "object" | "after" = "before";
  #depth = 0;
  #inString = false;
  #isEscaped = false;
  /** Whether an element has begun, and what earlier pieces hold of it. */
  #hasBegun = false;
  #pieces: Uint8Array[] = [];
  #held = 0;
  #startLine = 0;
  #element = 0;
  #line = 1;
  #endsWithNewline = false;
  #afterComma = false;
  /** What stands behind the list where it is a member of an object; undefined where the list is the file. */
  #behind: { readonly line: number; readonly pieces: Uint8Array[] } | undefined;

  constructor(path: string, { parse = parseExactJson, takesObject = false }: ListOptions) {
    this.#path = path;
    this.#parse = parse;
    this.#takesObject = takesObject;
  }

  *add(piece: Uint8Array): Generator<ListElement> {
    let start = 0;
    for (let at = 0; at < piece.length; at++) {
      const byte = piece[at] ?? 0;
      if (byte === newline) this.#line++;
      if (this.#inString) {
        if (this.#isEscaped) this.#isEscaped = false;
        else if (byte === backslash) this.#isEscaped = true;
        else if (byte === quote) this.#inString = false;
        continue;
      }
      const endsElement = this.#depth === 0 && (byte === comma || byte === closeList);
      if (!this.#hasBegun && !endsElement) {
        if (isSpace(byte)) continue;
        if (this.#state === "after" && this.#behind !== undefined) {
          this.#behind.pieces.push(piece.subarray(at));
          this.#held += piece.length - at;
          if (this.#held > longestRow) throw tooLong(this.#path, this.#behind.line);
          return;
        }
        if (this.#state === "after") {
          throw new DatasetError(
            `${this.#path}:${this.#line} is not valid JSON: there is text after the end of the list.`,
          );
        }
        if (this.#state === "before") {
          if (byte === openObject && this.#takesObject) this.#state = "object";
          else if (byte !== openList) throw this.#noList(piece.subarray(at));
          else {
            this.#state = "inside";
            continue;
          }
        }
        this.#hasBegun = true;
        this.#startLine = this.#line;
        start = at;
      }
      if (byte === openList && this.#depth === 1 && this.#state === "object") {
        if (this.#enterRecords(piece.subarray(start, at))) continue;
      }
      if (byte === quote) this.#inString = true;
      else if (byte === openObject || byte === openList) this.#depth++;
      else if (endsElement && this.#state === "inside") {
        const found = this.#take(piece.subarray(start, at), byte === closeList);
        if (found !== undefined) yield found;
        this.#afterComma = byte === comma;
        if (byte === closeList) this.#state = "after";
        if (this.#state === "after" && this.#behind !== undefined) this.#behind = { line: this.#line, pieces: [] };
      } else if (endsElement) throw this.#noList(piece.subarray(at));
      else if ((byte === closeObject || byte === closeList) && this.#depth > 0) {
        this.#depth--;
        if (this.#depth > 0 || this.#state !== "object") continue;
        const found = this.#take(piece.subarray(start, at + 1), false);
        if (found !== undefined) yield found;
        this.#state = "after";
      }
    }
    if (this.#hasBegun) this.#hold(piece.subarray(start));
    this.#endsWithNewline = piece.at(-1) === newline;
  }

  end(): void {
    if (this.#state === "before") {
      throw new DatasetError(`${this.#path} holds no rows; it has no list of rows at its top level.`);
    }
    if (this.#state === "after") {
      if (this.#behind === undefined) return;
      const text = this.#decoded(joined(this.#behind.pieces));
      if (isJson(`{"records": []${text}`)) return;
      const what = text.trim() === "" ? "the object does not end" : "what stands behind the list of records is none";
      throw new DatasetError(`${this.#path}:${this.#behind.line} is not valid JSON: ${what}.`);
    }
    const line = this.#line - (this.#endsWithNewline ? 1 : 0);
    const what = this.#state === "object" ? "the object" : "the list of rows";
    throw new DatasetError(`${this.#path}:${line} is not valid JSON: ${what} does not end.`);
  }

  /** Whether the list that begins behind these bytes of an object holds the records; it is then read as the file's list. */
  #enterRecords(last: Uint8Array): boolean {
    const end = joined([...this.#pieces.slice(-1), last].map((piece) => piece.subarray(-beforeRecordsLength)));
    if (!endsBeforeRecords(new TextDecoder("latin1").decode(end))) return false;
    this.#hold(last);
    const text = this.#decoded(joined(this.#pieces));
    if (!isJson(`${text}[]}`)) {
      throw new DatasetError(
        `${this.#path}:${this.#startLine} is not valid JSON: what stands before the list of records is none.`,
      );
    }
    [this.#hasBegun, this.#pieces, this.#held] = [false, [], 0];
    [this.#state, this.#depth, this.#behind] = ["inside", 0, { line: this.#line, pieces: [] }];
    return true;
  }

  #hold(piece: Uint8Array): void {
    this.#pieces.push(piece);
    this.#held += piece.length;
    if (this.#held > longestRow) throw tooLong(this.#path, this.#startLine);
  }

  /** Returns the element that ends with this piece, or undefined if the list is empty. */
  #take(last: Uint8Array, isLast: boolean): ListElement | undefined {
    if (!this.#hasBegun) {
      if (isLast && !this.#afterComma) return undefined;
      throw new DatasetError(`${this.#path}:${this.#line} is not valid JSON: an element is missing beside a comma.`);
    }
    this.#hold(last);
    const text = this.#decoded(joined(this.#pieces));
    this.#hasBegun = false;
    this.#pieces = [];
    this.#held = 0;
    try {
      return { value: this.#parse(text), line: this.#startLine, element: ++this.#element };
    } catch (error) {
      const position = Number(/position (\d+)/.exec(errorMessage(error))?.[1] ?? 0);
      const faulty = this.#startLine + text.slice(0, position).split("\n").length - 1;
      throw new DatasetError(`${this.#path}:${faulty} is not valid JSON: ${withoutPlace(errorMessage(error))}.`, {
        cause: error,
      });
    }
  }

  #decoded(bytes: Uint8Array): string {
    try {
      return this.#decoder.decode(bytes);
    } catch (error) {
      // The line at fault is the first one that is not UTF-8 by itself.
      let line = Math.max(1, this.#startLine);
      for (let start = 0; start < bytes.length; line++) {
        const end = bytes.indexOf(newline, start);
        const next = end < 0 ? bytes.length : end + 1;
        if (!isUtf8(bytes.subarray(start, next))) break;
        start = next;
      }
      throw new DatasetError(`${this.#path}:${line} is not UTF-8 text; save the file as UTF-8.`, { cause: error });
    }
  }

  /** @param bytes the file from its first character on */
  #noList(bytes: Uint8Array): DatasetError {
    const end = bytes.indexOf(newline);
    const text = this.#decoded(end < 0 ? bytes : bytes.subarray(0, end));
    if (holdsRecords(new TextDecoder("latin1").decode(bytes.subarray(0, 1 << 14)))) {
      return new DatasetError(`${this.#path} holds no rows: its list "feedback_data" has no rating of Dify.`);
    }
    if (isJson(text)) {
      const remedy = `if it holds one object per line, name it .jsonl${text.startsWith("{") ? `; of exports of chat programs looked for were ${exportsLookedFor}` : ""}`;
      return new DatasetError(
        `${this.#path} is not valid JSON of the form [row, row, ...], no list of rows; ${remedy}.`,
      );
    }
    if (text.startsWith("{")) {
      return new DatasetError(
        `${this.#path} holds no list of rows at its top level, nor is it an export of a chat program that is known; looked for were ${exportsLookedFor}.`,
      );
    }
    return new DatasetError(`${this.#path}:${this.#line} is not valid JSON: a list of rows begins with "[".`);
  }
}

function isUtf8(bytes: Uint8Array): boolean {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return true;
  } catch {
    return false;
  }
}

/** Removes the position that V8 names, since it counts from the element and not from the beginning of the file. */
function withoutPlace(message: string): string {
  return message.replace(/ (in JSON )?at position \d+( \(line \d+ column \d+\))?/, "");
}
