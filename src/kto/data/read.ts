/**
 * A feedback file to rows: .jsonl (read by pieces), .json and .csv, in three layouts: prompt/completion/label,
 * prompt/chosen/rejected (two rows each), prompt_ids/completion_ids/label. Not tokenization; not chats, not parquet.
 */
import { parse as parseCsv } from "csv-parse/browser/esm/sync";
import { platform } from "../../engine/platform/index.ts";
import { DatasetError, errorMessage, FileError } from "../../errors.ts";
import { readLines, startLines } from "./lines.ts";
import { type FeedbackRow, placeOf, type RowSource } from "./types.ts";

type Fields = Record<string, unknown>;
type Layout = "prompt/completion/label" | "prompt/chosen/rejected" | "prompt_ids/completion_ids/label";
interface FileRow {
  readonly fields: Fields;
  readonly source: RowSource;
}

const newline = 0x0a;
const carriageReturn = 0x0d;

/**
 * Reads a whole feedback file. A field that is null counts as absent, unknown fields are ignored, and a label is true
 * or false, 1 or 0 (in csv also as these words).
 *
 * @returns one row per judged completion in file order; a preference pair gives its chosen row, then its rejected one
 * @throws DatasetError naming file and line; FileError if the file cannot be read
 */
export async function readFeedback(path: string): Promise<FeedbackRow[]> {
  const rows: FeedbackRow[] = [];
  let first: { layout: Layout; source: RowSource } | undefined;
  let pairs = 0;
  for await (const { fields, source } of await recordsOf(path)) {
    const layout = layoutOf(fields, source);
    first ??= { layout, source };
    if (layout !== first.layout) {
      throw new DatasetError(
        `${placeOf(source)} has the layout ${layout}, but the rows before it (from line ${first.source.line}) have ${first.layout}; keep one layout per file.`,
      );
    }
    if (layout === "prompt/chosen/rejected") {
      const prompt = text(fields, "prompt", source);
      const pair = pairs++;
      rows.push({ prompt, completion: text(fields, "chosen", source), label: true, source, pair });
      rows.push({ prompt, completion: text(fields, "rejected", source), label: false, source, pair });
    } else if (layout === "prompt_ids/completion_ids/label") {
      const promptIds = tokenIds(fields, "prompt_ids", source);
      const completionIds = tokenIds(fields, "completion_ids", source);
      rows.push({ promptIds, completionIds, label: thumb(fields, source), source });
    } else {
      const prompt = text(fields, "prompt", source);
      rows.push({ prompt, completion: text(fields, "completion", source), label: thumb(fields, source), source });
    }
  }
  if (rows.length === 0) {
    throw new DatasetError(`${path} holds no rows; each needs a prompt, a completion and a label.`);
  }
  return rows;
}

/** Which layout a row has, by its fields; refuses those that are known but not read. */
function layoutOf(fields: Fields, source: RowSource): Layout {
  const has = (name: string) => fields[name] !== undefined && fields[name] !== null;
  const refuse = (what: string, remedy: string) => new DatasetError(`${placeOf(source)}: ${what}; ${remedy}.`);
  if (has("messages") || has("conversations")) {
    throw refuse(
      "rows of chat messages are not supported yet",
      `apply the chat template first and give "prompt", "completion" and "label" as text`,
    );
  }
  for (const name of ["prompt", "completion", "chosen", "rejected"]) {
    if (!Array.isArray(fields[name])) continue;
    throw refuse(
      `"${name}" is a list of chat messages, which is not supported yet`,
      "apply the chat template first and give it as text",
    );
  }
  if (has("prompt_ids") || has("completion_ids")) return "prompt_ids/completion_ids/label";
  if (has("chosen") || has("rejected")) return "prompt/chosen/rejected";
  if (has("prompt") || has("completion")) return "prompt/completion/label";
  const found = Object.keys(fields);
  throw refuse(
    `no layout of feedback fits the fields ${found.length > 0 ? found.map((name) => `"${name}"`).join(", ") : "of an empty row"}`,
    `a row needs "prompt", "completion" and "label", or "prompt", "chosen" and "rejected", or "prompt_ids", "completion_ids" and "label"`,
  );
}

function field(fields: Fields, name: string, source: RowSource): unknown {
  const value = fields[name];
  if (value === undefined || value === null) {
    throw new DatasetError(`${placeOf(source)}: the field "${name}" is missing.`);
  }
  return value;
}

function text(fields: Fields, name: string, source: RowSource): string {
  const value = field(fields, name, source);
  if (typeof value !== "string") {
    throw new DatasetError(`${placeOf(source)}: "${name}" is ${described(value)}, not a text.`);
  }
  return value;
}

function thumb(fields: Fields, source: RowSource): boolean {
  const value = field(fields, "label", source);
  if (value === true || value === 1) return true;
  if (value === false || value === 0) return false;
  throw new DatasetError(
    `${placeOf(source)}: "label" is ${described(value)}; it must be true (desirable) or false (undesirable).`,
  );
}

