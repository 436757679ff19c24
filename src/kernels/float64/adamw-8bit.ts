/**
 * AdamW whose moments are kept as codes of eight bits (Dettmers et al. 2022, "8-bit Optimizers via Block-wise
 * Quantization"), in float64: how a block is coded, and a step. The update itself uses the moments before they are
 * rounded.
 */
import { dynamicMap, MOMENT_BLOCK } from "../dynamic-map.ts";
import { type AdamwOptions, adamwStep } from "./adamw.ts";
import { at } from "./elements.ts";

/** Moments as they are stored: a code for each, and the scale of each block of `MOMENT_BLOCK`. */
export interface CodedMoments {
  readonly codes: Uint8Array;
  readonly scales: Float64Array;
}

/** values [N] = table[codes] times the scale of their block. */
export function decodeMoments({ codes, scales }: CodedMoments, table: Float32Array): Float64Array {
  return Float64Array.from(codes, (code, i) => entry(table, code) * at(scales, Math.floor(i / MOMENT_BLOCK)));
}

/**
 * The nearest code of each value, the lower one in the middle between two. A second moment (`table` without negative
 * values) above 0 keeps the smallest code above 0: a root of 0 would make the next step as large as m / epsilon.
 */
export function encodeMoments(values: Float64Array, table: Float32Array): CodedMoments {
  const scales = new Float64Array(Math.ceil(values.length / MOMENT_BLOCK));
  values.forEach((value, i) => {
    const block = Math.floor(i / MOMENT_BLOCK);
    scales[block] = Math.max(at(scales, block), Math.abs(value));
  });
  const codes = Uint8Array.from(values, (value, i) => {
    const scale = at(scales, Math.floor(i / MOMENT_BLOCK));
    const code = nearestCode(scale > 0 ? value / scale : 0, table);
    return entry(table, 0) === 0 && value > 0 ? Math.max(1, code) : code;
  });
  return { codes, scales };
}

const entry = (table: Float32Array, code: number): number => table[code] ?? Number.NaN;

function nearestCode(x: number, table: Float32Array): number {
  let low = 0;
  for (let half = 128; half > 0; half /= 2) if (entry(table, low + half) <= x) low += half;
  const above = Math.min(low + 1, 255);
  return x > (entry(table, low) + entry(table, above)) / 2 ? above : low;
}

export interface CodedState {
  /** [N] */
  readonly parameter: Float64Array;
  readonly first: CodedMoments;
  readonly second: CodedMoments;
}

/** `adamwStep` with moments that are coded between the steps. */
export function adamw8bitStep(state: CodedState, gradient: Float64Array, options: AdamwOptions): CodedState {
  const [signed, unsigned] = [dynamicMap(true), dynamicMap(false)];
  const { parameter, firstMoment, secondMoment } = adamwStep(
    {
      parameter: state.parameter,
      firstMoment: decodeMoments(state.first, signed),
      secondMoment: decodeMoments(state.second, unsigned),
    },
    gradient,
    options,
  );
  return { parameter, first: encodeMoments(firstMoment, signed), second: encodeMoments(secondMoment, unsigned) };
}
