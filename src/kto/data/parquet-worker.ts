/**
 * Decodes a parquet file with hyparquet in a thread of its own: first the footer, then one row group after another.
 * hyparquet trusts what a file says about itself, so the thread's memory is limited here and its time in `parquet.ts`,
 * which also reads the file. Written as a Web Worker; Node runs it as one too.
 */
import { type FileMetaData, parquetMetadata, parquetReadObjects } from "hyparquet";
import { compressors, decompressLz4, decompressLz4Raw, decompressZstd } from "hyparquet-compressors";
import { type Allowance, AllowanceError, limitConstructors, takeBytes } from "./allowance.ts";

/** A request: decode the footer (with its length and "PAR1"), decode a row group, or send more of its rows. */
export type ParquetRequest =
  | { readonly footer: Uint8Array; readonly wanted: readonly string[]; readonly allowance: Allowance }
  | { readonly group: number; readonly columns: readonly ArrayBuffer[]; readonly allowance: Allowance }
  | { readonly next: true };

export type ParquetAnswer = Footer | Rows | ParquetFailure;

/** Why a request failed: `limit` if memory ran out, `refusal` if there is a sentence for it, `detail` for --debug. */
export interface ParquetFailure {
  readonly limit?: "memory";
  readonly refusal?: string;
  readonly detail: string;
}

export interface Footer {
  /** The names of all top-level columns. */
  readonly present: readonly string[];
  readonly groups: readonly { readonly rows: number; readonly columns: readonly ColumnPlace[] }[];
}

/** Where the bytes of a wanted column lie in the file. A column of structs or lists has several of these. */
export interface ColumnPlace {
  readonly name: string;
  readonly codec: string | undefined;
  readonly start: number;
  readonly end: number;
  /** Bytes of its pages after decompression and values in them, as the file states them. */
  readonly plainBytes: number;
  readonly values: number;
}

/** The next rows of the group, after those that were sent before. */
export interface Rows {
  readonly rows: readonly Readonly<Record<string, unknown>>[];
  readonly isLast: boolean;
}

/** An error whose message follows "is damaged or not a parquet file:" in a sentence. */
class Refusal extends Error {}

/** The deepest nesting of lists and structs in a value. A column of JSON could have more. */
const deepestValue = 100;
/** Characters that are sent at once, and that one row may have. Rows that share a text here get copies when sent. */
const sentCharacters = 2 ** 22;
const longestRow = 2 ** 28;
/**
 * Distance of columns in the file in memory, so large that hyparquet requests each column as a whole, without a copy.
 */
const columnDistance = 2 ** 40;

const allowance: Allowance = { elements: 0, bytes: 0 };
let metadata: FileMetaData | undefined;
let wanted: readonly string[] = [];
/** The rows of the current group, and how many of them were sent. */
let rows: readonly Record<string, unknown>[] = [];
let sent = 0;

limitConstructors(globalThis as unknown as Parameters<typeof limitConstructors>[0], allowance);

globalThis.onmessage = async ({ data }: MessageEvent<ParquetRequest>) => {
  let answer: ParquetAnswer;
  try {
    answer = await answerTo(data);
  } catch (error) {
    answer = {
      ...(error instanceof AllowanceError ? { limit: "memory" } : {}),
      ...(error instanceof Refusal ? { refusal: error.message } : {}),
      detail: error instanceof Error ? error.message : String(error),
    };
  }
  postMessage(answer);
};

async function answerTo(request: ParquetRequest): Promise<Footer | Rows> {
  if ("next" in request) return nextRows();
  Object.assign(allowance, request.allowance);
  if ("footer" in request) return readFooter(request.footer, request.wanted);
  rows = await readRowGroup(request.group, request.columns);
  sent = 0;
  return nextRows();
}

