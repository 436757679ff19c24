/**
 * Parquet files to records, a row group at a time, read by ranges. hyparquet decodes, and is given only what was checked
 * before: it takes the memory that a file asks for.
 */
import { type FileMetaData, parquetReadObjects } from "hyparquet";
import { platform, type ReadableFile } from "../../engine/platform/index.ts";
import { DatasetError, KtoError } from "../../errors.ts";
import { pageColumn, type RowGroup, rangeOf, readFooter } from "./parquet-footer.ts";
import { plainPages } from "./parquet-pages.ts";
import { concatenated, Damage } from "./thrift.ts";
import type { FileRecord } from "./types.ts";

/** Lists and structs of a value within each other; a column of JSON could hold more. */
const deepestValue = 100;
/** Columns lie so far apart in the file in memory that hyparquet asks for each as a whole, which need not be copied. */
const columnDistance = 2 ** 40;

/**
 * The rows of a parquet file; `source.line` is the number of the row, from 1. Whole numbers come as numbers, and fields
 * of a struct that are null are left out, since a parquet struct cannot lack a field.
 *
 * @param columns the only columns that are read
 * @throws DatasetError naming the file: not parquet, damaged, or compressed in a way that is not supported
 */
export async function* parquetRecords(path: string, columns: readonly string[]): AsyncGenerator<FileRecord> {
  const file = await platform.openFile(path);
  // An error of the file itself comes out as it went in; what hyparquet throws is no sentence.
  const attempt = async <T>(work: () => T | Promise<T>, failure: string): Promise<T> => {
    try {
      return await work();
    } catch (error) {
      if (error instanceof KtoError) throw error;
      const reason = error instanceof Damage ? error.message : failure;
      throw new DatasetError(`${path} is damaged or not a parquet file: ${reason}; write it again.`, { cause: error });
    }
  };
  try {
    if (file.size === 0) throw new DatasetError(`${path} is empty; give a file that holds rows.`);
    const metadata = await attempt(() => readFooter(file), "its footer does not tell its rows and columns");
    const present = columnsOf(metadata);
    const wanted = present.filter((name) => columns.includes(name));
    if (wanted.length === 0) {
      // The layout's own refusal names the columns that there are.
      if (metadata.num_rows > 0n) yield { fields: asFields(present), source: { file: path, line: 1 } };
      return;
    }
    let line = 0;
    for (const group of metadata.row_groups) {
      const failure = `its rows ${line + 1} to ${line + Number(group.num_rows)} cannot be decoded`;
      const rows = await attempt(() => readRowGroup(file, metadata, group, wanted), failure);
      for (const row of rows) {
        line++;
        const fields = await attempt(() => plain(row, 0), failure);
        yield { fields: fields as Record<string, unknown>, source: { file: path, line } };
      }
    }
  } finally {
    await file.close();
  }
}

/** The rows of a group, from a file in memory that holds its wanted columns and nothing else. */
async function readRowGroup(
  file: ReadableFile,
  metadata: FileMetaData,
  group: RowGroup,
  wanted: readonly string[],
): Promise<Record<string, unknown>[]> {
  const buffers: ArrayBuffer[] = [];
  const columns: RowGroup["columns"] = [];
  for (const { meta_data: meta } of group.columns) {
    if (meta === undefined || !wanted.includes(meta.path_in_schema[0] ?? "")) continue;
    const { start, end } = rangeOf(meta);
    const pages = concatenated(plainPages(await file.read(start, end - start), pageColumn(metadata, group, meta)));
    const { dictionary_page_offset: _, ...rest } = meta;
    columns.push({
      file_offset: 0n,
      meta_data: {
        ...rest,
        codec: "UNCOMPRESSED",
        data_page_offset: BigInt(buffers.length * columnDistance),
        total_compressed_size: BigInt(pages.length),
      },
    });
    buffers.push(pages.buffer);
  }
  return await parquetReadObjects({
    file: {
      byteLength: buffers.length * columnDistance,
      slice: (start) => buffers[start / columnDistance] ?? new ArrayBuffer(0),
    },
    metadata: { ...metadata, row_groups: [{ ...group, columns }] },
    columns: [...wanted],
    compressors: {},
  });
}

/** The top-level columns, from the first level of the schema's tree, which is stored depth first. */
function columnsOf(metadata: FileMetaData): string[] {
  const names = metadata.row_groups.flatMap(({ columns }) =>
    columns.map(({ meta_data }) => meta_data?.path_in_schema[0] ?? ""),
  );
  return [...new Set(names)];
}

function asFields(names: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(names.map((name) => [name, ""]));
}

/** Values as JSON has them. */
function plain(value: unknown, depth: number): unknown {
  if (depth > deepestValue) throw new Damage(`a value in it nests more than ${deepestValue} deep`);
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
