/**
 * Exports of chat programs among the files of feedback: which files are some, and their ratings as records in the
 * layout of conversations. How a program's records are read stands in `exports/`.
 */
import { ConfigError, DatasetError } from "../../errors.ts";
import { type ColumnMapping, columnOf, type LabelScale, mappedNames, pairOf } from "./columns.ts";
import { databaseEndings, databaseFindings, databaseShape } from "./exports/open-webui-database.ts";
import { type Found, rowsOfFindings } from "./exports/reader.ts";
import type { ExportReport } from "./exports/report.ts";
import { exportsLookedFor, mayBeTable, shapeColumns, shapeOf } from "./exports/shapes.ts";
import { thumbReader } from "./exports/thumbs.ts";
import type { Finding, Json, ReadingContext, Shape } from "./exports/types.ts";
import { endingOf, recordsOf } from "./records.ts";
import { type Fields, type FileRecord, placeOf, type RowSource } from "./types.ts";

/** A file that is an export. */
export interface ExportFile {
  readonly path: string;
  /** Undefined for a database, which has tables and no records. */
  readonly shape: Shape | undefined;
}

/**
 * The exports among files. Only the first record of each is read.
 *
 * @returns undefined if none is an export
 * @throws DatasetError if only some are; also what reading a first record throws
 */
export async function findExports(
  files: readonly string[],
  columns: readonly string[],
  mapping: ColumnMapping,
): Promise<readonly ExportFile[] | undefined> {
  const found: ExportFile[] = [];
  const others: string[] = [];
  for (const path of files) {
    // A parquet file belongs to a set whose files are alike, and its first record takes a whole row group.
    const like = endingOf(path) === "parquet" ? others.some((other) => endingOf(other) === "parquet") : false;
    const file = like ? undefined : await exportOf(path, columns, mapping);
    if (file === undefined) others.push(path);
    else found.push(file);
  }
  const [first] = found;
  if (first === undefined) return undefined;
  if (others.length === 0) return found;
  throw new DatasetError(
    `${others[0]} is no export of a chat program, but ${first.path} is one (${nameOf(first)}), and rows of both kinds cannot be read together; move one of them to another folder. An export is recognised by its fields: ${exportsLookedFor}.`,
  );
}

async function exportOf(
  path: string,
  columns: readonly string[],
  mapping: ColumnMapping,
): Promise<ExportFile | undefined> {
  if (databaseEndings.includes(endingOf(path))) return { path, shape: undefined };
  const given = mappedNames(mapping);
  // The first record of a parquet file costs a row group, so its columns are looked at before.
  if (endingOf(path) === "parquet" && !(await mayBeExport(path, given))) return undefined;
  for await (const { fields } of recordsOf(path, { columns, isExport: true })) {
    const shape = shapeOf(fields, given);
    return shape === undefined ? undefined : { path, shape };
  }
  return undefined;
}

async function mayBeExport(parquet: string, given: readonly string[]): Promise<boolean> {
  // A file none of whose columns is wanted gives one record with their names.
  for await (const { fields } of recordsOf(parquet, { columns: [] })) return mayBeTable(fields, given);
  return false;
}

function nameOf({ shape }: ExportFile): string {
  return (shape ?? databaseShape).name;
}

/** Columns that an export in parquet may need besides those of rows. */
export const exportColumns = shapeColumns;

/**
 * Messages of all prompts of one record. Each rated answer has its whole path as prompt, so that a chain of answers
 * that are all rated would take the square of its length.
 */
const MOST_MESSAGES = 4_000_000;

export interface ExportReading {
  readonly mapping: ColumnMapping;
  readonly scale: LabelScale;
  readonly columns: readonly string[];
  readonly onReport: (report: ExportReport) => void;
  /** The most messages of all prompts of one record together. Default 4,000,000. */
  readonly mostMessages?: number;
}

/**
 * The rows that the ratings of exports give, as records with the fields prompt, completion and label, in the order of
 * the files and of the ratings in them.
 *
 * @throws DatasetError naming file and line; ConfigError for a name that the user must give, or that has no use
 */