function readFooter(bytes: Uint8Array, names: readonly string[]): Footer {
  metadata = parquetMetadata(bytes, { geoparquet: false });
  const groups = metadata.row_groups.map(({ num_rows, columns }) => ({
    rows: Number(num_rows),
    columns: columns.map(({ meta_data: meta }) => {
      if (meta === undefined) throw new Refusal("it does not say where a column lies");
      const start = Number(meta.dictionary_page_offset || meta.data_page_offset);
      const end = start + Number(meta.total_compressed_size);
      const [plainBytes, values] = [Number(meta.total_uncompressed_size), Number(meta.num_values)];
      if (!(plainBytes >= 0 && values >= 0)) throw new Refusal("it does not say how large a column is");
      const top = meta.path_in_schema[0] ?? "";
      return { name: meta.path_in_schema.join("."), top, codec: meta.codec, start, end, plainBytes, values };
    }),
  }));
  const present = [...new Set(groups.flatMap(({ columns }) => columns.map(({ top }) => top)))];
  wanted = present.filter((name) => names.includes(name));
  return {
    present,
    groups: groups.map((group) => ({ ...group, columns: group.columns.filter(({ top }) => wanted.includes(top)) })),
  };
}

/** Decodes the rows of a group from a file in memory that holds only the wanted columns. */
async function readRowGroup(index: number, buffers: readonly ArrayBuffer[]): Promise<Record<string, unknown>[]> {
  const group = metadata?.row_groups[index];
  if (metadata === undefined || group === undefined) throw new Error("the footer was not read");
  const columns = group.columns.filter(({ meta_data }) => wanted.includes(meta_data?.path_in_schema[0] ?? ""));
  const moved = columns.map(({ meta_data: meta }, i) => {
    if (meta === undefined) return { file_offset: 0n };
    const { dictionary_page_offset: _, ...rest } = meta;
    return { file_offset: 0n, meta_data: { ...rest, data_page_offset: BigInt(i * columnDistance) } };
  });
  return await parquetReadObjects({
    file: {
      byteLength: buffers.length * columnDistance,
      slice: (start) => buffers[start / columnDistance] ?? new ArrayBuffer(0),
    },
    metadata: { ...metadata, row_groups: [{ ...group, columns: moved }] },
    columns: [...wanted],
    compressors: limitedCompressors,
  });
}

/**
 * Decompressors that count a page's size first. Zstandard gets its output buffer, or it would allocate what the page
 * says.
 */
const limitedCompressors = Object.fromEntries(
  Object.entries({
    ...compressors,
    LZ4: lz4,
    ZSTD: (bytes: Uint8Array, length: number) => decompressZstd(bytes, new Uint8Array(length)),
  }).map(([name, decompress]) => [
    name,
    (bytes: Uint8Array, length: number) => {
      takeBytes(allowance, length);
      return length === 0 ? new Uint8Array(0) : decompress(bytes, length);
    },
  ]),
);

/** "LZ4" means Hadoop's blocks, each preceded by two sizes. Some writers leave the sizes out. */
function lz4(bytes: Uint8Array, length: number): Uint8Array {
  try {
    return decompressLz4(bytes, length);
  } catch {
    return decompressLz4Raw(bytes, length);
  }
}

/** Sends rows until they have a few million characters. */
function nextRows(): Rows {
  const chunk: Record<string, unknown>[] = [];
  for (let size = 0; sent < rows.length && size < sentCharacters; size += characters) {
    characters = 0;
    chunk.push(plain(rows[sent++], 0) as Record<string, unknown>);
  }
  const isLast = sent === rows.length;
  if (isLast) [rows, sent] = [[], 0];
  return { rows: chunk, isLast };
}

/** Characters of the row that `plain` converts. */
let characters = 0;

/**
 * Converts a value to what JSON has: whole numbers to numbers, times to ISO texts, bytes to lists. Nulls in structs are
 * removed, since a parquet struct always has all fields, except for a message's null content, which has a meaning.
 */
function plain(value: unknown, depth: number): unknown {
  if (depth > deepestValue) throw new Refusal(`a value in it nests more than ${deepestValue} deep`);
  characters += typeof value === "string" ? value.length : 1;
  if (characters > longestRow) throw new Refusal(`a row in it has more than ${longestRow} characters`);
  if (typeof value === "bigint") {
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : String(value);
  }
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value.toISOString();
  if (Array.isArray(value)) return value.map((item) => plain(item, depth + 1));
  if (ArrayBuffer.isView(value)) {
    return Array.from(value as unknown as ArrayLike<unknown>, (item) => plain(item, depth));
  }
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).map(([name, item]) => [name, plain(item, depth + 1)] as const);
  return Object.fromEntries(entries.filter(([name, item]) => depth === 0 || name === "content" || item != null));
}
