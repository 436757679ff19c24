/**
 * 16-bit floating point on the host: bf16 (the upper half of an f32) and f16 (IEEE binary16), to and from f32. Rounding
 * is to the nearest, ties to even, as PyTorch rounds. Values are passed as their bits in Uint16Arrays.
 */
import type { StoredFormat } from "../kernels/kernel.ts";

/** f32 values of bf16 bits; exact. */
export function bf16ToF32(bits: Uint16Array): Float32Array<ArrayBuffer> {
  const words = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) words[i] = (bits[i] as number) << 16;
  return new Float32Array(words.buffer);
}

let f16Table: Float32Array | undefined;

/** f32 values of f16 bits; exact. */
export function f16ToF32(bits: Uint16Array): Float32Array<ArrayBuffer> {
  f16Table ??= Float32Array.from({ length: 65536 }, (_, half) => f16Value(half));
  const values = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i++) values[i] = f16Table[bits[i] as number] as number;
  return values;
}

/** One f16: a sign, 5 bits of exponent, 10 of fraction; exponent 0 is subnormal, 31 is infinity or NaN. */
function f16Value(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 31;
  const fraction = half & 1023;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** The nearest bf16 of f32 values. */
export function f32ToBf16(values: Float32Array): Uint16Array<ArrayBuffer> {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const bits = new Uint16Array(values.length);
  for (let i = 0; i < bits.length; i++) {
    const word = words[i] as number;
    const noNumber = (word & 0x7fffffff) > 0x7f800000;
    // Half a unit less one, and one more where the last kept bit is odd: ties go to even. A NaN must stay one.
    bits[i] = noNumber ? (word >>> 16) | 0x40 : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  }
  return bits;
}

/** The nearest f16 of f32 values; what is too large becomes infinite. */
export function f32ToF16(values: Float32Array): Uint16Array<ArrayBuffer> {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const bits = new Uint16Array(values.length);
  for (let i = 0; i < bits.length; i++) bits[i] = f16Bits(words[i] as number, values[i] as number);
  return bits;
}

function f16Bits(word: number, value: number): number {
  const sign = (word >>> 16) & 0x8000;
  const size = word & 0x7fffffff;
  if (size > 0x7f800000) return sign | 0x7e00;
  // 65520 is half way between the largest f16 and the power of two beyond it.
  if (size >= 0x477ff000) return sign | 0x7c00;
  if (size >= 0x38800000) return sign | ((size - 0x38000000 + 0xfff + ((size >>> 13) & 1)) >>> 13);
  // Subnormal: whole multiples of 2^-24.
  const units = Math.abs(value) * 2 ** 24;
  const below = Math.floor(units);
  const rest = units - below;
  return sign | (rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below);
}

/** Stored numbers as f32 values. `bytes` holds whole numbers and may be unaligned. */
export function toF32(bytes: Uint8Array<ArrayBuffer>, format: StoredFormat): Float32Array<ArrayBuffer> {
  const size = format === "f32" ? 4 : 2;
  // WebGPU hosts are little-endian, as safetensors is. A view where the alignment allows it, else a copy.
  const { buffer, byteOffset, byteLength } = bytes.byteOffset % size === 0 ? bytes : bytes.slice();
  if (format === "f32") return new Float32Array(buffer, byteOffset, byteLength / 4);
  const bits = new Uint16Array(buffer, byteOffset, byteLength / 2);
  return format === "bf16" ? bf16ToF32(bits) : f16ToF32(bits);
}

/** f32 values as stored numbers, rounded to the nearest. */
export function fromF32(values: Float32Array<ArrayBuffer>, format: StoredFormat): Uint8Array<ArrayBuffer> {
  const stored = format === "f32" ? values : format === "bf16" ? f32ToBf16(values) : f32ToF16(values);
  return new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength);
}

/** Place of the first NaN or infinity, or -1. */
export function firstNotFinite(values: Float32Array): number {
  let zero = 0;
  for (let i = 0; i < values.length; i++) zero += 0 * (values[i] as number);
  return zero === 0 ? -1 : values.findIndex((value) => !Number.isFinite(value));
}

/** Place of the first NaN or infinity among stored numbers, or -1; they are not unpacked. */
export function firstNotFiniteStored(bytes: Uint8Array<ArrayBuffer>, format: StoredFormat): number {
  if (format === "f32") return firstNotFinite(toF32(bytes, format));
  const exponent = format === "bf16" ? 0x7f80 : 0x7c00;
  const { buffer, byteOffset, byteLength } = bytes.byteOffset % 2 === 0 ? bytes : bytes.slice();
  return new Uint16Array(buffer, byteOffset, byteLength / 2).findIndex((bits) => (bits & exponent) === exponent);
}
