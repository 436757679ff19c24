/** Parquet beyond the fixtures: every codec and encoding that is read, and files that ask for more than they hold. */
import { readFileSync } from "node:fs";
import { brotliCompressSync, gzipSync } from "node:zlib";
import fc from "fast-check";
import { type ColumnSource, parquetWriteBuffer } from "hyparquet-writer";
import { describe, expect, it } from "vitest";
import { DatasetError } from "../../../src/errors.ts";
import { type Codec, decompress } from "../../../src/kto/data/parquet-codecs.ts";
import { checkRuns, checkValues, encodings } from "../../../src/kto/data/parquet-encodings.ts";
import { readFeedback } from "../../../src/kto/data/read.ts";
import {
  concatenated,
  Damage,
  pruned,
  readThrift,
  type ThriftStruct,
  type ThriftValue,
  thrift,
  writeThrift,
} from "../../../src/kto/data/thrift.ts";
import { fileIn, temporaryFolder } from "../../helpers/folders.ts";

const folder = temporaryFolder();
const rows = Array.from({ length: 70 }, (_, i) => ({
  prompt: `prompt ${i % 9} ${"abc".repeat(i % 5)}`,
  completion: `completion ${i}`,
  label: (i * 7) % 3 === 0,
}));

/** Zstandard's frame of one block that is stored as it is. */
function zstdStored(bytes: Uint8Array): Uint8Array {
  const frame = Buffer.alloc(12);
  frame.writeUInt32LE(0xfd2fb528);
  frame.writeUInt8(0xa0, 4);
  frame.writeUInt32LE(bytes.length, 5);
  frame.writeUIntLE((bytes.length << 3) | 1, 9, 3);
  return Buffer.concat([frame, bytes]);
}

/** LZ4's block of literals alone. */
function lz4Stored(bytes: Uint8Array): Uint8Array {
  const rest = bytes.length - 15;
  if (rest < 0) return Buffer.concat([Buffer.of(bytes.length << 4), bytes]);
  return Buffer.concat([Buffer.of(0xf0), Buffer.alloc(Math.floor(rest / 255), 255), Buffer.of(rest % 255), bytes]);
}

function hadoop(bytes: Uint8Array): Uint8Array {
  const block = lz4Stored(bytes);
  const sizes = Buffer.alloc(8);
  sizes.writeUInt32BE(bytes.length);
  sizes.writeUInt32BE(block.length, 4);
  return Buffer.concat([sizes, block]);
}

const compressors = {
  GZIP: (bytes: Uint8Array) => gzipSync(bytes),
  BROTLI: (bytes: Uint8Array) => brotliCompressSync(bytes),
  ZSTD: zstdStored,
  LZ4: hadoop,
  LZ4_RAW: lz4Stored,
};
type Encoded = Pick<ColumnSource, "encoding">;

function written(codec: Codec, text: Encoded = {}, label: Partial<ColumnSource> = {}): Uint8Array {
  const columnData: ColumnSource[] = [
    { name: "prompt", data: rows.map(({ prompt }) => prompt), type: "STRING", nullable: true, ...text },
    { name: "completion", data: rows.map(({ completion }) => completion), type: "STRING", ...text },
    { name: "label", data: rows.map((row) => row.label), type: "BOOLEAN", ...label },
  ];
  return new Uint8Array(parquetWriteBuffer({ columnData, codec, compressors, rowGroupSize: 40 }));
}

async function read(bytes: Uint8Array): Promise<unknown[]> {
  const found = await readFeedback(fileIn(folder, "x.parquet", bytes));
  return found.map(({ source: _, ...row }) => row);
}

