/** Parquet beyond the fixtures: every codec and encoding that is read, and files that ask for more than they hold. */
import { readFileSync } from "node:fs";
import { brotliCompressSync, gzipSync } from "node:zlib";
import fc from "fast-check";
import type { FileMetaData } from "hyparquet";
import { type ColumnSource, parquetWriteBuffer } from "hyparquet-writer";
import { describe, expect, it } from "vitest";
import { createChatTemplate } from "../../../src/engine/text/chat-template.ts";
import { DatasetError } from "../../../src/errors.ts";
import { buffersOf } from "../../../src/kto/data/parquet.ts";
import { readFeedback } from "../../../src/kto/data/read.ts";
import { recordsOf } from "../../../src/kto/data/records.ts";
import { type CraftedPage, craftedParquet, encodings } from "../../helpers/crafted-parquet.ts";
import { fileIn, temporaryFolder } from "../../helpers/folders.ts";
import { readInChild } from "../../helpers/read-in-child.ts";

type RowGroup = FileMetaData["row_groups"][number];
type Column = NonNullable<RowGroup["columns"][number]["meta_data"]>;
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
type Codec = NonNullable<ColumnSource["codec"]>;
type Encoded = Pick<ColumnSource, "encoding">;

function written(
  codec: Codec,
  text: Encoded = {},
  label: Partial<ColumnSource> = {},
  others: Partial<typeof compressors> = {},
): Uint8Array {
  const columnData: ColumnSource[] = [
    { name: "prompt", data: rows.map(({ prompt }) => prompt), type: "STRING", nullable: true, ...text },
    { name: "completion", data: rows.map(({ completion }) => completion), type: "STRING", ...text },
    { name: "label", data: rows.map((row) => row.label), type: "BOOLEAN", ...label },
  ];
  return new Uint8Array(
    parquetWriteBuffer({ columnData, codec, compressors: { ...compressors, ...others }, rowGroupSize: 40 }),
  );
}

async function read(bytes: Uint8Array): Promise<unknown[]> {
  const found = await readFeedback(fileIn(folder, "x.parquet", bytes));
  return found.map(({ source: _, ...row }) => row);
}

