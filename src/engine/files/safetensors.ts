/**
 * The safetensors format: 8 bytes (length of the header, little-endian u64), a JSON header, then the tensors' bytes
 * without gaps. Read by ranges and written as a stream, so that no file is ever wholly in memory. Shards, and what the
 * tensors mean, are up to the loader. Format: https://github.com/huggingface/safetensors#format
 */
import { errorMessage, ModelFormatError, shown } from "../../errors.ts";
import type { StoredFormat } from "../../kernels/kernel.ts";
import { fromF32, toF32 } from "../number-formats.ts";
import { type FileSource, platform, type ReadableFile } from "../platform/index.ts";
import { isJsonObject } from "./json-file.ts";
import { LFS_POINTER_LENGTH, refuseLfsPointer } from "./lfs-pointer.ts";

/** One tensor as the header describes it. */
export interface TensorEntry {
  /** The format as the file names it: "F32", "BF16", ... */
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Where the numbers begin, from the start of the file. */
  readonly byteOffset: number;
  readonly byteLength: number;
}

/**
 * A tensor to write: its f32 values (of "u32" words as they are, seen as f32), or a function that returns them, whole or
 * in pieces, when it is their turn.
 */
export interface TensorToWrite {
  readonly name: string;
  readonly shape: readonly number[];
  /** The format in the file; default f32. Values are rounded to the nearest. */
  readonly format?: StoredFormat | "u32";
  readonly data:
    | Float32Array<ArrayBuffer>
    | (() => Promise<Float32Array<ArrayBuffer>> | AsyncIterable<Float32Array<ArrayBuffer>>);
}

/** An open file; its header has been read and checked. */
export interface SafetensorsFile {
  readonly path: string;
  /** In the order of their bytes in the file. */
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  readonly metadata: Readonly<Record<string, string>>;
  /** The bytes of `count` elements of a tensor, starting with element `first`; the whole tensor by default. */
  read(name: string, first?: number, count?: number): Promise<Uint8Array<ArrayBuffer>>;
  /**
   * The values of a tensor as f32. Throws ModelFormatError if there is no such tensor or its dtype is no stored format.
   */
  readF32(name: string): Promise<Float32Array<ArrayBuffer>>;
  close(): Promise<void>;
}

/** Bytes per element of the dtypes that the format knows (those of less than a byte are left out). */
const dtypeBytes: ReadonlyMap<string, number> = new Map([
  ...["BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"].map((dtype) => [dtype, 1] as const),
  ...["U16", "I16", "F16", "BF16"].map((dtype) => [dtype, 2] as const),
  ...["U32", "I32", "F32"].map((dtype) => [dtype, 4] as const),
  ...["U64", "I64", "F64"].map((dtype) => [dtype, 8] as const),
]);

/** The dtypes that can be read and written, under the format's names for them. */
const storedFormats: ReadonlyMap<string, StoredFormat> = new Map([
  ["F32", "f32"],
  ["F16", "f16"],
  ["BF16", "bf16"],
]);

/** The stored format of a dtype. Throws ModelFormatError naming file and tensor if there is none. */
export function storedFormat(path: string, name: string, dtype: string): StoredFormat {
  const format = storedFormats.get(dtype);
  if (format !== undefined) return format;
  throw new ModelFormatError(
    `${path}: tensor "${name}" is stored as ${dtype}, but only ${[...storedFormats.keys()].join(", ")} can be read; convert the model to one of these first.`,
  );
}

/** The format's own limit; a longer header is a damaged or hostile file. */
const headerLimitBytes = 100_000_000;
const lengthFieldBytes = 8;

/**
 * Opens a file, reads its header and checks it against the file's size. The caller closes it.
 *
 * @param source where the file is; default this machine
 * @throws ModelFormatError naming the file, and the tensor where there is one; FileError if it cannot be opened
 */
