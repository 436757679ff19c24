/**
 * Decodes a parquet file with hyparquet in a thread of its own: first the footer, then one row group after another.
 * hyparquet trusts what a file says about itself, so the thread's memory is limited here and its time in `parquet.ts`,
 * which also reads the file. Written as a Web Worker; Node runs it as one too.
 */
import { type FileMetaData, parquetMetadata, parquetReadObjects, parquetSchema, type SchemaTree } from "hyparquet";
import {
  compressors,
  decompressBrotli,
  decompressLz4,
  decompressLz4Raw,
  decompressZstd,
  gunzip,
} from "hyparquet-compressors";
import type { FloatPlaces } from "../../engine/files/exact-json.ts";
import { type Allowance, AllowanceError, limitConstructors, takeBytes } from "./allowance.ts";

/** A request: decode the footer (with its length and "PAR1"), decode a row group, or send more of its rows. */
export type ParquetRequest =
  | { readonly footer: Uint8Array; readonly wanted: readonly string[]; readonly allowance: Allowance }
  | { readonly group: number; readonly columns: readonly ArrayBuffer[]; readonly allowance: Allowance }
  | { readonly next: true };

export type ParquetAnswer = Footer | ParquetRows | ParquetFailure;

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
  /** The wanted columns, or members of these, that hold floats. */
  readonly floats: FloatPlaces;
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
export interface ParquetRows {
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

async function answerTo(request: ParquetRequest): Promise<Footer | ParquetRows> {
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
    floats: floatsIn(parquetSchema(metadata).children.filter(({ element }) => wanted.includes(element.name))) ?? {},
  };
}

/** Where the members of a struct, or the columns, hold floats; undefined if nowhere. */
function floatsIn(members: readonly SchemaTree[]): FloatPlaces | undefined {
  const places = members.flatMap((member): [string, FloatPlaces][] => {
    const found = floatsOf(member);
    return found === undefined ? [] : [[member.element.name, found]];
  });
  return places.length === 0 ? undefined : Object.fromEntries(places);
}

/**
 * The places of floats in the values that hyparquet assembles: a list's element and a map's values have no name of
 * their own there.
 */
function floatsOf({ element, children }: SchemaTree): FloatPlaces | undefined {
  if (children.length === 0) return element.type === "DOUBLE" || element.type === "FLOAT" ? true : undefined;
  const [repeated] = children;
  if (element.converted_type === "LIST" && children.length === 1 && repeated !== undefined) {
    const [item] = repeated.children;
    return floatsOf(repeated.children.length === 1 && item !== undefined ? item : repeated);
  }
  if (element.converted_type === "MAP") {
    // Its keys are the rows' own, so that only a map whose values are all floats can be told.
    const values = repeated?.children.find((child) => child.element.name === "value");
    return values !== undefined && floatsOf(values) === true ? true : undefined;
  }
  return floatsIn(children);
}

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** hyparquet would put U+FFFD in the place of bytes that are no text. */
function textOf(bytes: Uint8Array): string {
  try {
    return decoder.decode(bytes);
  } catch {
    throw new Refusal("a text in it is not UTF-8");
  }
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
    parsers: { stringFromBytes: (bytes) => bytes && textOf(bytes) },
  });
}

/**
 * Decompressors that count a page's size first, and refuse a page of another size. The packages' own cut what is
 * longer, except that for Snappy.
 */
const limitedCompressors = Object.fromEntries(
  Object.entries({
    ...compressors,
    GZIP: (bytes: Uint8Array, length: number) => filled(length, (output) => gunzip(bytes, output)),
    // Given its output, this one does not allocate what the page says.
    ZSTD: (bytes: Uint8Array, length: number) => filled(length, (output) => decompressZstd(bytes, output)),
    BROTLI: brotli,
    LZ4: lz4,
    LZ4_RAW: (bytes: Uint8Array, length: number) => {
      if (lz4Length(bytes) !== length) throw wrongSize();
      return decompressLz4Raw(bytes, length);
    },
  }).map(([name, decompress]) => [
    name,
    (bytes: Uint8Array, length: number) => {
      takeBytes(allowance, length);
      return length === 0 ? new Uint8Array(0) : decompress(bytes, length);
    },
  ]),
);

function wrongSize(): Refusal {
  return new Refusal("a page in it has another size than it says");
}

/** In an output of 16-bit numbers, what no decompressor has written. */
const unwritten = 256;

/** What a decompressor writes, which must be this many bytes. Its output has one more, which it must not write. */
function filled(length: number, write: (output: Uint8Array) => void): Uint8Array {
  const output = new Uint16Array(length + 1).fill(unwritten);
  write(output as unknown as Uint8Array);
  if (output.indexOf(unwritten) !== length) throw wrongSize();
  return Uint8Array.from(output.subarray(0, length));
}

/**
 * The decoder makes its output itself, of what it is given for the length, and writes what is longer into another one.
 * So it is run over two outputs that differ: where they still do, nothing was written.
 */
function brotli(bytes: Uint8Array, length: number): Uint8Array {
  const [one, other] = [0, 255].map((value) => {
    const output = new Uint8Array(length + 1).fill(value);
    return decompressBrotli(bytes, output.buffer as unknown as number);
  });
  if (one === undefined || other === undefined || one.findIndex((byte, i) => byte !== other[i]) !== length) {
    throw wrongSize();
  }
  return one.subarray(0, length);
}

/** "LZ4" means Hadoop's blocks, each preceded by two sizes. Some writers leave the sizes out. */
function lz4(bytes: Uint8Array, length: number): Uint8Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let [at, total] = [0, 0];
  let isHadoop = true;
  while (at + 8 <= bytes.length && isHadoop) {
    const size = view.getUint32(at);
    const end = at + 8 + view.getUint32(at + 4);
    isHadoop = lz4Length(bytes.subarray(at + 8, end)) === size;
    total += size;
    at = end;
  }
  if (isHadoop && at === bytes.length && total === length) return decompressLz4(bytes, length);
  if (lz4Length(bytes) !== length) throw wrongSize();
  return decompressLz4Raw(bytes, length);
}

/** Bytes that a block of LZ4 decompresses to, by the lengths of its literals and copies. */
function lz4Length(bytes: Uint8Array): number {
  let [at, length] = [0, 0];
  const lengthOf = (nibble: number) => {
    let size = nibble;
    if (nibble === 15) {
      let more: number;
      do {
        more = bytes[at++] ?? 0;
        size += more;
      } while (more === 255);
    }
    return size;
  };
  while (at < bytes.length) {
    const token = bytes[at++] ?? 0;
    const literals = lengthOf(token >> 4);
    at += literals;
    length += literals;
    if (at >= bytes.length) break;
    at += 2;
    length += lengthOf(token & 15) + 4;
  }
  return length;
}

/** Sends rows until they have a few million characters. */
function nextRows(): ParquetRows {
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
