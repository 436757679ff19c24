/**
 * One column of a row group, as it lies in the file, to the same column made of pages that are not compressed and whose
 * every length and count holds: what hyparquet, which believes them, then decodes within time and memory.
 * Headers as in Apache's parquet.thrift.
 */
import { type Codec, decompress } from "./parquet-codecs.ts";
import { checkRuns, checkValues, encodings, leastBytes, type Room } from "./parquet-encodings.ts";
import { Damage, fieldOf, numberOf, readThrift, structOf, type ThriftStruct, thrift, writeThrift } from "./thrift.ts";

export interface PageColumn {
  readonly codec: Codec;
  /** parquet's physical type. */
  readonly type: string;
  /** Bytes of a value of a fixed length. */
  readonly typeLength: number | undefined;
  readonly maxDefinition: number;
  readonly maxRepetition: number;
  /** Values with nulls, as the footer gives them; the caller bounds them. */
  readonly values: number;
}

const pageTypes = { data: 0, dictionary: 2, dataV2: 3 };

/** What pages may grow to however small they are, as pages of a mebibyte with one text again and again do. */
const leastRoom = 2 ** 24;
/** And for each byte in the file. */
const mostGrowth = 64;

/** The pages one after another, headers and bodies. Throws Damage, or whatever a decoder throws. */
export function plainPages(bytes: Uint8Array, column: PageColumn): Uint8Array[] {
  const parts: Uint8Array[] = [];
  const room: Room = { bytes: leastRoom + mostGrowth * bytes.length };
  let values = 0;
  let at = 0;
  // Behind the last value a writer may leave what it likes.
  while (values < column.values) {
    if (at >= bytes.length) throw new Damage("a column in it ends before its last value");
    const { fields, end } = readThrift(bytes, at);
    const size = numberOf(fields, 2) ?? -1;
    const stored = numberOf(fields, 3) ?? -1;
    if (!(stored >= 0 && stored <= bytes.length - end)) throw new Damage("a page in it is longer than its column");
    if (!(size >= 0 && size <= room.bytes)) throw new Damage("a page in it says that it is larger than it can be");
    const page = { body: bytes.subarray(end, end + stored), size, fields };
    at = end + stored;
    room.bytes -= size;
    switch (numberOf(fields, 1)) {
      case pageTypes.dictionary:
        parts.push(...dictionaryPage(page, column));
        break;
      case pageTypes.data: {
        const left = column.values - values;
        values += countOf(fields, 5, left);
        parts.push(...dataPage(page, column, room));
        break;
      }
      case pageTypes.dataV2: {
        const left = column.values - values;
        values += countOf(fields, 8, left);
        parts.push(...dataPageV2(page, column, room));
        break;
      }
      default:
        throw new Damage("a page in it is of no known kind");
    }
  }
  return parts;
}

interface Page {
  readonly body: Uint8Array;
  /** Bytes when decompressed. */
  readonly size: number;
  readonly fields: ThriftStruct;
}

function countOf(fields: ThriftStruct, id: number, most: number): number {
  const count = numberOf(structOf(fields, id) ?? [], 1) ?? -1;
  if (!(count >= 0 && count <= most)) throw new Damage("a page in it has more values than its column");
  return count;
}

function dictionaryPage({ body, size, fields }: Page, column: PageColumn): Uint8Array[] {
  const page = decompress(column.codec, body, size);
  const header = structOf(fields, 7) ?? [];
  const count = numberOf(header, 1) ?? -1;
  if (!(count >= 0 && Math.ceil(count * leastBytes(column.type, column.typeLength)) <= page.length)) {
    throw new Damage("a dictionary in it is shorter than it says");
  }
  return pageOf(pageTypes.dictionary, page, 7, numbers(header, [1, 2]));
}

function dataPage({ body, size, fields }: Page, column: PageColumn, room: Room): Uint8Array[] {
  const page = decompress(column.codec, body, size);
  const view = new DataView(page.buffer, page.byteOffset, page.byteLength);
  const header = structOf(fields, 5) ?? [];
  const count = numberOf(header, 1) ?? 0;
  let start = 0;
  let present = count;
  for (const [most, isDefinition] of [
    [column.maxRepetition, false],
    [column.maxDefinition, true],
  ] as const) {
    if (most === 0) continue;
    if (start + 4 > page.length) throw new Damage("a page in it is shorter than it says");
    const end = start + 4 + view.getUint32(start, true);
    const equal = checkRuns(page, { start: start + 4, end, width: bitsOf(most), count, wanted: most });
    if (isDefinition) present = equal;
    start = end;
  }
  checkValues(page, {
    start,
    count: present,
    encoding: numberOf(header, 2),
    type: column.type,
    typeLength: column.typeLength,
    hasLength: column.type === "BOOLEAN",
    room,
  });
  return pageOf(pageTypes.data, page, 5, numbers(header, [1, 2, 3, 4]));
}

/** The levels of these pages lie before the values, which alone are compressed. */
function dataPageV2({ body, size, fields }: Page, column: PageColumn, room: Room): Uint8Array[] {
  const header = structOf(fields, 8) ?? [];
  const [count = 0, nulls = 0, rows = -1, encoding, definitionBytes = -1, repetitionBytes = -1] = [
    1, 2, 3, 4, 5, 6,
  ].map((id) => numberOf(header, id));
  const levels = definitionBytes + repetitionBytes;
  if (!(nulls >= 0 && nulls <= count && rows >= 0 && rows <= count)) {
    throw new Damage("a page in it has other rows than values");
  }
  if (!(definitionBytes >= 0 && repetitionBytes >= 0 && levels <= Math.min(size, body.length))) {
    throw new Damage("a page in it is shorter than it says");
  }
  if (column.maxRepetition > 0) {
    checkRuns(body, { start: 0, end: repetitionBytes, width: bitsOf(column.maxRepetition), count });
  }
  if (column.maxDefinition > 0) {
    const wanted = column.maxDefinition;
    const runs = { start: repetitionBytes, end: levels, width: bitsOf(wanted), count, wanted };
    if (checkRuns(body, runs) !== count - nulls) throw new Damage("a page in it has other nulls than it says");
  }
  const packed = body.subarray(levels);
  const isPacked = fieldOf(header, 7) !== false;
  const values = isPacked ? decompress(column.codec, packed, size - levels) : packed;
  checkValues(values, {
    start: 0,
    count: count - nulls,
    encoding,
    type: column.type,
    typeLength: column.typeLength,
    hasLength: encoding === encodings.rle,
    room,
  });
  const page = new Uint8Array(levels + values.length);
  page.set(body.subarray(0, levels));
  page.set(values, levels);
  const unpacked = { id: 7, type: thrift.false, value: false };
  return pageOf(pageTypes.dataV2, page, 8, [...numbers(header, [1, 2, 3, 4, 5, 6]), unpacked]);
}

/** A header for a page that is not compressed, and the page. */
function pageOf(type: number, page: Uint8Array, id: number, header: ThriftStruct): Uint8Array[] {
  const fields = [type, page.length, page.length].map((value, i) => ({
    id: i + 1,
    type: thrift.i32,
    value: BigInt(value),
  }));
  return [writeThrift([...fields, { id, type: thrift.struct, value: header }]), page];
}

function numbers(header: ThriftStruct, ids: readonly number[]): ThriftStruct {
  return ids.map((id) => ({ id, type: thrift.i32, value: BigInt(numberOf(header, id) ?? 0) }));
}

function bitsOf(value: number): number {
  return 32 - Math.clz32(value);
}
