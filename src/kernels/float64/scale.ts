/** Factors by position and the soft cap in float64; a factor for all rows needs no twin. */
import { at, idAt } from "./elements.ts";

/** `cap tanh(x / cap)`; the number itself without a cap. */
export function softCapped(x: number, cap: number | undefined): number {
  return cap === undefined ? x : cap * Math.tanh(x / cap);
}

/**
 * What queries are multiplied with at each position p in Llama 4 and Ministral 3: `1 + beta ln(1 + floor(p / N))`.
 *
 * @param length N, in tokens
 */
export function positionFactor(position: number, beta: number, length: number): number {
  return 1 + beta * Math.log(1 + Math.floor(position / length));
}

/** `y[t, c] = factors[positions[t]] x[t, c]`, its own backward pass. @param x [T, C]; @returns [T, C] */
export function scaleByPosition(x: Float64Array, positions: ArrayLike<number>, factors: Float64Array): Float64Array {
  const columns = x.length / positions.length;
  return x.map((value, i) => value * at(factors, idAt(positions, Math.floor(i / columns))));
}