function tokenIds(fields: Fields, name: string, source: RowSource): number[] {
  const value = field(fields, name, source);
  if (!Array.isArray(value)) {
    throw new DatasetError(`${placeOf(source)}: "${name}" is ${described(value)}, not a list of token ids.`);
  }
  const wrong = value.findIndex((id) => !Number.isSafeInteger(id) || id < 0);
  if (wrong >= 0) {
    throw new DatasetError(
      `${placeOf(source)}: "${name}" has ${described(value[wrong])} at position ${wrong}; token ids are whole numbers from 0.`,
    );
  }
  return value;
}

/** A value as an error message shows it, shortened. */
function described(value: unknown): string {
  const json = JSON.stringify(value);
  return json.length > 40 ? `${json.slice(0, 37)}...` : json;
}

async function recordsOf(path: string): Promise<AsyncIterable<FileRow>> {
  const ending = path.slice(path.lastIndexOf(".") + 1).toLowerCase();
  if (ending === "jsonl" || ending === "ndjson") return jsonLines(path);
  if (ending === "json") return jsonArray(path);
  if (ending === "csv") return csv(path);
  if (ending === "parquet") {
    throw new DatasetError(`${path}: parquet files are not supported yet; convert it to .jsonl first.`);
  }
  const found = await platform.exists(path);
  if (found !== "file") {
    throw new FileError(
      `Cannot read feedback from ${path}: it ${found === "folder" ? "is a folder" : "does not exist"}; give a local .jsonl, .json or .csv file.`,
    );
  }
  throw new DatasetError(`${path} is not a kind of file that is known; feedback is read from .jsonl, .json or .csv.`);
}

async function* jsonLines(path: string): AsyncGenerator<FileRow> {
  for await (const { text, line } of readLines(path)) {
    if (text.trim() === "") continue;
    const source = { file: path, line };
    let fields: unknown;
    try {
      fields = JSON.parse(text);
    } catch (error) {
      throw new DatasetError(`${placeOf(source)} is not valid JSON: ${errorMessage(error)}.`, { cause: error });
    }
    yield record(fields, source);
  }
}

async function* jsonArray(path: string): AsyncGenerator<FileRow> {
  const content = await wholeText(path);
  let list: unknown;
  try {
    list = JSON.parse(content);
  } catch (error) {
    const position = Number(/position (\d+)/.exec(errorMessage(error))?.[1] ?? Number.NaN);
    const line = Number.isNaN(position) ? "" : `:${content.slice(0, position).split("\n").length}`;
    const hint = /^\s*\{/.test(content) ? " If it holds one object per line, name it .jsonl." : "";
    throw new DatasetError(`${path}${line} is not valid JSON: ${errorMessage(error)}.${hint}`, { cause: error });
  }
  if (!Array.isArray(list)) throw new DatasetError(`${path} holds no list of rows at its top level.`);
  const lines = startLines(content);
  const sharedLines = new Set(lines).size < lines.length;
  for (const [i, fields] of list.entries()) {
    yield record(fields, { file: path, line: lines[i] ?? 1, ...(sharedLines ? { element: i + 1 } : {}) });
  }
}

async function* csv(path: string): AsyncGenerator<FileRow> {
  const content = await wholeText(path);
  const bytes = new TextEncoder().encode(content);
  // csv-parse counts lines wrongly where their ends differ, but says after which byte each record ended.
  let offset = 0;
  let line = 1;
  const passTo = (end: number) => {
    for (; offset < end; offset++) if (bytes[offset] === newline) line++;
  };
  let header: string[] | undefined;
  let parsed: { record: string[]; info: { bytes: number } }[];
  try {
    parsed = parseCsv(content, { info: true, relax_column_count: true, skip_empty_lines: true }) as never;
  } catch (error) {
    throw new DatasetError(`${path} is not valid CSV: ${errorMessage(error)}.`, { cause: error });
  }
  for (const { record: cells, info } of parsed) {
    // Empty lines before the record are not its own.
    while (bytes[offset] === newline || bytes[offset] === carriageReturn) passTo(offset + 1);
    const source = { file: path, line };
    passTo(info.bytes);
    if (!header) {
      header = cells.map((name) => name.trim());
      continue;
    }
    if (cells.length !== header.length) {
      throw new DatasetError(
        `${placeOf(source)} has ${cells.length} columns, but the header names ${header.length}; texts with commas or line breaks need double quotes.`,
      );
    }
    const fields: Fields = Object.fromEntries(header.map((name, i) => [name, cells[i]]));
    if (fields.label !== undefined) fields.label = csvLabel(fields.label as string);
    yield { fields, source };
  }
}

/** The words that spreadsheets and data frames write for a boolean; anything else is left for `thumb` to refuse. */
function csvLabel(cell: string): unknown {
  const word = cell.trim().toLowerCase();
  if (word === "true" || word === "1") return true;
  if (word === "false" || word === "0") return false;
  return cell;
}

function record(fields: unknown, source: RowSource): FileRow {
  if (typeof fields !== "object" || fields === null || Array.isArray(fields)) {
    throw new DatasetError(`${placeOf(source)}: a row must be a JSON object, not ${described(fields)}.`);
  }
  return { fields: fields as Fields, source };
}

async function wholeText(path: string): Promise<string> {
  const lines: string[] = [];
  for await (const { text } of readLines(path)) lines.push(text);
  return lines.join("\n");
}