describe("what is read", () => {
  it.each<Codec>(["UNCOMPRESSED", "SNAPPY", "GZIP", "BROTLI", "ZSTD", "LZ4", "LZ4_RAW"])("codec %s", async (codec) => {
    expect(await read(written(codec))).toEqual(rows);
  });

  it("LZ4 without the sizes that Hadoop puts before its blocks", async () => {
    expect(await read(written("LZ4", {}, {}, { LZ4: lz4Stored }))).toEqual(rows);
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

it("numbers of DOUBLE columns are floats for templates, in structs and lists, and those of INT columns are not", async () => {
  const leaf = (name: string, type: "DOUBLE" | "INT32" | "BYTE_ARRAY") => ({
    name,
    type,
    repetition_type: "REQUIRED" as const,
  });
  const text = (name: string) => ({ ...leaf(name, "BYTE_ARRAY"), converted_type: "UTF8" as const });
  const list = { num_children: 1, repetition_type: "REQUIRED", converted_type: "LIST" } as const;
  const schema: FileMetaData["schema"] = [
    { name: "root", num_children: 3 },
    text("prompt"),
    text("completion"),
    { name: "chat_template_kwargs", num_children: 4, repetition_type: "OPTIONAL" },
    leaf("temperature", "DOUBLE"),
    leaf("count", "INT32"),
    { name: "list", ...list },
    { name: "list", num_children: 1, repetition_type: "REPEATED" },
    leaf("element", "DOUBLE"),
    { name: "ints", ...list },
    { name: "list", num_children: 1, repetition_type: "REPEATED" },
    leaf("element", "INT32"),
  ];
  const columnData: ColumnSource[] = [
    { name: "prompt", data: ["p"] },
    { name: "completion", data: ["c"] },
    { name: "chat_template_kwargs", data: [{ temperature: 1, count: 1, list: [2, 2.5], ints: [2] }] },
  ];
  const path = fileIn(folder, "floats.parquet", new Uint8Array(parquetWriteBuffer({ schema, columnData })));
  const template = createChatTemplate("{{ kwargs }}", {}, "t.jinja");
  for await (const { fields } of recordsOf(path, { columns: ["prompt", "chat_template_kwargs"] })) {
    expect(template.render([], { variables: { kwargs: fields.chat_template_kwargs } })).toBe(
      "{'temperature': 1.0, 'count': 1, 'list': [2.0, 2.5], 'ints': [2]}",
    );
  }
  expect.assertions(1);
});

/** What a file is refused with, in one sentence; "" if it is read. Anything but a DatasetError is a fault. */
async function refusal(bytes: Uint8Array): Promise<string> {
  try {
    await readFeedback(fileIn(folder, "x.parquet", bytes));
  } catch (error) {
    if (!(error instanceof DatasetError)) throw error;
    return error.message;
  }
  return "";
}

/** Runs of parquet after their length. */
const runs = (...bytes: number[]) => [bytes.length, 0, 0, 0, ...bytes];
const large = [0xff, 0xff, 0xff, 0xff, 0x07];
/** The same as a count of groups of eight that follow bit by bit. */
const largePacked = [0xff, 0xff, 0xff, 0xff, 0x0f];

describe("pages that ask for more than they hold are refused, and the process goes on", () => {
  const zstdBlock = [0x08, 97, 0xff, 0xff, 0xff, 0x54, 0, 0, 52, 1];
  const greedy: [string, CraftedPage][] = [
    ["a run of 2^30 values in a page of 5", { optional: true, values: 5, body: runs(...large, 1) }],
    [
      "packed values of one bit by the thousand million",
      { optional: true, values: 5, body: runs(...largePacked, 1, 1, 1) },
    ],
    ["2^30 plain texts in three bytes", { values: 2 ** 30, body: [1, 2, 3] }],
    ["60 million values of no bits", { values: 6e7, encoding: encodings.dictionary, body: [0] }],
    [
      "60 million dates of no bits",
      { values: 6e7, encoding: encodings.dictionary, type: "INT32", convertedType: "DATE", body: [0] },
    ],
    [
      "2^30 numbers with one delta",
      { values: 2 ** 30, type: "INT32", encoding: encodings.delta, body: [0x80, 0x80, 0x80, 0x80, 8, 1, 8, 0, 0, 0] },
    ],
    [
      "mini blocks by the thousand million",
      { values: 8, type: "INT32", encoding: encodings.delta, body: [8, ...large, 8, 0] },
    ],
    ["no mini block", { values: 8, type: "INT32", encoding: encodings.delta, body: [8, 0, 8, 0, 0, 0] }],
    [
      "blocks of less than nothing",
      { values: 8, type: "INT32", encoding: encodings.delta, body: [0xf8, ...large, 1, 8, 0, 0, 8] },
    ],
    ["a delta of 65 bits", { values: 8, type: "INT64", encoding: encodings.delta, body: [8, 1, 8, 0, 0, 65] }],
    ["deltas that end too early", { values: 10, encoding: encodings.lengths, body: [8, 1, 8, 0, 0, 9] }],
    ["an encoding of tomorrow", { values: 1, encoding: 44, body: [1] }],
    ["bytes split over 2^29 values", { values: 2 ** 29, type: "DOUBLE", encoding: encodings.split, body: [1, 2, 3] }],
    ["a page of 2 GB", { values: 1, size: 2 ** 31 - 1, body: [1, 0, 0, 0, 65] }],
    ["Snappy of 2 GB", { codec: "SNAPPY", values: 1, size: 2 ** 31 - 1, body: [0xff, 0xff, 0xff, 0xff, 7, 0, 65] }],
    [
      "Snappy with a literal of less than nothing",
      { codec: "SNAPPY", values: 1, size: 4, body: [4, 0xfc, 0xfa, 0xff, 0xff, 0xff, 0, 0, 0, 0] },
    ],
    [
      "LZ4 with a block that leads back to itself",
      { codec: "LZ4", values: 1, size: 4, body: [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xf8, 0, 0, 0, 0] },
    ],
    ["gzip of 2 GB", { codec: "GZIP", values: 1, size: 2 ** 31 - 1, body: gzipSync(Buffer.alloc(1e6)) }],
    [
      "a Zstandard window of a gigabyte",
      { codec: "ZSTD", values: 1, size: 4, body: [0x28, 0xb5, 0x2f, 0xfd, 0, 0xa0, 1, 0] },
    ],
    [
      // A literal, then 98,047 copies of 65,539 bytes each, all of one kind, and a bit that ends them.
      "Zstandard that writes 4 GB beyond its end",
      {
        codec: "ZSTD",
        values: 1,
        size: 100,
        body: [0x28, 0xb5, 0x2f, 0xfd, 0xa0, 100, 0, 0, 0, (zstdBlock.length << 3) | 5, 0, 0, ...zstdBlock],
      },
    ],
  ];
  const good = fileIn(folder, "good.parquet", written("SNAPPY"));

  /** A file with one long text that all of its rows share: 200 MB, were it sent for all of them at once. */
  const SHARING = 2000;
  function sharedText(): string {
    const columnData: ColumnSource[] = [
      { name: "prompt", data: Array(SHARING).fill("long ".repeat(20_000)), type: "STRING", encoding: "RLE_DICTIONARY" },
      { name: "completion", data: Array.from({ length: SHARING }, (_, i) => `${i}`), type: "STRING" },
      { name: "label", data: Array.from({ length: SHARING }, (_, i) => i % 2 === 0), type: "BOOLEAN" },
    ];
    const bytes = parquetWriteBuffer({ columnData, rowGroupSize: SHARING });
    return fileIn(folder, "shared.parquet", new Uint8Array(bytes));
  }

  it("all of these in one process, whose memory stays below half a gigabyte more than a good file takes, and a shared text", () => {
    const files = greedy.map(([, page], i) => fileIn(folder, `greedy-${i}.parquet`, craftedParquet(page)));
    const [, shared, ...read] = readInChild([good, sharedText(), ...files]);
    expect(shared).toMatchObject({ rows: SHARING, error: "" });
    expect(shared?.grownBytes).toBeLessThan(2 ** 27);
    const found = read.map(({ error, message, grownBytes }, i) => ({
      ...{ name: greedy[i]?.[0], error },
      isOurs: /greedy-\d+\.parquet is damaged or not a parquet file: .*; write it again\.$/.test(message),
      isFrugal: grownBytes < 2 ** 29,
    }));
    expect(found).toEqual(greedy.map(([name]) => ({ name, error: "DatasetError", isOurs: true, isFrugal: true })));
  });

  const text = [1, 0, 0, 0, 65];
  it.each<[string, CraftedPage]>([
    ...(["GZIP", "BROTLI", "LZ4", "LZ4_RAW"] as const).flatMap((codec) =>
      [-1, 1].map((more): [string, CraftedPage] => [
        `${codec} with ${more} bytes more`,
        { codec, values: 1, size: text.length - more, body: compressors[codec](Uint8Array.from(text)) },
      ]),
    ),
    ["Zstandard of fewer bytes", { codec: "ZSTD", values: 1, size: 6, body: zstdStored(Uint8Array.from(text)) }],
    ["gzip of a megabyte", { codec: "GZIP", values: 1, size: 100, body: gzipSync(Buffer.alloc(1e6)) }],
    ["Brotli of a megabyte", { codec: "BROTLI", values: 1, size: 100, body: brotliCompressSync(Buffer.alloc(1e6)) }],
  ])("another size than the page says: %s", async (_, page) => {
    expect(await refusal(craftedParquet(page))).toMatch(
      /: a page in it has another size than it says; write it again\.$/,
    );
  });

  it("a text that is not UTF-8, which would be read with U+FFFD in it", async () => {
    expect(await refusal(craftedParquet({ values: 1, body: [2, 0, 0, 0, 65, 0xff], convertedType: "UTF8" }))).toMatch(
      /: a text in it is not UTF-8; write it again\.$/,
    );
  });

  it("a group may take what its bytes justify, at most what it states, and never more than 4 GiB", () => {
    const mega = 2 ** 20;
    expect(buffersOf(mega, [{ plainBytes: 1024 * mega, values: 0 }])).toBe(64 * mega + 128 * mega);
    expect(buffersOf(100 * mega, [{ plainBytes: 300 * mega, values: mega }])).toBe((64 + 4 * 300 + 32) * mega);
    expect(buffersOf(100 * mega, [{ plainBytes: 10_000 * mega, values: mega }])).toBe(4096 * mega);
  });

  it("texts that begin as the one before, each longer than it by one, whose sum grows with the square", async () => {
    const growing = (count: number) => {
      const block = (first: number, delta: number) => [...varint(count), 1, ...varint(count), 2 * first, 2 * delta, 0];
      return {
        values: count,
        encoding: encodings.prefixes,
        body: [...block(0, 1), ...block(1, 0), ...Array(count).fill(97)],
      };
    };
    // The column has no others beside it, so that a layout is refused where decoding succeeds.
    expect(await refusal(craftedParquet(growing(800)))).toMatch(/x\.parquet:1: the field "completion" is missing/);
    expect(await refusal(craftedParquet(growing(80_000)))).toMatch(
      /: decoding its rows 1 to 80000 takes more memory than a file of its size may; write it again\.$/,
    );
  });

  it("work without an end: broken off, or refused by its size where a machine is quick enough to end it", async () => {
    const endless = { values: 5, encoding: encodings.dictionary, body: [0, 0, 0, ...largePacked] };
    const zstd = [0x28, 0xb5, 0x2f, 0xfd, 0xa0, 100, 0, 0, 0, (zstdBlock.length << 3) | 5, 0, 0, ...zstdBlock];
    expect(await refusal(craftedParquet({ codec: "ZSTD", values: 1, size: 100, body: zstd }))).toMatch(
      /: (decoding its rows 1 to 1 takes more time than a file of its size may|a page in it has another size than it says); write it again\.$/,
    );
    expect(await refusal(craftedParquet(endless))).not.toBe("");
  });
});

function varint(value: number): number[] {
  return value < 128 ? [value] : [(value & 127) | 128, ...varint(value >>> 7)];
}

describe("footers", () => {
  const good = readFileSync("test/fixtures/feedback/kto_en_demo.parquet");
  const footerAt = good.length - 8 - good.readUInt32LE(good.length - 8);
  const withFooter = (footer: readonly number[]) => {
    const size = Buffer.alloc(4);
    size.writeUInt32LE(footer.length);
    return Buffer.concat([Buffer.from("PAR1\0\0\0\0"), Buffer.from(footer), size, Buffer.from("PAR1")]);
  };
  const text = { values: 1, body: [1, 0, 0, 0, 65] };
  const withGroup = (change: Partial<RowGroup>, column: Partial<Column> = {}) =>
    craftedParquet({
      ...text,
      footer: (metadata) => ({
        ...metadata,
        row_groups: metadata.row_groups.map((group) => ({
          ...group,
          columns: group.columns.map(({ meta_data, ...rest }) => ({
            ...rest,
            ...(meta_data === undefined ? {} : { meta_data: { ...meta_data, ...column } }),
          })),
          ...change,
        })),
      }),
    });

  const malformed = /: its footer cannot be decoded; write it again\.$/;
  it.each<[string, Uint8Array, RegExp]>([
    ["a list longer than the file", withFooter([0x19, 0xfc, 0xff, 0xff, 0xff, 0x07]), malformed],
    [
      "a list of 2^28 structs",
      withFooter([0x19, 0xfc, 0xff, 0xff, 0xff, 0x7f]),
      /: decoding its footer takes more memory than a file of its size may; write it again\.$/,
    ],
    ["a list of less than nothing", withFooter([0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x0f]), malformed],
    ["a text longer than the file", withFooter([0x18, 0xff, 0xff, 0xff, 0x7f, 1]), malformed],
    ["structs without end", withFooter(Array(100_000).fill(0x1c)), malformed],
    ["lists without end", withFooter([0x19, ...Array(100_000).fill(0x19)]), malformed],
    ["a number without end", withFooter([0x16, ...Array(100_000).fill(0xff)]), malformed],
    ["nothing", withFooter([]), malformed],
    [
      "a footer longer than the file",
      Buffer.from("PAR1\0\0\0\0\xff\xff\xff\x7fPAR1", "latin1"),
      /its footer is longer than the file/,
    ],
    ["another ending", Buffer.from("PAR1 and much more"), /it does not end with "PAR1"/],
    [
      "rows that no file of this size has",
      withGroup({ num_rows: 2n ** 30n }),
      /it says that it has 1073741824 rows in a row group/,
    ],
    ["rows by less than nothing", withGroup({ num_rows: -1n }), /it says that it has -1 rows in a row group/],
    [
      "a column beyond the end",
      withGroup({}, { total_compressed_size: 2n ** 40n }),
      /it names bytes that it does not have/,
    ],
    ["a column before the beginning", withGroup({}, { data_page_offset: -4n }), /it names bytes that it does not have/],
    [
      "row groups that are all the same bytes",
      craftedParquet({
        ...text,
        footer: ({ row_groups, ...rest }) => ({ ...rest, row_groups: Array(1000).fill(row_groups[0]) }),
      }),
      /it names bytes that it does not have|the field "completion" is missing/,
    ],
  ])("%s", async (_, bytes, sentence) => {
    expect(await refusal(bytes)).toMatch(sentence);
  });

  it("damage anywhere is told in our words", async () => {
    const ours = /^\S+ is damaged or not a parquet file: [a-z][A-Za-z0-9 "-]+; write it again\.$/;
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
    // The damages of this seed reach the footer's decoding, its numbers and the rows'.
    expect(told.size).toBeGreaterThanOrEqual(3);
  });
});
