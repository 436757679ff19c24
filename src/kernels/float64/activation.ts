/**
 * SwiGLU (Shazeer 2020, as in Llama), GELU in its tanh approximation (Hendrycks and Gimpel 2016, GPT-2's "gelu_new")
 * and GeGLU of both (Gemma), forward and backward, in float64. I is the width inside the MLP.
 */
import { joinColumns, splitColumns } from "./columns.ts";
import { at } from "./elements.ts";

/** `1 / (1 + exp(-u))`, without overflow at either end. */
export function sigmoid(u: number): number {
  if (u >= 0) return 1 / (1 + Math.exp(-u));
  const e = Math.exp(u);
  return e / (1 + e);
}

/**
 * `y = silu(gate) up`, `silu(g) = g sigmoid(g)`.
 *
 * @param gateUp [T, 2I]: gate in columns 0..I-1, up in I..2I-1
 * @returns [T, I]
 */
export function swigluForward(gateUp: Float64Array, intermediateSize: number): Float64Array {
  const rows = gateUp.length / (2 * intermediateSize);
  const y = new Float64Array(rows * intermediateSize);
  for (let t = 0; t < rows; t++) {
    for (let i = 0; i < intermediateSize; i++) {
      const gate = at(gateUp, t * 2 * intermediateSize + i);
      const up = at(gateUp, t * 2 * intermediateSize + intermediateSize + i);
      y[t * intermediateSize + i] = gate * sigmoid(gate) * up;
    }
  }
  return y;
}

/**
 * `dGate = dy up sigmoid(gate) (1 + gate sigmoid(-gate))`, `dUp = dy silu(gate)`.
 *
 * @param dy [T, I] @param gateUp [T, 2I]
 * @returns [T, 2I]
 */
export function swigluBackward(dy: Float64Array, gateUp: Float64Array, intermediateSize: number): Float64Array {
  const rows = gateUp.length / (2 * intermediateSize);
  const dGateUp = new Float64Array(gateUp.length);
  for (let t = 0; t < rows; t++) {
    for (let i = 0; i < intermediateSize; i++) {
      const gateIndex = t * 2 * intermediateSize + i;
      const upIndex = gateIndex + intermediateSize;
      const gate = at(gateUp, gateIndex);
      const d = at(dy, t * intermediateSize + i);
      dGateUp[gateIndex] = d * at(gateUp, upIndex) * sigmoid(gate) * (1 + gate * sigmoid(-gate));
      dGateUp[upIndex] = d * gate * sigmoid(gate);
    }
  }
  return dGateUp;
}

const SQRT_2_OVER_PI = Math.sqrt(2 / Math.PI);
const CUBIC = 0.044715;

/** `y = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`, element by element. */
export function geluForward(x: Float64Array): Float64Array {
  const y = new Float64Array(x.length);
  for (let i = 0; i < x.length; i++) {
    const value = at(x, i);
    y[i] = 0.5 * value * (1 + Math.tanh(SQRT_2_OVER_PI * (value + CUBIC * value ** 3)));
  }
  return y;
}

/** With `h = tanh(..)`: `dx = dy ((1 + h)/2 + x/2 (1 - h^2) sqrt(2/pi) (1 + 3 0.044715 x^2))`. */
export function geluBackward(dy: Float64Array, x: Float64Array): Float64Array {
  const dx = new Float64Array(x.length);
  for (let i = 0; i < x.length; i++) {
    const value = at(x, i);
    const h = Math.tanh(SQRT_2_OVER_PI * (value + CUBIC * value ** 3));
    const slope = SQRT_2_OVER_PI * (1 + 3 * CUBIC * value ** 2);
    dx[i] = at(dy, i) * (0.5 * (1 + h) + 0.5 * value * (1 - h ** 2) * slope);
  }
  return dx;
}

/** `y = gelu(gate) up`. @param gateUp [T, 2I], as `swigluForward`'s; @returns [T, I] */
export function gegluForward(gateUp: Float64Array, intermediateSize: number): Float64Array {
  const rows = gateUp.length / (2 * intermediateSize);
  const [gate, up] = splitColumns(gateUp, [intermediateSize, intermediateSize], rows) as [Float64Array, Float64Array];
  return geluForward(gate).map((value, i) => value * at(up, i));
}

/** `dGate = dy up gelu'(gate)`, `dUp = dy gelu(gate)`. @param dy [T, I] @param gateUp [T, 2I]; @returns [T, 2I] */
export function gegluBackward(dy: Float64Array, gateUp: Float64Array, intermediateSize: number): Float64Array {
  const rows = gateUp.length / (2 * intermediateSize);
  const [gate, up] = splitColumns(gateUp, [intermediateSize, intermediateSize], rows) as [Float64Array, Float64Array];
  const activated = geluForward(gate);
  const dGate = geluBackward(
    dy.map((value, i) => value * at(up, i)),
    gate,
  );
  return joinColumns([dGate, dy.map((value, i) => value * at(activated, i))], rows);
}
