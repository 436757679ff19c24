/**
 * The GGUF format, version 3, which llama.cpp and Ollama read: magic, counts, typed metadata, the list of tensors, then
 * their bytes, each at a multiple of 32. Written as a stream, so that no file is ever wholly in memory. What the keys
 * and tensors of a model are is decided in model/export. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 */
import { ModelFormatError, NumericError } from "../../errors.ts";
import { fromF32 } from "../number-formats.ts";
import { platform } from "../platform/index.ts";
import { BLOCK, quantizeQ4, quantizeQ8 } from "../quantized-blocks.ts";

/** How the numbers of a tensor lie in the file, under llama.cpp's names. */
export type GgufType = "f32" | "f16" | "bf16" | "q8_0" | "q4_0";

interface TypeFacts {
  /** ggml's number of the type. */
  readonly id: number;
  /** Values that are stored together; a row of a tensor is a whole number of them. */
  readonly block: number;
  readonly blockBytes: number;
  /** The largest magnitude that it holds. */
  readonly largest: number;
  readonly encode: (values: Float32Array<ArrayBuffer>) => Uint8Array<ArrayBuffer>;
}

const LARGEST_F16 = 65504;
const LARGEST_F32 = 3.4028234663852886e38;

const TYPES: Readonly<Record<GgufType, TypeFacts>> = {
  f32: { id: 0, block: 1, blockBytes: 4, largest: LARGEST_F32, encode: (values) => fromF32(values, "f32") },
  f16: { id: 1, block: 1, blockBytes: 2, largest: LARGEST_F16, encode: (values) => fromF32(values, "f16") },
  bf16: {
    id: 30,
    block: 1,
    blockBytes: 2,
    largest: 3.3895313892515355e38,
    encode: (values) => fromF32(values, "bf16"),
  },
  // The scale of a block is the f16 of its largest value divided by 127, or by 8.
  q8_0: { id: 8, block: BLOCK, blockBytes: 34, largest: 127 * LARGEST_F16, encode: quantizeQ8 },
  q4_0: { id: 2, block: BLOCK, blockBytes: 18, largest: 8 * LARGEST_F16, encode: quantizeQ4 },
};

export const GGUF_TYPES = Object.keys(TYPES) as readonly GgufType[];

/** Whether rows of so many values can be stored in this type. */
export function rowsFit(type: GgufType, columns: number): boolean {
  return columns % TYPES[type].block === 0;
}

/** A value of the metadata; numbers need their type, since readers ask for exactly one. */
export type GgufValue =
  | string
  | boolean
  | { readonly u32: number }
  | { readonly f32: number }
  | readonly string[]
  | readonly boolean[]
  | Int32Array
  | Float32Array;

/** In the order in which they are written. */
export type GgufMetadata = ReadonlyMap<string, GgufValue>;

export interface GgufTensor {
  readonly name: string;
  /** The shape as PyTorch has it, rows first; the file says it the other way round. */
  readonly shape: readonly number[];
  readonly type: GgufType;
  /** The values when it is their turn, in pieces of whole blocks. */
  readonly data: () => AsyncIterable<Float32Array<ArrayBuffer>>;
}

const MAGIC = 0x46554747; // "GGUF"

/** Whether a file begins as GGUF files do. */
export async function isGguf(path: string): Promise<boolean> {
  const file = await platform.openFile(path);
  try {
    if (file.size < 4) return false;
    const start = await file.read(0, 4);
    return new DataView(start.buffer, start.byteOffset).getUint32(0, true) === MAGIC;
  } finally {
    await file.close();
  }
}
const VERSION = 3;
const ALIGNMENT = 32;

/** ggml's numbers of the types of metadata. */
const VALUE = { u32: 4, i32: 5, f32: 6, bool: 7, string: 8, array: 9 } as const;

/**
 * Writes a file, to a temporary name that is renamed when complete. The data of one tensor is asked for at a time.
 *
 * @throws ModelFormatError for a name that is repeated or data that does not have the size of its shape; NumericError
 * for a value that its type cannot hold; FileError; what the data throws
 */
export async function writeGguf(path: string, metadata: GgufMetadata, tensors: readonly GgufTensor[]): Promise<void> {
  const seen = new Set<string>();
  for (const { name } of tensors) {
    if (seen.has(name)) throw new ModelFormatError(`Cannot write ${path}: it would have the tensor "${name}" twice.`);
    seen.add(name);
  }
  await platform.writeFileAtomic(path, fileChunks(path, metadata, tensors));
}

