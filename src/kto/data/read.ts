/**
 * Reads feedback files into rows. Chooses the records of a slice, renames their columns, and checks that all rows have
 * one layout. `records.ts` reads the file formats, `layouts.ts` the layouts; tokenizing follows in `tokenize.ts`.
 */
import { ConfigError, counted, DatasetError } from "../../errors.ts";
import {
  type ColumnMapping,
  checkColumnMapping,
  labelScale,
  mapColumns,
  neededColumns,
  pairOf,
  withThumb,
} from "./columns.ts";
import { exportColumns, exportRecords, findExports, takesNoPair } from "./exported.ts";
import { droppedInWords, type ExportReport, warningsOf } from "./exports/report.ts";
import { rowsOfRecord } from "./layouts.ts";
import { recordsOf } from "./records.ts";
import { type RowForm, rowFormer } from "./row-form.ts";
import { needsCount, type Slice, sliceBounds } from "./slice.ts";
import { type FeedbackRow, type FileRecord, type Labels, placeOf, type RowSource } from "./types.ts";
import { UnreadColumns } from "./unread.ts";

export interface ReadOptions extends RowForm {
  /** Maps the names that layouts know to the file's own. By default the names are the same. */
  readonly columnMapping?: ColumnMapping | undefined;
  /** For labels that are numbers on a scale: those from here on are desirable, smaller ones undesirable. */
  readonly labelThreshold?: number | undefined;
  /** Which records to read; a preference pair is one record. Default all. */
  readonly slice?: Slice | undefined;
  /** The most records that are read, the first ones of the slice. Default all. */
  readonly maxRecords?: number | undefined;
  /** With "optional", a row without a label counts as desirable, as for supervised fine-tuning. Default "required". */
  readonly labels?: Labels | undefined;
  /** Called with the name of the layout once the first row is read. */
  readonly onLayout?: ((layout: string) => void) | undefined;
  /** Called once all rows are read, with sentences on columns and ratings that are not. Default console.warn. */
  readonly onWarning?: (sentence: string) => void;
  /** Called with the report on exports of chat programs once their rows are read, or as many as were asked for. */
  readonly onExport?: (report: ExportReport) => void;
}

/**
 * Reads feedback into memory. A field that is null counts as absent, unknown fields are ignored, known ones that
 * the layout does not use are told (`onWarning`), and a label is true or
 * false, 1 or 0 (in csv also as these words).
 *
 * @param path a file, or several that follow each other (`resolveDatasetFiles` names those of a split)
 * @returns one row per judged completion in file order; a preference pair gives its chosen row, then its rejected one
 * @throws DatasetError naming file and line; FileError if a file cannot be read
 */
export async function readFeedback(
  path: string | readonly string[],
  options: ReadOptions = {},
): Promise<FeedbackRow[]> {
  const rows: FeedbackRow[] = [];
  for await (const row of feedbackRows(path, options)) rows.push(row);
  return rows;
}

/** Reads the same rows one after another, so that only a piece of the file is in memory at any time. */
export async function* feedbackRows(
  path: string | readonly string[],
  options: ReadOptions = {},
): AsyncGenerator<FeedbackRow> {
  const mapping = checkColumnMapping(options.columnMapping ?? {});
  const files = typeof path === "string" ? [path] : path;
  const slice = options.slice ?? {};
  const scale = labelScale(mapping, options.labelThreshold);
  const columns = [...new Set([...neededColumns(mapping), ...exportColumns])];
  const exported = await findExports(files, columns, mapping);
  if (exported === undefined && pairOf(mapping) !== undefined) throw takesNoPair(files[0] ?? "the file");
  let report: ExportReport | undefined;
  const onReport = (found: ExportReport) => {
    report = found;
  };
  const records = () =>
    exported === undefined
      ? allRecords(files, neededColumns(mapping))
      : exportRecords(exported, { mapping, scale, columns, onReport });
  const { begin, end: last } = sliceBounds(slice, needsCount(slice) ? await countOf(records()) : 0);
  const end = Math.min(last, begin + (options.maxRecords ?? Number.POSITIVE_INFINITY));
  const formed = rowFormer(options);

  let first: { layout: string; source: RowSource } | undefined;
  const unreadColumns = new UnreadColumns();
  let pairs = 0;
  let index = 0;
  for await (const record of records()) {
    if (index >= end) break;
    if (index++ < begin) continue;
    const { source, exportedBy } = record;
    let { fields } = record;
    if (exportedBy === undefined) {
      fields = withThumb(mapColumns(fields, mapping, source), scale, source);
      fields = formed?.(fields, source) ?? fields;
    }
    const { layout: ownLayout, rows, isPair, unread } = rowsOfRecord({ ...record, fields }, options.labels);
    const layout = exportedBy ?? ownLayout;
    if (isPair && scale.threshold !== undefined) {
      throw new ConfigError(
        `option "label_threshold" has no use for ${placeOf(source)}, a pair of a chosen and a rejected answer; leave it out.`,
      );
    }
    if (first === undefined) {
      first = { layout, source };
      options.onLayout?.(layout);
    }
    // If labels are optional, some rows may have one and others may not.
    if (exportedBy === undefined && withoutLabel(layout) !== withoutLabel(first.layout)) {
      throw new DatasetError(
        `${placeOf(source)} has the layout ${layout}, but the rows before it (from line ${first.source.line}) have ${first.layout}; keep one layout per file.`,
      );
    }
    unreadColumns.add(unread, layout, source);
    const pair = isPair ? { pair: pairs++ } : {};
    for (const row of rows) yield { ...row, ...pair };
  }
  const warn = options.onWarning ?? console.warn;
  if (report !== undefined) {
    options.onExport?.(report);
    if (first !== undefined) for (const warning of warningsOf(report)) warn(warning);
  }
  if (first !== undefined) {
    for (const warning of unreadColumns.warnings()) warn(warning);
    return;
  }
  const place = typeof path === "string" ? path : (path[0] ?? "The list of feedback files");
  if (report !== undefined && index === 0) throw noRatedRows(place, report);
  throw new DatasetError(
    index > 0
      ? `${place}: the slice selects none of its ${index} rows; choose another slice.`
      : `${place} holds no rows; each needs a prompt${options.labels === "optional" ? " and a completion" : ", a completion and a label"}.`,
  );
}

/** Why exports give no rows. */
function noRatedRows(place: string, { shapes, ratings, unrated, dropped }: ExportReport): DatasetError {
  const name = shapes.join(", ");
  if (ratings === 0) {
    return new DatasetError(
      `${place} (${name === "" ? "an export" : name}) has ${counted(unrated, "answer")} and no rating; rate some answers in the program, or give another file.`,
    );
  }
  return new DatasetError(
    `${place} (${name}): ${ratings === 1 ? "its only rating gives no row" : `none of its ${ratings} ratings gives a row`}: ${droppedInWords({ dropped })}; docs/thumbs.md explains the reasons.`,
  );
}

function withoutLabel(layout: string): string {
  return layout.replace(/\/label$/, "");
}

async function* allRecords(files: readonly string[], columns: readonly string[]): AsyncGenerator<FileRecord> {
  for (const file of files) yield* recordsOf(file, { columns });
}

async function countOf(records: AsyncIterable<unknown>): Promise<number> {
  let count = 0;
  for await (const _ of records) count++;
  return count;
}