describe("what is read", () => {
  it.each<Codec>(["UNCOMPRESSED", "SNAPPY", "GZIP", "BROTLI", "ZSTD", "LZ4", "LZ4_RAW"])("codec %s", async (codec) => {
    expect(await read(written(codec))).toEqual(rows);
  });

  it("LZ4 without the sizes that Hadoop puts before its blocks", () => {
    const bytes = Buffer.from("one text that is stored");
    expect(decompress("LZ4", lz4Stored(bytes), bytes.length)).toEqual(new Uint8Array(bytes));
  });

  const numbers = rows.map(({ label }) => (label ? 1 : 0));
  const labels = { data: numbers, type: "INT32" } as const;
  it.each<[string, Encoded, Partial<ColumnSource>]>([
    ["plain", { encoding: "PLAIN" }, { encoding: "PLAIN" }],
    ["dictionaries, and runs of bits", { encoding: "RLE_DICTIONARY" }, { encoding: "RLE" }],
    [
      "deltas of lengths and of numbers",
      { encoding: "DELTA_LENGTH_BYTE_ARRAY" },
      { ...labels, encoding: "DELTA_BINARY_PACKED" },
    ],
    ["shared beginnings", { encoding: "DELTA_BYTE_ARRAY" }, { ...labels, encoding: "BYTE_STREAM_SPLIT" }],
    ["deltas of 64 bits", {}, { data: numbers.map(BigInt), type: "INT64", encoding: "DELTA_BINARY_PACKED" }],
  ])("%s", async (_, text, label) => {
    expect(await read(written("SNAPPY", text, label))).toEqual(rows);
  });

  it("a dictionary of one text, whose indices have no bits, and a column with nulls in it", async () => {
    const columnData: ColumnSource[] = [
      { name: "prompt", data: rows.map(() => "the same"), type: "STRING", encoding: "RLE_DICTIONARY" },
      { name: "completion", data: rows.map((_, i) => `${i}`), type: "STRING" },
      { name: "label", data: rows.map((row) => row.label), type: "BOOLEAN" },
      { name: "chosen", data: rows.map(() => null), type: "STRING", nullable: true },
    ];
    const found = await read(new Uint8Array(parquetWriteBuffer({ columnData })));
    expect(found).toEqual(rows.map(({ label }, i) => ({ prompt: "the same", completion: `${i}`, label })));
  });
});

describe("pages that ask for more than they hold", () => {
  const runs = (bytes: number[], width: number, count: number) =>
    checkRuns(Uint8Array.from(bytes), { start: 0, end: bytes.length, width, count, wanted: 1 });

  it("counts a run and packed bits, the last group filled up", () => {
    expect(runs([6, 1], 1, 3)).toBe(3);
    expect(runs([6, 0], 1, 3)).toBe(0);
    expect(runs([3, 0b11111101], 1, 5)).toBe(4);
    expect(runs([3, 0b01_00_01_01, 0], 2, 4)).toBe(3);
    expect(runs([2, 1, 3, 1], 1, 9)).toBe(2);
  });

  it.each<[string, number[], number, number]>([
    ["a run of 2^30 values, for which hyparquet took all memory", [0xff, 0xff, 0xff, 0xff, 0x07, 1], 1, 5],
    ["packed values without bits, over which it counted for ever", [0xff, 0xff, 0xff, 0xff, 0x0f], 0, 5],
    ["a number without end", [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], 1, 5],
    ["fewer values than the page", [2, 1], 1, 5],
    ["values of 33 bits", [2, 1, 0, 0, 0, 0], 33, 1],
  ])("runs: %s", (_, bytes, width, count) => {
    expect(() => runs(bytes, width, count)).toThrow(Damage);
  });

  const values = (encoding: number, bytes: number[], count: number, type = "BYTE_ARRAY", room = { bytes: 100 }) =>
    checkValues(Uint8Array.from(bytes), {
      start: 0,
      count,
      encoding,
      type,
      typeLength: undefined,
      hasLength: false,
      room,
    });
  /** A block of 8 numbers in one mini block: the first value, then one delta for all the others. */
  const eight = (first: number, delta: number) => [8, 1, 8, 2 * first, 2 * delta, 0];

  it("what texts take is taken from the room of all pages", () => {
    // Eight texts: the first adds one byte, each other shares all of the one before and adds another.
    const texts = [...eight(0, 1), ...eight(1, 0), ...Array.from({ length: 8 }, () => 65)];
    const room = { bytes: 100 };
    values(encodings.deltaByteArray, texts, 8, "BYTE_ARRAY", room);
    expect(room.bytes).toBe(100 - 36);
    values(encodings.deltaByteArray, texts, 8, "BYTE_ARRAY", room);
    expect(() => values(encodings.deltaByteArray, texts, 8, "BYTE_ARRAY", room)).toThrow(Damage);
  });

  it.each<[string, number, number[], number, string?]>([
    [
      "mini blocks by the thousand million",
      encodings.deltaBinaryPacked,
      [8, 0xff, 0xff, 0xff, 0xff, 0x07, 8, 0],
      8,
      "INT32",
    ],
    ["no mini block", encodings.deltaBinaryPacked, [8, 0, 8, 0, 0, 0], 8, "INT32"],
    [
      "blocks of less than nothing, by which it went back",
      encodings.deltaBinaryPacked,
      [0xf8, 0xff, 0xff, 0xff, 0x0f, 1, 8, 0, 0, 8],
      8,
      "INT32",
    ],
    ["a delta of 65 bits", encodings.deltaBinaryPacked, [8, 1, 8, 0, 0, 65], 8, "INT64"],
    ["deltas that end too early", encodings.deltaLengthByteArray, [8, 1, 8, 0, 0, 9], 10],
    ["a beginning longer than the text before", encodings.deltaByteArray, [...eight(50, 0), ...eight(1, 0), 97], 8],
    ["texts that grow and grow", encodings.deltaByteArray, [...eight(0, 7), ...eight(7, 0), ...Array(56).fill(97)], 8],
    ["more plain values than bytes", encodings.plain, [1, 2, 3], 2 ** 30],
    ["an encoding of tomorrow", 44, [1], 1],
  ])("values: %s", (_, encoding, bytes, count, type) => {
    expect(() => values(encoding, bytes, count, type)).toThrow(Damage);
  });

  it.each<[string, Codec, readonly number[] | Uint8Array, number]>([
    ["a literal of less than nothing", "SNAPPY", [4, 0xfc, 0xfa, 0xff, 0xff, 0xff, 0, 0, 0, 0], 4],
    ["a block that leads back to itself", "LZ4", [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xf8, 0, 0, 0, 0], 4],
    ["gzip of more than the page says", "GZIP", gzipSync(Buffer.alloc(1e6)), 100],
    ["Brotli of more than the page says", "BROTLI", brotliCompressSync(Buffer.alloc(1e6)), 100],
    ["a Zstandard window of a gigabyte", "ZSTD", [0x28, 0xb5, 0x2f, 0xfd, 0, 0xa0, 1, 0], 4],
    ["more than the page says", "UNCOMPRESSED", [1, 2, 3], 2],
  ])("%s: refused at once", (_, codec, bytes, length) => {
    const before = process.memoryUsage().arrayBuffers;
    const start = performance.now();
    let page: Uint8Array | undefined;
    try {
      page = decompress(codec, Uint8Array.from(bytes), length);
    } catch (error) {
      expect(error).toBeInstanceOf(Error);
    }
    // Zstandard's decoder fills what is missing with zeros, if nothing else is wrong.
    expect(page?.length ?? length).toBe(length);
    expect(performance.now() - start).toBeLessThan(1000);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(1e7);
  });
});