async function* fileChunks(path: string, metadata: GgufMetadata, tensors: readonly GgufTensor[]) {
  const header = headerBytes(metadata, tensors);
  yield header;
  yield padding(header.length);
  for (const { name, shape, type, data } of tensors) {
    const { block, largest, encode } = TYPES[type];
    let count = 0;
    for await (const values of data()) {
      if (values.length % block !== 0) throw new Error(`a piece of "${name}" is no whole number of blocks`);
      const lost = firstBeyond(values, largest);
      if (lost >= 0) {
        throw new NumericError(
          `Cannot write ${path}: "${name}" holds ${values[lost]}, which ${type} cannot hold; use bf16 or f32.`,
        );
      }
      count += values.length;
      yield encode(values);
    }
    if (count !== elementsOf(shape)) {
      throw new ModelFormatError(
        `Cannot write ${path}: tensor "${name}" of shape [${shape.join(", ")}] was given ${count} values.`,
      );
    }
    yield padding(bytesOf(shape, type));
  }
}

/** Place of the first value that is NaN or of a larger magnitude, or -1. */
function firstBeyond(values: Float32Array, largest: number): number {
  for (let i = 0; i < values.length; i++) {
    if (!(Math.abs(values[i] as number) <= largest)) return i;
  }
  return -1;
}

function headerBytes(metadata: GgufMetadata, tensors: readonly GgufTensor[]): Uint8Array<ArrayBuffer> {
  const out = new ByteWriter();
  out.u32(MAGIC);
  out.u32(VERSION);
  out.u64(tensors.length);
  out.u64(metadata.size);
  for (const [key, value] of metadata) {
    out.text(key);
    writeValue(out, value);
  }
  let offset = 0;
  for (const { name, shape, type } of tensors) {
    out.text(name);
    out.u32(shape.length);
    for (const size of [...shape].reverse()) out.u64(size);
    out.u32(TYPES[type].id);
    out.u64(offset);
    const bytes = bytesOf(shape, type);
    offset += bytes + padding(bytes).length;
  }
  return out.bytes();
}

function writeValue(out: ByteWriter, value: GgufValue): void {
  if (typeof value === "string") {
    out.u32(VALUE.string);
    out.text(value);
  } else if (typeof value === "boolean") {
    out.u32(VALUE.bool);
    out.u8(value ? 1 : 0);
  } else if (value instanceof Int32Array || value instanceof Float32Array) {
    out.u32(VALUE.array);
    out.u32(value instanceof Int32Array ? VALUE.i32 : VALUE.f32);
    out.u64(value.length);
    // WebGPU hosts are little-endian, as GGUF is.
    out.raw(new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
  } else if ("u32" in value) {
    out.u32(VALUE.u32);
    out.u32(value.u32);
  } else if ("f32" in value) {
    out.u32(VALUE.f32);
    out.f32(value.f32);
  } else {
    const flags = typeof value[0] === "boolean";
    out.u32(VALUE.array);
    out.u32(flags ? VALUE.bool : VALUE.string);
    out.u64(value.length);
    for (const item of value) {
      if (typeof item === "boolean") out.u8(item ? 1 : 0);
      else out.text(item);
    }
  }
}

function padding(bytes: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array((ALIGNMENT - (bytes % ALIGNMENT)) % ALIGNMENT);
}

function elementsOf(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

function bytesOf(shape: readonly number[], type: GgufType): number {
  const { block, blockBytes } = TYPES[type];
  return (elementsOf(shape) / block) * blockBytes;
}

/** Bytes that grow at their end. */
class ByteWriter {
  #bytes = new Uint8Array(2 ** 16);
  #length = 0;
  readonly #encoder = new TextEncoder();

  u8(value: number): void {
    this.#view(1).setUint8(0, value);
  }

  u32(value: number): void {
    this.#view(4).setUint32(0, value, true);
  }

  u64(value: number): void {
    this.#view(8).setBigUint64(0, BigInt(value), true);
  }

  f32(value: number): void {
    this.#view(4).setFloat32(0, value, true);
  }

  /** Length and UTF-8. */
  text(value: string): void {
    const encoded = this.#encoder.encode(value);
    this.u64(encoded.length);
    this.raw(encoded);
  }

  raw(bytes: Uint8Array): void {
    this.#reserve(bytes.length);
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  bytes(): Uint8Array<ArrayBuffer> {
    return this.#bytes.slice(0, this.#length);
  }

  /** The next bytes, to be filled. */
  #view(size: number): DataView {
    this.#reserve(size);
    this.#length += size;
    return new DataView(this.#bytes.buffer, this.#length - size, size);
  }

  #reserve(size: number): void {
    if (this.#length + size <= this.#bytes.length) return;
    const larger = new Uint8Array(2 * (this.#length + size));
    larger.set(this.#bytes);
    this.#bytes = larger;
  }
}
