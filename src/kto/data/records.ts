/** Reads feedback files into records: .jsonl, .json and .csv here, .parquet in `parquet.ts`. */
import { exactText, parseExactJson, sourceNumber } from "../../engine/files/exact-json.ts";
import { isJsonObject } from "../../engine/files/json-file.ts";
import { platform } from "../../engine/platform/index.ts";
import { counted, DatasetError, errorMessage, FileError, shortened, shown } from "../../errors.ts";
import { correctedHeader } from "./exports/single-answers.ts";
import { readJsonList } from "./json-list.ts";
import { holdsObjectsByLine, longestRow, readLines, tooLong } from "./lines.ts";
import { parquetRecords } from "./parquet.ts";
import { type Fields, type FileRecord, placeOf, type RowSource } from "./types.ts";

export interface RecordOptions {
  /** The only columns that are needed; parquet does not read the others. */
  readonly columns: readonly string[];
  /**
   * Whether the file is read as an export of a chat program. One JSON object may then stand in place of a list, and
   * numbers are as JavaScript has them, since texts alone are used.
   */
  readonly isExport?: boolean;
}

/**
 * The records of one file, in order, without ever holding the file (of parquet: one row group).
 *
 * @throws DatasetError naming file and line; FileError if the file cannot be read
 */
export async function* recordsOf(
  path: string,
  { columns, isExport = false }: RecordOptions,
): AsyncGenerator<FileRecord> {
  const parse = isExport ? (text: string): unknown => JSON.parse(text) : parseExactJson;
  switch (endingOf(path)) {
    case "jsonl":
    case "ndjson":
      return yield* jsonLines(path, parse);
    case "json":
      // Many data sets hold one JSON object per line under this name.
      return yield* (await holdsObjectsByLine(path)) ? jsonLines(path, parse) : jsonList(path, parse, isExport);
    case "csv":
      return yield* csvRecords(path);
    case "parquet":
      return yield* parquetRecords(path, columns);
  }
  const found = await platform.exists(path);
  const forms = "a local .jsonl, .json, .csv, .parquet or .db file";
  if (found !== "file") {
    const what = found === "folder" ? "is a folder" : "does not exist";
    throw new FileError(`Cannot read feedback from ${path}: it ${what}; give ${forms}.`);
  }
  if (/\.(gz|zip|zst|bz2|xz|7z)$/i.test(path)) throw new DatasetError(`${path} is compressed; unpack it first.`);
  throw new DatasetError(`${path} has an ending that is not known; feedback is read from ${forms}.`);
}

/** The part of a path after its last dot, in lower case. */
export function endingOf(path: string): string {
  return path.slice(path.lastIndexOf(".") + 1).toLowerCase();
}

/** Characters of a value that error messages show. */
const shownCharacters = 40;

/** A value as error messages show it, shortened; numbers in it as they stand in the file, where that is known. */
export function described(value: unknown): string {
  if (typeof value !== "object") return shown(value, shownCharacters);
  try {
    return shortened(exactText(value), shownCharacters);
  } catch {
    // Values nested too deeply to be written.
    return shown(value, shownCharacters);
  }
}

/** A member of a row or list, as error messages show it: 1e400 rather than the infinity that it is read as. */
export function describedMember(holder: object, key: string): string {
  const value = (holder as Fields)[key];
  const text = typeof value === "number" ? sourceNumber(holder, key, value) : undefined;
  return text === undefined ? described(value) : shortened(text, shownCharacters);
}

type Parse = (text: string) => unknown;

async function* jsonLines(path: string, parse: Parse): AsyncGenerator<FileRecord> {
  for await (const { text, line } of readLines(path)) {
    if (text.trim() === "") continue;
    const source = { file: path, line };
    let fields: unknown;
    try {
      fields = parse(text);
    } catch (error) {
      throw new DatasetError(`${placeOf(source)} is not valid JSON: ${errorMessage(error)}.`, { cause: error });
    }
    yield record(fields, source);
  }
}

async function* jsonList(path: string, parse: Parse, takesObject: boolean): AsyncGenerator<FileRecord> {
  let lastLine = 0;
  for await (const { value, line, element } of readJsonList(path, { parse, takesObject })) {
    yield record(value, { file: path, line, ...(line === lastLine ? { element } : {}) });
    lastLine = line;
  }
}