export async function openSafetensors(path: string, source: FileSource = platform): Promise<SafetensorsFile> {
  const file = await source.openFile(path);
  try {
    const { tensors, metadata } = await readHeader(file);
    const entryOf = (name: string) => {
      const entry = tensors.get(name);
      if (!entry) throw new ModelFormatError(`${path} has no tensor "${name}".`);
      return entry;
    };
    return {
      path,
      tensors,
      metadata,
      async read(name, first = 0, count) {
        const { dtype, byteOffset, byteLength } = entryOf(name);
        const bytes = dtypeBytes.get(dtype) ?? 1;
        return await file.read(byteOffset + first * bytes, count === undefined ? byteLength : count * bytes);
      },
      async readF32(name) {
        const { dtype, byteOffset, byteLength } = entryOf(name);
        return toF32(await file.read(byteOffset, byteLength), storedFormat(path, name, dtype));
      },
      close: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function readHeader(file: ReadableFile) {
  const { path, size } = file;
  if (size < lengthFieldBytes) {
    throw new ModelFormatError(
      `${path} is ${size} bytes long, too short for a safetensors file; it may be an incomplete download.`,
    );
  }
  const start = await file.read(0, Math.min(size, LFS_POINTER_LENGTH));
  refuseLfsPointer(path, new TextDecoder("latin1").decode(start));
  const length = new DataView(start.buffer, start.byteOffset).getBigUint64(0, true);
  if (length > BigInt(size - lengthFieldBytes)) {
    throw new ModelFormatError(
      `${path} claims a header of ${length} bytes but is only ${size} bytes long; it is truncated or not a safetensors file.`,
    );
  }
  if (length > BigInt(headerLimitBytes)) {
    throw new ModelFormatError(
      `${path} has a header of ${length} bytes, above the format's limit of ${headerLimitBytes}.`,
    );
  }
  const headerBytes = Number(length);
  const header = parseHeader(await file.read(lengthFieldBytes, headerBytes), path);
  const dataStart = lengthFieldBytes + headerBytes;

  let metadata: Record<string, string> = {};
  const entries: [name: string, entry: TensorEntry][] = [];
  for (const [name, value] of Object.entries(header)) {
    if (name === "__metadata__") metadata = parseMetadata(value, path);
    else entries.push([name, parseEntry(name, value, path, dataStart)]);
  }
  entries.sort(([, a], [, b]) => a.byteOffset - b.byteOffset || a.byteLength - b.byteLength);
  checkCover(entries, path, dataStart, size);
  return { tensors: new Map(entries), metadata };
}

function parseHeader(bytes: Uint8Array, path: string): Record<string, unknown> {
  let text: string;
  let header: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    header = JSON.parse(text);
  } catch (error) {
    throw new ModelFormatError(`${path}: the safetensors header is not valid JSON (${errorMessage(error)}).`, {
      cause: error,
    });
  }
  if (!isJsonObject(header)) throw new ModelFormatError(`${path}: the safetensors header is not a JSON object.`);
  const twice = repeatedKey(text);
  if (twice !== undefined) throw new ModelFormatError(`${path}: the header holds the tensor ${twice} twice.`);
  return header;
}

function parseMetadata(value: unknown, path: string): Record<string, string> {
  if (!isJsonObject(value) || Object.values(value).some((text) => typeof text !== "string")) {
    throw new ModelFormatError(`${path}: "__metadata__" in the header is not an object of strings.`);
  }
  return value as Record<string, string>;
}

function parseEntry(name: string, value: unknown, path: string, dataStart: number): TensorEntry {
  const bad = (what: string) => new ModelFormatError(`${path}: tensor "${name}" ${what}.`);
  if (!isJsonObject(value)) throw bad("is not described by an object");
  const { dtype, shape, data_offsets: offsets } = value;
  const elementBytes = typeof dtype === "string" ? dtypeBytes.get(dtype) : undefined;
  if (typeof dtype !== "string" || elementBytes === undefined) {
    throw bad(`has the unknown dtype ${shown(dtype)}`);
  }
  if (!isCountList(shape)) throw bad(`has the shape ${shown(shape)}, not a list of whole numbers`);
  if (!isCountList(offsets) || offsets.length !== 2) {
    throw bad(`has the data_offsets ${shown(offsets)}, not two whole numbers`);
  }
  const [begin = 0, end = 0] = offsets;
  if (end < begin) throw bad(`has data_offsets that end (${end}) before they begin (${begin})`);
  const wanted = elementCount(shape) * elementBytes;
  if (end - begin !== wanted) {
    throw bad(
      `of shape [${shape.join(", ")}] and dtype ${dtype} needs ${wanted} bytes, but its data_offsets span ${end - begin}`,
    );
  }
  return { dtype, shape, byteOffset: dataStart + begin, byteLength: end - begin };
}

/** Checks that the tensors, sorted by offset, cover the file exactly, from the end of the header to the last byte. */
function checkCover(entries: readonly [string, TensorEntry][], path: string, dataStart: number, size: number): void {
  let covered = dataStart;
  let previous = "";
  for (const [name, { byteOffset, byteLength }] of entries) {
    if (byteOffset < covered) throw new ModelFormatError(`${path}: tensors "${previous}" and "${name}" overlap.`);
    if (byteOffset > covered) {
      throw new ModelFormatError(`${path}: ${byteOffset - covered} bytes before tensor "${name}" belong to no tensor.`);
    }
    covered = byteOffset + byteLength;
    previous = name;
    if (covered > size) {
      throw new ModelFormatError(
        `${path} is truncated: tensor "${name}" ends at byte ${covered}, but the file has ${size} bytes; download it again.`,
      );
    }
  }
  if (covered < size) {
    throw new ModelFormatError(`${path}: the last ${size - covered} bytes belong to no tensor.`);
  }
}

/**
 * Writes tensors in the given order, to a temporary name that is renamed when complete. The data of one tensor is asked
 * for at a time. PyTorch needs the metadata {format: "pt"}, which is the default.
 *
 * @throws ModelFormatError if a name is repeated or reserved, or data does not have the size of its shape; FileError
 */
export async function writeSafetensors(
  path: string,
  tensors: readonly TensorToWrite[],
  metadata: Readonly<Record<string, string>> = { format: "pt" },
): Promise<void> {
  // Without a prototype, so that no name of a tensor has a special meaning.
  const header: Record<string, unknown> = Object.create(null);
  if (Object.keys(metadata).length > 0) header.__metadata__ = metadata;
  let offset = 0;
  for (const { name, shape, format = "f32" } of tensors) {
    if (Object.hasOwn(header, name) || name === "__metadata__") {
      throw new ModelFormatError(`Cannot write ${path}: the tensor name "${name}" is repeated or reserved.`);
    }
    const byteLength = (format === "f32" || format === "u32" ? 4 : 2) * elementCount(shape);
    header[name] = { dtype: format.toUpperCase(), shape, data_offsets: [offset, offset + byteLength] };
    offset += byteLength;
  }
  await platform.writeFileAtomic(path, fileChunks(path, header, tensors));
}

async function* fileChunks(path: string, header: unknown, tensors: readonly TensorToWrite[]) {
  const json = new TextEncoder().encode(JSON.stringify(header));
  // Spaces up to a multiple of 8, so that the data is aligned.
  const padded = Math.ceil(json.length / 8) * 8;
  const start = new Uint8Array(lengthFieldBytes + padded).fill(0x20);
  new DataView(start.buffer).setBigUint64(0, BigInt(padded), true);
  start.set(json, lengthFieldBytes);
  yield start;
  for (const { name, shape, format = "f32", data } of tensors) {
    let written = 0;
    for await (const values of piecesOf(data)) {
      written += values.length;
      yield fromF32(values, format === "u32" ? "f32" : format);
    }
    if (written !== elementCount(shape)) {
      throw new ModelFormatError(
        `Cannot write ${path}: tensor "${name}" of shape [${shape.join(", ")}] was given ${written} values.`,
      );
    }
  }
}

async function* piecesOf(data: TensorToWrite["data"]): AsyncGenerator<Float32Array<ArrayBuffer>> {
  const given = typeof data === "function" ? data() : data;
  if (Symbol.asyncIterator in given) yield* given;
  else yield await given;
}

function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

function isCountList(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);
}

/**
 * The first key that an object's JSON text holds twice at its top level, quoted; JSON.parse keeps the last silently.
 * The text is known to be valid.
 */
function repeatedKey(text: string): string | undefined {
  const seen = new Set<string>();
  let depth = 0;
  for (const [token, quoted, colon] of text.matchAll(/("[^"\\]*(?:\\.[^"\\]*)*")\s*(:?)|[{}[\]]/g)) {
    if (token === "{" || token === "[") depth++;
    else if (token === "}" || token === "]") depth--;
    else if (quoted !== undefined && colon === ":" && depth === 1) {
      const key = JSON.parse(quoted) as string;
      if (seen.has(key)) return quoted;
      seen.add(key);
    }
  }
  return undefined;
}
