/** The footer of a parquet file: its columns and row groups, of which every number that reading relies on is possible. */
import { type FileMetaData, parquetMetadata } from "hyparquet";
import { getMaxDefinitionLevel, getMaxRepetitionLevel, getSchemaPath, isFlatColumn } from "hyparquet/src/schema.js";
import type { ReadableFile } from "../../engine/platform/index.ts";
import { DatasetError } from "../../errors.ts";
import { codecs, isCodec } from "./parquet-codecs.ts";
import type { PageColumn } from "./parquet-pages.ts";
import { concatenated, Damage, pruned, readThrift, type ThriftStruct, writeThrift } from "./thrift.ts";

export type RowGroup = FileMetaData["row_groups"][number];
export type ColumnMetaData = NonNullable<RowGroup["columns"][number]["meta_data"]>;

/** Rows, and values of a column, that any file may have; and for each of its bytes: a value takes a bit of its column. */
const leastValues = 2 ** 16;
const valuesOfByte = 8;
/** Structs and lists of a schema within each other. */
const deepestSchema = 32;
/** Bytes of a decimal number; to read one takes hyparquet the square of that. */
const longestDecimal = 16;

/** What the last bytes of a file, "PAR1" and the length before it, lead to. Throws Damage, or what hyparquet throws. */
export async function readFooter(file: ReadableFile): Promise<FileMetaData> {
  const ending = file.size < 12 ? new Uint8Array(8) : await file.read(file.size - 8, 8);
  if (new TextDecoder().decode(ending.subarray(4)) !== "PAR1") throw new Damage('it does not end with "PAR1"');
  const length = new DataView(ending.buffer).getUint32(0, true);
  if (length > file.size - 12) throw new Damage("its footer is longer than the file");
  const { fields } = readThrift(await file.read(file.size - 8 - length, length), 0);
  const footer = writeThrift(withoutStatistics(fields));
  const size = new Uint8Array(4);
  new DataView(size.buffer).setUint32(0, footer.length, true);
  const metadata = parquetMetadata(concatenated([footer, size, ending.subarray(4)]), { geoparquet: false });
  checkRowGroups(file, metadata);
  return { ...metadata, schema: checkedSchema(metadata.schema) };
}

/** Statistics and the writer's notes can do no harm where they are not. */
function withoutStatistics(footer: ThriftStruct): ThriftStruct {
  const meta = (fields: ThriftStruct) => pruned(fields, [8, 12, 13, 14, 15, 16, 17]);
  const column = (fields: ThriftStruct) => pruned(fields, [], { id: 3, change: meta });
  const group = (fields: ThriftStruct) => pruned(fields, [4], { id: 1, change: column });
  return pruned(footer, [5], { id: 4, change: group });
}

/** Kinds of values that take hyparquet more than their size to decode are left as bytes: no text, label or chat has them. */
function checkedSchema(schema: FileMetaData["schema"]): FileMetaData["schema"] {
  /** Children that are still to come, of the element read last and of those that hold it. */
  const open: number[] = [];
  return schema.map((element) => {
    while (open.at(-1) === 0) open.pop();
    const parent = open.pop();
    if (parent !== undefined) open.push(parent - 1);
    open.push(Math.max(0, element.num_children ?? 0));
    if (open.length > deepestSchema) throw new Damage(`its columns nest more than ${deepestSchema} deep`);
    const { converted_type, logical_type, ...rest } = element;
    const isLong = element.type === "BYTE_ARRAY" || (element.type_length ?? 0) > longestDecimal;
    const isOther = ["VARIANT", "GEOMETRY", "GEOGRAPHY"].includes(logical_type?.type ?? "");
    return {
      ...rest,
      ...(converted_type === undefined || (converted_type === "DECIMAL" && isLong) ? {} : { converted_type }),
      ...(logical_type === undefined || isOther ? {} : { logical_type }),
    };
  });
}

function checkRowGroups(file: ReadableFile, { row_groups }: FileMetaData): void {
  const most = leastValues + valuesOfByte * file.size;
  let rows = 0;
  let bytes = 0;
  for (const { columns, num_rows } of row_groups) {
    rows += Number(num_rows);
    if (!(num_rows >= 0n && rows <= most)) throw new Damage(`it says that it has ${num_rows} rows in a row group`);
    for (const { meta_data: meta } of columns) {
      if (meta === undefined) throw new Damage("it does not say where a column lies");
      const name = meta.path_in_schema.join(".");
      if (!isCodec(meta.codec)) {
        throw new DatasetError(
          `${file.path}: the column "${name}" is compressed with ${meta.codec ?? "a codec that is not known"}, which is not supported; write the file again with one of ${codecs.join(", ")}.`,
        );
      }
      const { start, end } = rangeOf(meta);
      bytes += end - start;
      // Columns do not overlap, so that no byte is read again and again.
      if (!(start >= 0 && start <= end && end <= file.size && bytes <= file.size)) {
        throw new Damage("it names bytes that it does not have");
      }
      if (!(meta.num_values >= 0n && meta.num_values <= most)) {
        throw new Damage(`it says that it has ${meta.num_values} values in a column`);
      }
    }
  }
}

/** Where the pages of a column lie in the file. */
export function rangeOf(meta: ColumnMetaData): { start: number; end: number } {
  const start = Number(meta.dictionary_page_offset || meta.data_page_offset);
  return { start, end: start + Number(meta.total_compressed_size) };
}

/** What reading the pages of a column takes. Throws Damage, or what hyparquet throws. */
export function pageColumn({ schema }: FileMetaData, { num_rows }: RowGroup, meta: ColumnMetaData): PageColumn {
  const path = getSchemaPath(schema, meta.path_in_schema);
  const element = path.at(-1)?.element;
  if (element === undefined || element.type !== meta.type || !isCodec(meta.codec)) {
    throw new Damage("a column in it has two types");
  }
  if (isFlatColumn(path) && meta.num_values !== num_rows) throw new Damage("a column in it has other values than rows");
  return {
    codec: meta.codec,
    type: meta.type,
    typeLength: element.type_length,
    maxDefinition: getMaxDefinitionLevel(path),
    maxRepetition: getMaxRepetitionLevel(path),
    values: Number(meta.num_values),
  };
}
