/**
 * ggml's quantised formats as bytes of a GGUF file: each 32 values of a row share an f16 scale, which stands before
 * them. The rounding is ggml's own, f32 step by f32 step (quantize_row_q8_0_ref and quantize_row_q4_0_ref of
 * ggml-quants.c), so that the bytes are those that llama.cpp's converter writes. Only writing.
 */
import { f32ToF16 } from "./number-formats.ts";
import { quantized } from "./quantized-formats.ts";

/** Values of a block. */
export const BLOCK = 32;

/**
 * q8_0: scale d = max |x| / 127, then 32 int8 q = x / d rounded half away from zero; x = d q. 34 bytes a block.
 *
 * @param values a whole number of blocks, finite
 */
export function quantizeQ8(values: Float32Array): Uint8Array<ArrayBuffer> {
  const { codes, scales } = quantized("int8", values);
  const bytes = new Uint8Array(scales.length * 34);
  for (let block = 0; block < scales.length; block++) {
    bytes.set(codes.subarray(block * BLOCK, (block + 1) * BLOCK), block * 34 + 2);
  }
  writeScales(bytes, scales, 34);
  return bytes;
}

/**
 * q4_0: scale d = v / -8 for the value v of largest magnitude (the first of equals), q = trunc(x / d + 8.5), at most 15;
 * x = d (q - 8). Byte j has value j in its low half and value j + 16 in its high half. 18 bytes a block.
 *
 * @param values a whole number of blocks, finite
 */
export function quantizeQ4(values: Float32Array): Uint8Array<ArrayBuffer> {
  const blocks = values.length / BLOCK;
  const bytes = new Uint8Array(blocks * 18);
  const scales = new Float32Array(blocks);
  for (let block = 0; block < blocks; block++) {
    const start = block * BLOCK;
    let largest = 0;
    let extreme = 0;
    for (let i = start; i < start + BLOCK; i++) {
      const value = values[i] as number;
      const size = Math.abs(value);
      if (size > largest) {
        largest = size;
        extreme = value;
      }
    }
    const scale = Math.fround(extreme / -8);
    const inverse = scale === 0 ? 0 : Math.fround(1 / scale);
    scales[block] = scale;
    for (let j = 0; j < BLOCK / 2; j++) {
      const low = Math.fround((values[start + j] as number) * inverse);
      const high = Math.fround((values[start + j + BLOCK / 2] as number) * inverse);
      // Neither is below -8, so that cutting off rounds down.
      const lowBits = Math.min(15, Math.fround(low + 8.5) | 0);
      const highBits = Math.min(15, Math.fround(high + 8.5) | 0);
      bytes[block * 18 + 2 + j] = lowBits | (highBits << 4);
    }
  }
  writeScales(bytes, scales, 18);
  return bytes;
}

/** Puts the scales as f16 at the start of each block. */
function writeScales(bytes: Uint8Array, scales: Float32Array, blockBytes: number): void {
  const halves = f32ToF16(scales);
  for (const [block, half] of halves.entries()) {
    bytes[block * blockBytes] = half & 0xff;
    bytes[block * blockBytes + 1] = half >> 8;
  }
}
