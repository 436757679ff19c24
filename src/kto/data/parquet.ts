/**
 * Reads parquet files into records, one row group after another. The bytes are read here, by ranges. hyparquet decodes
 * them in a thread (`parquet-worker.ts`) that is ended if it needs more time or memory than the file's size justifies.
 */
import { type FloatPlaces, noteFloats } from "../../engine/files/exact-json.ts";
import { platform, type ReadableFile, type Thread, ThreadLimit } from "../../engine/platform/index.ts";
import { DatasetError } from "../../errors.ts";
import type { Allowance } from "./allowance.ts";
import { checkHasRows } from "./lines.ts";
import type { ColumnPlace, Footer, ParquetAnswer, ParquetRequest, ParquetRows } from "./parquet-worker.ts";
import type { FileRecord } from "./types.ts";

const decoder = {
  address: new URL("./parquet-worker.js", import.meta.url),
  open: () => new Worker(new URL("./parquet-worker.js", import.meta.url), { type: "module" }),
};

/** The supported codecs, by their names in parquet. */
const codecs = ["UNCOMPRESSED", "SNAPPY", "GZIP", "BROTLI", "LZ4", "LZ4_RAW", "ZSTD"];

/** Each limit is a minimum plus an amount for each byte. This one is for the JavaScript heap, by the file's size. */
const heap = { least: 2 ** 30, ofByte: 16 };
/** ArrayBuffers, by the bytes of a row group. Compressed text grows by 3 to 10, one repeated text by much more. */
const buffers = { least: 2 ** 26, ofByte: 128 };
/** ArrayBuffers, by what a row group states: a page is held compressed, decompressed and as values of up to 8 bytes. */
const stated = { least: 2 ** 26, ofPlainByte: 4, ofValue: 32 };
/** ArrayBuffers of any row group. */
const mostBuffers = 2 ** 32;
/** Time, by the bytes of a row group. Decoding needs about 20 ms for a megabyte of text, decompressing 100 ms. */
const workMs = { least: 1000, ofByte: 3000 / 2 ** 20 };
/** Heap for one element of an array: 8 bytes, several times over while columns become rows. */
const heapBytesOfElement = 64;
/** Rows of a group, by the file's size. A column of equal values needs less than a bit for each. */
const mostRows = { least: 2 ** 16, ofByte: 8 };

/**
 * Bytes of ArrayBuffers that decoding a row group may take.
 *
 * @param size its bytes in the file
 * @param columns the sizes that it states, which lower the limit and never raise it
 */
export function buffersOf(size: number, columns: readonly Pick<ColumnPlace, "plainBytes" | "values">[]): number {
  const ofStated = columns.map(({ plainBytes, values }) => stated.ofPlainByte * plainBytes + stated.ofValue * values);
  const sum = ofStated.reduce((a, b) => a + b, stated.least);
  return Math.min(limit(buffers, size), sum, mostBuffers);
}

function limit({ least, ofByte }: { readonly least: number; readonly ofByte: number }, bytes: number): number {
  return least + ofByte * bytes;
}

/**
 * Reads the rows of a parquet file; `source.line` is the number of the row, from 1. Whole numbers become numbers, and
 * null fields of structs are removed, since a parquet struct always has all fields.
 *
 * @param columns the names of the columns to read
 * @throws DatasetError naming the file if it is not parquet, is damaged, or is compressed with an unsupported codec
 */
export async function* parquetRecords(path: string, columns: readonly string[]): AsyncGenerator<FileRecord> {
  const file = await platform.openFile(path);
  let decode: Decoder | undefined;
  try {
    const bytes = await footerBytes(file);
    decode = new Decoder(file, await decoderThread(limit(heap, file.size)));
    const { present, groups } = await decode.footer(bytes, columns);
    if (!present.some((name) => columns.includes(name))) {
      // One row of empty texts makes the layout refuse the file and name the columns that it has.
      const fields = Object.fromEntries(present.map((name) => [name, ""]));
      if (groups.some(({ rows }) => rows > 0)) yield { fields, source: { file: path, line: 1 } };
      return;
    }
    let line = 0;
    for (const index of groups.keys()) {
      for await (const row of decode.rowsOf(index, line)) yield { fields: row, source: { file: path, line: ++line } };
    }
  } finally {
    await decode?.close();
    await file.close();
  }
}

interface DecoderThread {
  readonly thread: Thread;
  readonly heapBytes: number;
}

/** The thread that decoded the last file, kept for the next one, since data sets often have many files. */
let idle: DecoderThread | undefined;

async function decoderThread(heapBytes: number): Promise<DecoderThread> {
  const kept = idle;
  idle = undefined;
  if (kept !== undefined && kept.heapBytes >= heapBytes) return kept;
  await kept?.thread.end();
  return { thread: await platform.startThread(decoder, heapBytes), heapBytes };
}

