/** Writes safetensors files of any dtype, as other programs do. */
import { writeFileSync } from "node:fs";

export interface RawTensor {
  readonly name: string;
  /** As the format names it: "U8", "F32", ... */
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data: Uint8Array<ArrayBuffer> | Float32Array<ArrayBuffer>;
}

export function writeRawTensors(path: string, tensors: readonly RawTensor[]): void {
  const header: Record<string, unknown> = {};
  let at = 0;
  for (const { name, dtype, shape, data } of tensors) {
    header[name] = { dtype, shape, data_offsets: [at, at + data.byteLength] };
    at += data.byteLength;
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const bytes = tensors.map(({ data }) => Buffer.from(data.buffer, data.byteOffset, data.byteLength));
  writeFileSync(path, Buffer.concat([length, text, ...bytes]));
}