it("Zstandard of a page that writes beyond its end, 4 GB of it: broken off", () => {
  // A frame of one block: a literal, then 98,047 copies of 65,539 bytes each, all of one kind, and a bit that ends them.
  const block = [0x08, 97, 0xff, 0xff, 0xff, 0x54, 0, 0, 52, 1];
  const frame = [0x28, 0xb5, 0x2f, 0xfd, 0xa0, 100, 0, 0, 0, (block.length << 3) | 5, 0, 0, ...block];
  const start = performance.now();
  expect(() => decompress("ZSTD", Uint8Array.from(frame), 100)).toThrow("timed out");
  expect(performance.now() - start).toBeLessThan(5000);
});

describe("footers", () => {
  const good = readFileSync("test/fixtures/feedback/kto_en_demo.parquet");
  const footerAt = good.length - 8 - good.readUInt32LE(good.length - 8);

  function withFooter(change: (footer: ThriftStruct) => ThriftStruct): Uint8Array {
    const footer = writeThrift(change(readThrift(good, footerAt).fields));
    const size = Buffer.alloc(4);
    size.writeUInt32LE(footer.length);
    return concatenated([good.subarray(0, footerAt), footer, size, Buffer.from("PAR1")]);
  }
  /** The number of a field of every row group or, within it, of every column's metadata. */
  const withNumber = (of: "group" | "column", id: number, value: bigint) => (footer: ThriftStruct) => {
    const number = (fields: ThriftStruct) => fields.map((field) => (field.id === id ? { ...field, value } : field));
    const column = (fields: ThriftStruct) => pruned(fields, [], { id: 3, change: number });
    const group = (fields: ThriftStruct) => pruned(fields, [], { id: 1, change: column });
    return pruned(footer, [], { id: 4, change: of === "group" ? number : group });
  };
  const refusal = async (bytes: Uint8Array) => {
    const error = await readFeedback(fileIn(folder, "x.parquet", bytes)).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    if (error === undefined) return "";
    if (!(error instanceof DatasetError)) throw error;
    return error.message;
  };

  it("are written as they were read", () => {
    const { fields, end } = readThrift(new Uint8Array(good), footerAt);
    expect(end).toBe(good.length - 8);
    expect(readThrift(writeThrift(fields), 0).fields).toEqual(fields);
  });

  it("any struct is read as it was written", () => {
    const value = fc.letrec<{ field: { type: number; value: ThriftValue }; struct: ThriftStruct }>((tie) => ({
      field: fc.oneof(
        fc.boolean().map((value) => ({ type: value ? thrift.true : thrift.false, value })),
        fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map((value) => ({ type: thrift.i64, value })),
        fc.bigInt({ min: -128n, max: 127n }).map((value) => ({ type: thrift.i8, value })),
        fc.uint8Array({ maxLength: 20 }).map((value) => ({ type: thrift.binary, value })),
        fc.uint8Array({ minLength: 8, maxLength: 8 }).map((value) => ({ type: thrift.double, value })),
        fc.array(fc.boolean()).map((items) => ({ type: thrift.list, value: { elementType: thrift.true, items } })),
        fc
          .array(tie("struct"), { maxLength: 20 })
          .map((items) => ({ type: thrift.list, value: { elementType: thrift.struct, items } })),
        tie("struct").map((value) => ({ type: thrift.struct, value })),
      ),
      struct: fc
        .array(fc.tuple(fc.integer({ min: -(2 ** 15), max: 2 ** 15 }), tie("field")), { maxLength: 4 })
        .map((fields) => fields.map(([id, rest]) => ({ id, ...rest }))),
    }));
    fc.assert(
      fc.property(value.struct, (fields) => {
        const bytes = writeThrift(fields);
        expect(readThrift(bytes, 0)).toEqual({ fields, end: bytes.length });
      }),
    );
  });

  it.each<[string, number[]]>([
    ["a list longer than the file", [0x19, 0xfc, 0xff, 0xff, 0xff, 0x7f]],
    ["a text longer than the file", [0x18, 0xff, 0xff, 0xff, 0x7f, 1]],
    ["structs without end", Array(100_000).fill(0x1c)],
    ["lists without end", [0x19, ...Array(100_000).fill(0x19)]],
    ["a number without end", [0x16, ...Array(100_000).fill(0xff)]],
    ["a type of tomorrow", [0x1d, 0]],
    ["nothing", []],
  ])("%s: refused", (_, bytes) => {
    expect(() => readThrift(Uint8Array.from(bytes), 0)).toThrow(Damage);
  });

  it.each<[string, Uint8Array, RegExp]>([
    [
      "rows that no file of this size has",
      withFooter(withNumber("group", 3, 2n ** 30n)),
      /says that it has 1073741824 rows in a row group/,
    ],
    [
      "values that it has not",
      withFooter(withNumber("column", 5, 2n ** 40n)),
      /says that it has 1099511627776 values in a column/,
    ],
    ["fewer values than rows", withFooter(withNumber("column", 5, 3n)), /a column in it has other values than rows/],
    ["a column beyond the end", withFooter(withNumber("column", 7, 2n ** 40n)), /names bytes that it does not have/],
    [
      "row groups that are all the same bytes",
      withFooter((footer) =>
        footer.map((field) => {
          const { value } = field;
          if (field.id !== 4 || typeof value !== "object" || !("items" in value)) return field;
          return { ...field, value: { ...value, items: Array(1000).fill(value.items[0]) } };
        }),
      ),
      /names bytes that it does not have|says that it has/,
    ],
    ["no schema", withFooter((footer) => pruned(footer, [2])), /its footer does not tell its rows and columns/],
    ["no row groups", withFooter((footer) => pruned(footer, [4])), /its footer does not tell its rows and columns/],
    [
      "a footer longer than the file",
      Buffer.from("PAR1\0\0\0\0\xff\xff\xff\x7fPAR1", "latin1"),
      /its footer is longer than the file/,
    ],
    ["another ending", Buffer.from("PAR1 and much more"), /it does not end with "PAR1"/],
  ])("%s", async (_, bytes, sentence) => {
    expect(await refusal(bytes)).toMatch(sentence);
  });

  it("damage anywhere is told in our words", async () => {
    const ours = /^\S+ is damaged or not a parquet file: (it|its|a|an) [A-Za-z0-9 "]+; write it again\.$/;
    const told = new Set<string>();
    await fc.assert(
      fc.asyncProperty(
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        fc.nat(255),
        async (place, byte) => {
          const bytes = Buffer.from(good);
          // Half of the changes go into the footer.
          const from = byte % 2 === 0 ? footerAt : 4;
          bytes[from + Math.floor(place * (good.length - from))] = byte;
          const message = await refusal(bytes);
          const [, reason = ""] = /not a parquet file: (.*)/.exec(message) ?? [];
          if (reason !== "") {
            expect(message).toMatch(ours);
            told.add(reason.replace(/\d+/g, "n"));
          }
        },
      ),
      { seed: 11, numRuns: 300 },
    );
    // The damages reach many of the checks: so many different sentences of this seed.
    expect(told.size).toBeGreaterThan(5);
  });
});
