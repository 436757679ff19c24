/**
 * Quantises on the host: NF4 and its double quantisation with the bytes of bitsandbytes, 8 bit with those of ggml's
 * q8_0 (whose scale and codes lie apart here). Values go in as f32, a whole number of blocks at a time but at the end
 * of a matrix. What the bytes stand for is in `src/kernels/float64/stored.ts`.
 */
import { dynamicMap } from "../kernels/dynamic-map.ts";
import { QUANTIZED, type QuantizedFormat } from "../kernels/kernel.ts";
import { NF4_TABLE } from "../kernels/stored-nf4.ts";
import { f16ToF32, f32ToF16 } from "./number-formats.ts";

export interface Quantized {
  /** Codes, packed as `QUANTIZED` says of the format; half a byte that is left over has the code of 0. */
  readonly codes: Uint8Array<ArrayBuffer>;
  /** [blocks], one scale for each: f32 numbers that the format of scales holds exactly. */
  readonly scales: Float32Array<ArrayBuffer>;
}

/** Numbers as a quantised format; the last block may be short. */
export function quantized(format: QuantizedFormat, values: Float32Array): Quantized {
  return format === "nf4" ? nf4(values) : int8(values);
}

/** The largest magnitude of each block. */
function largest(values: Float32Array, block: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: Math.ceil(values.length / block) }, (_, at) => {
    let most = 0;
    const end = Math.min((at + 1) * block, values.length);
    for (let i = at * block; i < end; i++) {
      const size = Math.abs(values[i] as number);
      if (size > most) most = size;
    }
    return most;
  });
}

/** The numbers halfway between neighbours of an ascending table: beyond them the upper neighbour is nearer. */
const middlesOf = (table: Float32Array) =>
  Float32Array.from({ length: table.length - 1 }, (_, i) => ((table[i] as number) + (table[i + 1] as number)) / 2);

const NF4_MIDDLES = middlesOf(NF4_TABLE);
/** The code of 0. */
const NF4_ZERO = 7;

/** The place of the nearest number of a table; a tie goes to the lower one. */
function nearest(middles: Float32Array, value: number): number {
  let [low, high] = [0, middles.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (value > (middles[middle] as number)) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Buckets of shares from -1 to 1, none of which holds two middles; the code of each one's lower end. */
const BUCKETS = 1024;
const BUCKET_CODES = Uint8Array.from({ length: 2 * BUCKETS + 1 }, (_, i) => nearest(NF4_MIDDLES, i / BUCKETS - 1));

function nf4(values: Float32Array): Quantized {
  const { block } = QUANTIZED.nf4;
  const scales = largest(values, block);
  const codes = new Uint8Array(Math.ceil(values.length / 2));
  for (const [at, scale] of scales.entries()) {
    const inverse = Math.fround(1 / scale);
    const end = Math.min((at + 1) * block, values.length);
    for (let i = at * block; i < end; i++) {
      let code = NF4_ZERO;
      if (scale !== 0) {
        const share = Math.fround((values[i] as number) * inverse);
        code = BUCKET_CODES[((share + 1) * BUCKETS) | 0] as number;
        if (share > (NF4_MIDDLES[code] as number)) code++;
      }
      codes[i >> 1] = i % 2 === 0 ? (code << 4) | NF4_ZERO : ((codes[i >> 1] as number) & 0xf0) | code;
    }
  }
  return { codes, scales };
}

function int8(values: Float32Array): Quantized {
  const { block } = QUANTIZED.int8;
  const steps = largest(values, block).map((most) => most / 127);
  const codes = new Uint8Array(values.length);
  for (const [at, step] of steps.entries()) {
    const end = Math.min((at + 1) * block, values.length);
    for (let i = at * block; step !== 0 && i < end; i++) {
      const share = Math.fround((values[i] as number) / step);
      codes[i] = share < 0 ? -Math.floor(0.5 - share) : Math.floor(share + 0.5); // half away from zero
    }
  }
  return { codes, scales: f16ToF32(f32ToF16(steps)) };
}

/** Scales of NF4 as bytes: each less `offset`, in blocks of 256 by a table of 256 numbers times the block's scale. */
export interface NestedScales {
  readonly codes: Uint8Array<ArrayBuffer>;
  readonly scales: Float32Array<ArrayBuffer>;
  readonly offset: number;
  readonly table: Float32Array<ArrayBuffer>;
  readonly block: number;
}

/** Scales in a block of a double quantisation. */
const NESTED_BLOCK = 256;

const DYNAMIC_TABLE = dynamicMap(true);
const DYNAMIC_MIDDLES = middlesOf(DYNAMIC_TABLE);

/** The double quantisation of the scales of a whole matrix. */
export function nested(scales: Float32Array): NestedScales {
  const offset = Math.fround(scales.reduce((sum, scale) => sum + scale, 0) / Math.max(1, scales.length));
  const rest = scales.map((scale) => scale - offset);
  const most = largest(rest, NESTED_BLOCK);
  const inverse = most.map((scale) => 1 / scale);
  const codes = Uint8Array.from(rest, (value, i) => {
    const at = Math.floor(i / NESTED_BLOCK);
    return nearest(DYNAMIC_MIDDLES, most[at] === 0 ? 0 : Math.fround(value * (inverse[at] as number)));
  });
  return { codes, scales: most, offset, table: DYNAMIC_TABLE, block: NESTED_BLOCK };
}

/** The scales that a double quantisation stands for: a product and a sum, each rounded to f32. */
export function unnested({ codes, scales, offset, table, block }: NestedScales): Float32Array<ArrayBuffer> {
  return Float32Array.from(codes, (code, i) => {
    const product = Math.fround((table[code] as number) * (scales[Math.floor(i / block)] as number));
    return product + offset;
  });
}
