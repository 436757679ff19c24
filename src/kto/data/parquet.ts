/** Parquet files to records, a row group at a time, read by ranges. */
import { type AsyncBuffer, type FileMetaData, parquetMetadataAsync, parquetReadObjects } from "hyparquet";
import { compressors } from "hyparquet-compressors";
import { platform, type ReadableFile } from "../../engine/platform/index.ts";
import { DatasetError, errorMessage, KtoError } from "../../errors.ts";
import type { FileRecord } from "./records.ts";

/** What hyparquet reads without help. */
const ownCodecs = ["UNCOMPRESSED", "SNAPPY"];
/** More rows than that in one row group are a damaged number: no file of texts has them. */
const mostRows = 2 ** 27;

/**
 * The rows of a parquet file; `source.line` is the number of the row, from 1. Whole numbers come as numbers, and fields
 * of a struct that are null are left out, since a parquet struct cannot lack a field.
 *
 * @param columns the only columns that are read
 * @throws DatasetError naming the file: not parquet, damaged, or compressed in a way that is not supported
 */
export async function* parquetRecords(path: string, columns: readonly string[]): AsyncGenerator<FileRecord> {
  const opened = await platform.openFile(path);
  // An error of the file itself comes out of hyparquet as it went in; it is no damage of the content.
  const attempt = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (error) {
      if (error instanceof KtoError) throw error;
      throw damaged(path, errorMessage(error), error);
    }
  };
  try {
    if (opened.size === 0) throw new DatasetError(`${path} is empty; it must hold at least two rows of feedback.`);
    const file: AsyncBuffer = {
      byteLength: opened.size,
      slice: (start, end = opened.size) => {
        const bytes = sliceOf(opened, start, end);
        // hyparquet starts several reads and waits for one after another: when the first fails, nobody waits for the rest.
        bytes.catch(() => undefined);
        return bytes;
      },
    };
    const metadata = await attempt(() => parquetMetadataAsync(file));
    checkMetadata(path, metadata);
    const present = columnsOf(metadata);
    const wanted = present.filter((name) => columns.includes(name));
    const line = counter();
    if (wanted.length === 0) {
      // The layout's own refusal names the columns that there are.
      if (metadata.num_rows > 0n) yield { fields: asFields(present), source: { file: path, line: 1 } };
      return;
    }
    let rowStart = 0;
    for (const { num_rows } of metadata.row_groups) {
      const rowEnd = rowStart + Number(num_rows);
      const range = { rowStart, rowEnd };
      const rows = await attempt(() => parquetReadObjects({ file, metadata, columns: wanted, compressors, ...range }));
      if (rows.length !== Number(num_rows)) throw damaged(path, "a row group has other rows than it says");
      rowStart = rowEnd;
      for (const row of rows) {
        const fields = plain(row, 0);
        if (typeof fields !== "object" || fields === null) throw damaged(path, "a row is no record");
        yield { fields: fields as Record<string, unknown>, source: { file: path, line: line() } };
      }
    }
  } finally {
    await opened.close();
  }
}

async function sliceOf(file: ReadableFile, start: number, end: number): Promise<ArrayBuffer> {
  if (!(start >= 0 && start <= end && end <= file.size)) throw new Error("it names bytes that it does not have");
  return (await file.read(start, end - start)).buffer;
}

function counter(): () => number {
  let count = 0;
  return () => ++count;
}

function damaged(path: string, reason: string, cause?: unknown): DatasetError {
  const said = reason
    .replace(/^parquet /, "")
    .replace(/\.$/, "")
    .slice(0, 200);
  return new DatasetError(`${path} is damaged or not a parquet file: ${said}.`, { cause });
}

function checkMetadata(path: string, metadata: FileMetaData): void {
  if (!Array.isArray(metadata.row_groups)) throw damaged(path, "it names no row groups");
  for (const { columns, num_rows } of metadata.row_groups) {
    if (!(num_rows >= 0n && num_rows <= mostRows)) throw damaged(path, `a row group says that it has ${num_rows} rows`);
    if (!Array.isArray(columns)) throw damaged(path, "a row group has no columns");
    for (const { meta_data } of columns) {
      const codec = meta_data?.codec;
      if (codec !== undefined && (ownCodecs.includes(codec) || codec in compressors)) continue;
      const name = meta_data?.path_in_schema?.join(".") ?? "?";
      const supported = [...ownCodecs, ...Object.keys(compressors)].filter((one, i, all) => all.indexOf(one) === i);
      throw new DatasetError(
        `${path}: the column "${name}" is compressed with ${codec ?? "a codec that is not known"}, which is not supported; write the file again with one of ${supported.join(", ")}.`,
      );
    }
  }
}

/** The top-level columns, from the first level of the schema's tree, which is stored depth first. */
function columnsOf(metadata: FileMetaData): string[] {
  const names = metadata.row_groups.flatMap(({ columns }) =>
    columns.map(({ meta_data }) => meta_data?.path_in_schema?.[0] ?? ""),
  );
  return [...new Set(names)];
}

function asFields(names: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(names.map((name) => [name, ""]));
}

/** Values as JSON has them. */
function plain(value: unknown, depth: number): unknown {
  if (typeof value === "bigint") {
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : String(value);
  }
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value.toISOString();
  if (Array.isArray(value)) return value.map((item) => plain(item, depth + 1));
  if (ArrayBuffer.isView(value))
    return Array.from(value as unknown as ArrayLike<unknown>, (item) => plain(item, depth));
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).map(([name, item]) => [name, plain(item, depth + 1)] as const);
  // A message's null content says that it has none; all other nulls in structs are fields that were never there.
  return Object.fromEntries(entries.filter(([name, item]) => depth === 0 || name === "content" || item != null));
}
