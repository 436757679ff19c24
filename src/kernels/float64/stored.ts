/**
 * The numbers that quantised bytes stand for: each a code's value times its block's scale, one product rounded to f32,
 * as a kernel computes it. Reads the bytes that a kernel reads; how they are made is in the engine's
 * `quantized-formats.ts`.
 */
import { QUANTIZED, type QuantizedFormat } from "../kernel.ts";
import { NF4_TABLE } from "../stored-nf4.ts";

/**
 * @param codes packed as `QUANTIZED` says: of nf4 the first of two numbers in the upper half of a byte
 * @param scales of the blocks, one after another; @param count numbers, of which the last may be half a byte
 * @returns f32 numbers
 */
export function dequantized(
  format: QuantizedFormat,
  codes: Uint8Array,
  scales: ArrayLike<number>,
  count: number = (8 / QUANTIZED[format].bits) * codes.length,
): Float32Array<ArrayBuffer> {
  const { block, bits } = QUANTIZED[format];
  if (codes.length * 8 < count * bits || scales.length * block < count) {
    throw new RangeError(
      `${codes.length} bytes of codes and ${scales.length} scales are too few for ${count} numbers.`,
    );
  }
  const values = new Float32Array(count);
  for (let at = 0; at * block < count; at++) {
    const scale = scales[at] as number;
    const end = Math.min((at + 1) * block, count);
    for (let i = at * block; i < end; i++) {
      values[i] = scale * (format === "nf4" ? nf4Value(codes, i) : ((codes[i] as number) << 24) >> 24);
    }
  }
  return values;
}

function nf4Value(codes: Uint8Array, i: number): number {
  const byte = codes[i >> 1] as number;
  return NF4_TABLE[i % 2 === 0 ? byte >> 4 : byte & 15] as number;
}