export async function* exportRecords(
  files: readonly ExportFile[],
  { mapping, scale, columns, onReport, mostMessages = MOST_MESSAGES }: ExportReading,
): AsyncGenerator<FileRecord> {
  const fixed = files.find(({ shape }) => shape?.named === undefined);
  if (scale.threshold !== undefined && fixed !== undefined) {
    throw new ConfigError(
      `option "label_threshold" has no use for ${fixed.path}: the thumbs of ${nameOf(fixed)} have values of their own; leave it out.`,
    );
  }
  const pair = pairOf(mapping);
  const single = files.find(({ shape }) => shape?.hasPairs !== true);
  if (pair !== undefined && single !== undefined) throw takesNoPair(`${single.path} (${nameOf(single)})`);
  const names = {
    prompt: columnOf(mapping, "prompt"),
    // Both answers of a pair are named there.
    completion: columnOf(mapping, "completion") ?? pair?.[0],
    pair,
    label: columnOf(mapping, "label"),
  };
  const reading = { names, thumbOf: thumbReader(scale), isScaled: Object.keys(scale).length > 0 };
  const finders = await findersOf(files, reading, columns);
  async function* pass(): AsyncGenerator<Found<RowSource>> {
    for (const { path, shape } of files) {
      if (shape === undefined) {
        for await (const { finding, row } of databaseFindings(path)) {
          yield { shape: databaseShape, finding, place: { file: path, line: row } };
        }
        continue;
      }
      let position = 0;
      for await (const { fields, source } of recordsOf(path, { columns, isExport: true })) {
        checkShape(fields, shape, source);
        const record = { shape, place: source, record: fields };
        let any = false;
        for (const finding of finders.get(shape)?.(fields, ++position) ?? []) {
          any = true;
          yield { ...record, finding };
        }
        if (!any) yield { ...record, finding: undefined };
      }
    }
  }
  let last: RowSource | undefined;
  let messages = 0;
  for await (const { row, place, shape } of rowsOfFindings(pass, names, onReport)) {
    messages = (place === last ? messages : 0) + row.prompt.length;
    last = place;
    if (messages > mostMessages) {
      throw new DatasetError(
        `${placeOf(place)}: the rated answers of this conversation have more than ${mostMessages} messages before them together; no program writes such a file, so remove the record.`,
      );
    }
    yield { fields: { ...row }, source: place, exportedBy: shape };
  }
}

type Finder = (record: Json, position: number) => Iterable<Finding>;

/** How to find the ratings of each shape. Shapes whose records need each other see all of theirs here. */
async function findersOf(
  files: readonly ExportFile[],
  reading: Omit<ReadingContext, "position">,
  columns: readonly string[],
): Promise<ReadonlyMap<Shape, Finder>> {
  const finders = new Map<Shape, Finder>();
  for (const { shape } of files) {
    if (shape === undefined || finders.has(shape)) continue;
    if (shape.findings !== undefined) {
      finders.set(shape, (record, position) => shape.findings(record, { ...reading, position }));
      continue;
    }
    const { passes, findings } = shape.joined(reading);
    for (const pass of passes) {
      for (const file of files.filter((other) => other.shape === shape)) {
        for await (const { fields, source } of recordsOf(file.path, { columns, isExport: true })) {
          checkShape(fields, shape, source);
          pass(fields);
        }
      }
    }
    finders.set(shape, findings);
  }
  return finders;
}

/** @param what a file, as the message names it */
export function takesNoPair(what: string): ConfigError {
  return new ConfigError(
    `option "column_mapping" gives "completion" two names, which only the pairs of Label Studio have, and ${what} is no such export; give one name.`,
  );
}

function checkShape(fields: Fields, shape: Shape, source: RowSource): void {
  if (shape.matches(fields)) return;
  const found = Object.keys(fields)
    .slice(0, 20)
    .map((name) => `"${name}"`)
    .join(", ");
  throw new DatasetError(
    `${placeOf(source)}: the file begins as ${shape.name} (${shape.lookedFor}), but this record has ${found === "" ? "no fields" : `the fields ${found}`}; keep one kind of record per file.`,
  );
}