function record(fields: unknown, source: RowSource): FileRecord {
  if (!isJsonObject(fields)) {
    throw new DatasetError(
      `${placeOf(source)}: a row must be a JSON object, not ${described(fields)}; write it as {"prompt": ..., "completion": ..., "label": ...}.`,
    );
  }
  return { fields, source };
}

async function* csvRecords(path: string): AsyncGenerator<FileRecord> {
  let header: string[] | undefined;
  for await (const { text, line } of csvTexts(path)) {
    const source = { file: path, line };
    const cells = cellsOf(text, source);
    if (!header) {
      header = headerOf(cells, source);
      continue;
    }
    const names = cells.length === header.length ? header : correctedHeader(header, cells.length);
    if (names === undefined) {
      throw new DatasetError(
        `${placeOf(source)} has ${counted(cells.length, "column")}, but the header names ${header.length}; texts with commas or line breaks need double quotes.`,
      );
    }
    const fields = Object.fromEntries(names.map((name, column) => [name, cells[column]]));
    yield { fields, source, textOnly: true };
  }
}

/**
 * The texts of whole csv records, each with the line on which it begins. A line break ends a record if an even number
 * of quotes precedes it; a doubled quote inside a quoted text does not change that.
 */
async function* csvTexts(path: string): AsyncGenerator<{ text: string; line: number }> {
  let begun: string[] = [];
  let begunSize = 0;
  let startLine = 1;
  let open = false;
  for await (const { text, line } of readLines(path)) {
    if (begun.length === 0) startLine = line;
    for (let at = text.indexOf('"'); at >= 0; at = text.indexOf('"', at + 1)) open = !open;
    // A carriage return is part of the line break only at the end of a record.
    const content = !open && text.endsWith("\r") ? text.slice(0, -1) : text;
    if (begun.length === 0 && !open && content === "") continue;
    begun.push(content);
    begunSize += content.length + 1;
    if (begunSize > longestRow) throw tooLong(path, startLine);
    if (open) continue;
    yield { text: begun.join("\n"), line: startLine };
    begun = [];
    begunSize = 0;
  }
  if (begun.length > 0) yield { text: begun.join("\n"), line: startLine };
}

/**
 * The cells of one csv record (RFC 4180): a cell in double quotes may hold commas, line breaks and doubled quotes. Our
 * own, since csv-parse, which the tests compare it with, goes through a text byte by byte and takes thirty times as long.
 *
 * @throws DatasetError for a quote that stands in a cell without quotes, that text follows, or that is not closed
 */
export function cellsOf(text: string, source: RowSource): string[] {
  const invalid = (reason: string) =>
    new DatasetError(
      `${placeOf(source)} is not valid CSV: ${reason}; put texts with quotes into double quotes, and double the quotes in them.`,
    );
  const cells: string[] = [];
  for (let at = 0; ; at++) {
    if (text[at] === '"') {
      let cell = "";
      let start = at + 1;
      for (;;) {
        at = text.indexOf('"', start) + 1;
        if (at === 0) throw invalid(`the quotes of column ${cells.length + 1} are not closed`);
        cell += text.slice(start, at - 1);
        if (text[at] !== '"') break;
        cell += '"';
        start = at + 1;
      }
      cells.push(cell);
      if (at < text.length && text[at] !== ",")
        throw invalid(`there is text behind the quotes of column ${cells.length}`);
    } else {
      const start = at;
      at = text.indexOf(",", start);
      if (at === -1) at = text.length;
      const cell = text.slice(start, at);
      cells.push(cell);
      if (cell.includes('"')) throw invalid(`there is a quote inside column ${cells.length}`);
    }
    if (at === text.length) return cells;
  }
}

function headerOf(cells: readonly string[], source: RowSource): string[] {
  const header = cells.map((name) => name.trim());
  const twice = header.find((name, i) => name !== "" && header.indexOf(name) !== i);
  if (twice !== undefined) {
    throw new DatasetError(`${placeOf(source)} names the column "${twice}" twice; rename or remove one of them.`);
  }
  return header;
}
