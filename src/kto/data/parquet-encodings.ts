/**
 * Follows the encoded values of a parquet page without keeping them, so that a decoder which believes every count that
 * it meets may have the page: runs, deltas and lengths stay within the page and its number of values. All throw Damage.
 * Encodings as in Apache's parquet-format, Encodings.md.
 */
import { deltaBinaryUnpack } from "hyparquet/src/delta.js";
import { Damage, readVarint } from "./thrift.ts";

/** parquet's numbers of encodings. */
export const encodings = {
  plain: 0,
  plainDictionary: 2,
  rle: 3,
  deltaBinaryPacked: 5,
  deltaLengthByteArray: 6,
  deltaByteArray: 7,
  rleDictionary: 8,
  byteStreamSplit: 9,
};

const largestBlock = 2 ** 20;

/** Bytes that one value has at least. A text stored plainly has its length before it. */
export function leastBytes(type: string, typeLength: number | undefined): number {
  switch (type) {
    case "BOOLEAN":
      return 1 / 8;
    case "INT32":
    case "FLOAT":
    case "BYTE_ARRAY":
      return 4;
    case "INT64":
    case "DOUBLE":
      return 8;
    case "INT96":
      return 12;
    case "FIXED_LEN_BYTE_ARRAY":
      if (typeLength !== undefined && typeLength > 0) return typeLength;
  }
  throw new Damage("a column in it is of no known type");
}

/**
 * Runs of one value, and of values packed by bits, in bytes `start` to `end`.
 *
 * @param width bits of a value
 * @param count values that the runs must give
 * @param wanted the values equal to this are counted; none if undefined
 */
export function checkRuns(
  bytes: Uint8Array,
  { start, end, width, count, wanted }: { start: number; end: number; width: number; count: number; wanted?: number },
): number {
  if (width > 32 || end > bytes.length || start > end) throw new Damage("a page in it is shorter than it says");
  let equal = 0;
  let seen = 0;
  let at = start;
  while (seen < count) {
    const header = readVarint(bytes, at, end);
    at = header.end;
    const number = Number(header.value >> 1n);
    if ((header.value & 1n) === 0n) {
      if (number > count - seen) throw new Damage("a run in it has more values than its page");
      let value = 0;
      const next = at + Math.ceil(width / 8);
      for (let i = 0; at + i < next; i++) value += (bytes[at + i] ?? 0) * 256 ** i;
      at = next;
      if (value === wanted) equal += number;
      seen += number;
    } else {
      // The last group of eight may be filled up.
      const most = Math.ceil((count - seen) / 8);
      if (width === 0 ? number > most : number * width > end - at + width) {
        throw new Damage("a run in it has more values than its page");
      }
      const packed = Math.min(number * 8, count - seen);
      if (wanted !== undefined) equal += countPacked(bytes, at, width, packed, wanted);
      seen += packed;
      at += number * width;
    }
    if (at > end && seen < count) throw new Damage("a page in it is shorter than it says");
  }
  return equal;
}

function countPacked(bytes: Uint8Array, start: number, width: number, count: number, wanted: number): number {
  let equal = 0;
  for (let i = 0, bit = start * 8; i < count; i++, bit += width) {
    let value = 0;
    for (let b = 0; b < width; b++) value |= (((bytes[(bit + b) >> 3] ?? 0) >> ((bit + b) & 7)) & 1) << b;
    if (value === wanted) equal++;
  }
  return equal;
}

/** Deltas from `start`: a header, then blocks of mini blocks, each with a width of its own. Returns where they end. */
function checkDeltas(bytes: Uint8Array, start: number, count: number): number {
  let at = start;
  const next = () => {
    const { value, end } = readVarint(bytes, at);
    at = end;
    return Number(value);
  };
  const [blockSize, miniBlocks] = [next(), next()];
  next();
  next();
  const size = blockSize / miniBlocks;
  // parquet asks for 32, and some writers make do with 8; the packing needs whole bytes.
  if (!(miniBlocks > 0 && blockSize <= largestBlock && size >= 8 && size % 8 === 0)) {
    throw new Damage("a block of numbers in it has no possible size");
  }
  for (let seen = 1; seen < count; ) {
    next();
    const widths = bytes.subarray(at, at + miniBlocks);
    at += miniBlocks;
    if (at > bytes.length) throw new Damage("a block of numbers in it does not end");
    for (let i = 0; i < miniBlocks && seen < count; i++) {
      const width = widths[i] as number;
      if (width > 64) throw new Damage("a number in it has more than 64 bits");
      at += (size * width) / 8;
      seen += size;
      if (at > bytes.length && seen < count) throw new Damage("a block of numbers in it does not end");
    }
  }
  return Math.min(at, bytes.length);
}

/** What the rest of a column may still take when it is decoded; each page takes its part away. */
export interface Room {
  bytes: number;
}

/** Texts that begin as the one before: lengths shared, lengths added, then what is added. */
function checkPrefixes(bytes: Uint8Array, start: number, count: number, room: Room): void {
  const middle = checkDeltas(bytes, start, count);
  checkDeltas(bytes, middle, count);
  const reader = { view: new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), offset: start };
  const [shared, added] = [new Int32Array(count), new Int32Array(count)];
  deltaBinaryUnpack(reader, count, shared);
  deltaBinaryUnpack(reader, count, added);
  let total = 0;
  let last = 0;
  for (let i = 0; i < count; i++) {
    const [prefix, suffix] = [shared[i] ?? 0, added[i] ?? 0];
    if (prefix < 0 || suffix < 0 || prefix > last) throw new Damage("a text in it shares more than there is");
    last = prefix + suffix;
    total += last;
    if (total > room.bytes) throw new Damage("its texts are larger than the file can tell");
  }
  room.bytes -= total;
}

/**
 * The values of a page from `start` on.
 *
 * @param count values that are not null
 * @param hasLength whether runs have their length in bytes before them, and bits of one
 * @param room what texts may take, decoded; less after each page
 */
export function checkValues(
  bytes: Uint8Array,
  options: {
    start: number;
    count: number;
    encoding: number | undefined;
    type: string;
    typeLength: number | undefined;
    hasLength: boolean;
    room: Room;
  },
): void {
  const { start, count, encoding, type, typeLength, hasLength, room } = options;
  const left = bytes.length - start;
  switch (encoding) {
    case encodings.plain:
    case encodings.byteStreamSplit:
      if (Math.ceil(count * leastBytes(type, typeLength)) > left)
        throw new Damage("a page in it is shorter than it says");
      return;
    case encodings.plainDictionary:
    case encodings.rleDictionary:
    case encodings.rle: {
      if (count === 0) return;
      const width = hasLength ? 1 : (bytes[start] ?? 0);
      checkRuns(bytes, { start: start + (hasLength ? 4 : 1), end: bytes.length, width, count });
      return;
    }
    case encodings.deltaBinaryPacked:
    case encodings.deltaLengthByteArray:
      checkDeltas(bytes, start, count);
      return;
    case encodings.deltaByteArray:
      checkPrefixes(bytes, start, count, room);
      return;
  }
  throw new Damage("a page in it is encoded in a way that is not known");
}