/** Reads the end of the file: the footer, its length and "PAR1". */
async function footerBytes(file: ReadableFile): Promise<Uint8Array<ArrayBuffer>> {
  await checkHasRows(file);
  const ending = file.size < 12 ? new Uint8Array(8) : await file.read(file.size - 8, 8);
  if (new TextDecoder().decode(ending.subarray(4)) !== "PAR1") throw damaged(file, 'it does not end with "PAR1"');
  const length = new DataView(ending.buffer).getUint32(0, true);
  if (length > file.size - 12) throw damaged(file, "its footer is longer than the file");
  return await file.read(file.size - 8 - length, length + 8);
}

/** Sends requests to the thread, and turns its failures into sentences. */
class Decoder {
  readonly #file: ReadableFile;
  readonly #thread: DecoderThread;
  /** Whether the thread has answered every request and can be used again. */
  #isSound = true;
  #groups: Footer["groups"] = [];
  #floats: FloatPlaces = {};
  /** Bytes of all columns read so far. Columns do not overlap, so these are never more than the file has. */
  #bytesRead = 0;

  constructor(file: ReadableFile, thread: DecoderThread) {
    this.#file = file;
    this.#thread = thread;
  }

  async close(): Promise<void> {
    if (this.#isSound && idle === undefined) idle = this.#thread;
    else await this.#thread.thread.end();
  }

  async footer(bytes: Uint8Array<ArrayBuffer>, wanted: readonly string[]): Promise<Footer> {
    const request = { footer: bytes, wanted, allowance: this.#allowance(limit(buffers, bytes.length)) };
    const footer = (await this.#ask(request, bytes.length, "its footer", [bytes.buffer])) as Footer;
    this.#groups = footer.groups;
    this.#floats = footer.floats;
    for (const { rows } of footer.groups) {
      if (rows >= 0 && rows <= limit(mostRows, this.#file.size)) continue;
      throw damaged(this.#file, `it says that it has ${rows} rows in a row group`);
    }
    return footer;
  }

  /** @param rowsBefore how many rows the groups before this one have, for error messages */
  async *rowsOf(index: number, rowsBefore: number): AsyncGenerator<ParquetRows["rows"][number]> {
    const file = this.#file;
    const { rows, columns } = this.#groups[index] ?? { rows: 0, columns: [] };
    const contents: ArrayBuffer[] = [];
    let size = 0;
    for (const { name, codec, start, end } of columns) {
      if (codec === undefined || !codecs.includes(codec)) {
        throw new DatasetError(
          `${file.path}: the column "${name}" is compressed with ${codec ?? "a codec that is not known"}, which is not supported; write the file again with one of ${codecs.join(", ")}.`,
        );
      }
      size += end - start;
      if (!(start >= 0 && start <= end && end <= file.size && this.#bytesRead + size <= file.size)) {
        throw damaged(file, "it names bytes that it does not have");
      }
      contents.push((await file.read(start, end - start)).buffer);
    }
    this.#bytesRead += size;
    const what = `its rows ${rowsBefore + 1} to ${rowsBefore + rows}`;
    const request = { group: index, columns: contents, allowance: this.#allowance(buffersOf(size, columns)) };
    let answer = (await this.#ask(request, size, what, contents)) as ParquetRows;
    for (;;) {
      // Made here: what is sent between threads has no notes.
      for (const row of answer.rows) noteFloats(row, this.#floats);
      yield* answer.rows;
      if (answer.isLast) return;
      answer = (await this.#ask({ next: true }, size, what)) as ParquetRows;
    }
  }

  #allowance(bytes: number): Allowance {
    return { elements: this.#thread.thread.heapBytes / heapBytesOfElement, bytes };
  }

  /** @param what the thing to decode, as an error message names it */
  async #ask(
    request: ParquetRequest,
    bytes: number,
    what: string,
    transfer: readonly ArrayBuffer[] = [],
  ): Promise<Footer | ParquetRows> {
    const ms = limit(workMs, bytes);
    let answer: ParquetAnswer;
    try {
      answer = (await this.#thread.thread.ask(request, ms, transfer)) as ParquetAnswer;
    } catch (error) {
      this.#isSound = false;
      if (!(error instanceof ThreadLimit)) throw damaged(this.#file, `${what} cannot be decoded`, error);
      throw this.#beyond(what, error.limit, error);
    }
    if (!("detail" in answer)) return answer;
    const cause = new Error(answer.detail);
    if (answer.limit !== undefined) throw this.#beyond(what, answer.limit, cause);
    throw damaged(this.#file, answer.refusal ?? `${what} cannot be decoded`, cause);
  }

  #beyond(what: string, limited: "time" | "memory", cause: Error): DatasetError {
    return damaged(this.#file, `decoding ${what} takes more ${limited} than a file of its size may`, cause);
  }
}

function damaged(file: ReadableFile, reason: string, cause?: unknown): DatasetError {
  return new DatasetError(`${file.path} is damaged or not a parquet file: ${reason}; write it again.`, { cause });
}
