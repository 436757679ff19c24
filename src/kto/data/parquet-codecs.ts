/**
 * Compressed pages of parquet to bytes, of the length that the page's header gives and no more. The decoders of the
 * packages believe their input in places; what they must not meet is refused here.
 */
import { compressors, decompressLz4Raw, decompressZstd } from "hyparquet-compressors";
import { platform } from "../../engine/platform/index.ts";
import { Damage } from "./thrift.ts";

/** The codecs that are read, as parquet names them. */
export const codecs = ["UNCOMPRESSED", "SNAPPY", "GZIP", "BROTLI", "LZ4", "LZ4_RAW", "ZSTD"] as const;

/** Milliseconds for a page of Zstandard, a hundred times what they take. */
const leastZstdMs = 1500;
const zstdMsOfMebibyte = 1500;

export type Codec = (typeof codecs)[number];

export function isCodec(name: unknown): name is Codec {
  return codecs.includes(name as Codec);
}

/**
 * @param length bytes of the result; the caller bounds it
 * @throws Damage, or whatever a decoder throws
 */
export function decompress(codec: Codec, bytes: Uint8Array, length: number): Uint8Array {
  // Nothing is compressed to nothing, with or without a frame around it.
  const page = length === 0 ? new Uint8Array(0) : decompressed(codec, bytes, length);
  if (page.length !== length) throw new Damage("a page in it has another size than it says");
  return page;
}

function decompressed(codec: Codec, bytes: Uint8Array, length: number): Uint8Array {
  switch (codec) {
    case "UNCOMPRESSED":
      return bytes;
    case "SNAPPY":
      checkSnappy(bytes, length);
      return compressors.SNAPPY?.(bytes, length) ?? bytes;
    case "GZIP":
      return platform.decompress("gzip", bytes, length);
    case "BROTLI":
      return platform.decompress("brotli", bytes, length);
    case "ZSTD":
      return zstd(bytes, length);
    case "LZ4":
      return lz4(bytes, length);
    case "LZ4_RAW":
      return decompressLz4Raw(bytes, length);
  }
}

/** Follows the elements of a Snappy block: a damaged length could send the decoder backwards, for ever. */
function checkSnappy(bytes: Uint8Array, length: number): void {
  let at = 0;
  while ((bytes[at++] ?? 0) >= 0x80);
  let written = 0;
  while (at < bytes.length) {
    const tag = bytes[at++] as number;
    const kind = tag & 3;
    let size = (tag >> 2) + 1;
    if (kind === 0) {
      const extra = Math.max(0, size - 60);
      if (extra > 0) {
        size = 1;
        for (let i = 0; i < extra; i++) size += (bytes[at + i] ?? 0) * 256 ** i;
      }
      at += extra + size;
    } else {
      if (kind === 1) size = ((tag >> 2) & 7) + 4;
      at += kind === 3 ? 4 : kind;
    }
    written += size;
  }
  if (at !== bytes.length || written !== length)
    throw new Damage("a page in it is not Snappy of the size that it says");
}

/**
 * Given where to write, the decoder takes no memory for the window, whose size is the file's word. It does not stop at the
 * end of what it writes to, so that twenty bytes can keep it busy for a minute.
 */
function zstd(bytes: Uint8Array, length: number): Uint8Array {
  const most = leastZstdMs + (length / 2 ** 20) * zstdMsOfMebibyte;
  return platform.withinTime(most, () => decompressZstd(bytes, new Uint8Array(length)));
}

/** "LZ4" is Hadoop's: blocks, each after its two sizes in big-endian; some writers left the sizes out. */
function lz4(bytes: Uint8Array, length: number): Uint8Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const blocks: { from: number; to: number; size: number }[] = [];
  let at = 0;
  let total = 0;
  while (at + 8 <= bytes.length) {
    const size = view.getUint32(at);
    const to = at + 8 + view.getUint32(at + 4);
    blocks.push({ from: at + 8, to, size });
    total += size;
    at = to;
  }
  if (at !== bytes.length || total !== length) return decompressLz4Raw(bytes, length);
  const whole = new Uint8Array(length);
  let written = 0;
  for (const { from, to, size } of blocks) {
    whole.set(decompressLz4Raw(bytes.subarray(from, to), size), written);
    written += size;
  }
  return whole;
}
