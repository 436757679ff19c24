/** Reads feedback files into records: .jsonl, .json and .csv here, .parquet in `parquet.ts`. */
import { parse as parseCsv } from "csv-parse/browser/esm/sync";
import { exactText, parseExactJson, sourceNumber } from "../../engine/files/exact-json.ts";
import { isJsonObject } from "../../engine/files/json-file.ts";
import { platform } from "../../engine/platform/index.ts";
import { counted, DatasetError, errorMessage, FileError, shortened, shown } from "../../errors.ts";
import { correctedHeader } from "./exports/single-answers.ts";
import { readJsonList } from "./json-list.ts";
import { holdsObjectsByLine, longestRow, readLines, tooLong } from "./lines.ts";
import { parquetRecords } from "./parquet.ts";
import { type Fields, type FileRecord, placeOf, type RowSource } from "./types.ts";

/** How many characters of csv are parsed at once. */
const blockCharacters = 1 << 20;

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

/** The text of one csv record and the line on which it begins. */
interface CsvText {
  readonly text: string;
  readonly line: number;
}

async function* csvRecords(path: string): AsyncGenerator<FileRecord> {
  let header: string[] | undefined;
  for await (const block of csvBlocks(path)) {
    const rows = parseBlock(path, block);
    for (const [i, cells] of rows.entries()) {
      const source = { file: path, line: block[i]?.line ?? 1 };
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
}

/**
 * Collects whole records, about a mebibyte at a time. A line break ends a record if an even number of quotes precedes
 * it; a doubled quote inside a quoted text does not change that.
 */
async function* csvBlocks(path: string): AsyncGenerator<CsvText[]> {
  let block: CsvText[] = [];
  let blockSize = 0;
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
    block.push({ text: begun.join("\n"), line: startLine });
    blockSize += begunSize;
    begun = [];
    begunSize = 0;
    if (blockSize < blockCharacters) continue;
    yield block;
    block = [];
    blockSize = 0;
  }
  if (begun.length > 0) block.push({ text: begun.join("\n"), line: startLine });
  yield block;
}

function parseBlock(path: string, block: readonly CsvText[]): string[][] {
  const parse = (text: string) =>
    parseCsv(text, { relax_column_count: true, record_delimiter: "\n", skip_empty_lines: false }) as string[][];
  try {
    return parse(block.map(({ text }) => text).join("\n"));
  } catch (error) {
    // The parser counts lines from the beginning of the block, so each record is tried to find the one at fault.
    let cause = error;
    const faulty = block.find(({ text }) => {
      try {
        parse(text);
        return false;
      } catch (thrown) {
        cause = thrown;
        return true;
      }
    });
    const reason = errorMessage(cause)
      .replace(/,? (at|on) line \d+/g, "")
      .replace(/\s+/g, " ")
      .replace(/\.$/, "");
    throw new DatasetError(`${path}:${faulty?.line ?? 1} is not valid CSV: ${reason.slice(0, 200)}.`, { cause });
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
