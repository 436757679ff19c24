/**
 * The gate of attention's output (Qwen3.5), in float64. Queries and gates come from one projection, in which each head
 * has its D queries and then its D gates.
 */
import { sigmoid } from "./activation.ts";
import { at } from "./elements.ts";

/**
 * @param fused [T, 2 H D + rest]: of each head D queries and D gates, then keys and values
 * @returns qkv [T, H D + rest] and gate [T, H D]
 */
export function splitGates(
  fused: Float64Array,
  heads: number,
  headSize: number,
  rows: number,
): { qkv: Float64Array; gate: Float64Array } {
  const width = fused.length / rows;
  const isGate = (column: number) => column < 2 * heads * headSize && column % (2 * headSize) >= headSize;
  return {
    qkv: fused.filter((_, i) => !isGate(i % width)),
    gate: fused.filter((_, i) => isGate(i % width)),
  };
}

/** The inverse of `splitGates`. */
export function joinGates(
  { qkv, gate }: { readonly qkv: Float64Array; readonly gate: Float64Array },
  heads: number,
  headSize: number,
  rows: number,
): Float64Array {
  const ofQueries = heads * headSize;
  const width = qkv.length / rows;
  const fused = new Float64Array(qkv.length + gate.length);
  for (let t = 0; t < rows; t++) {
    for (let c = 0; c < width + ofQueries; c++) {
      const [head, within] = [Math.floor(c / (2 * headSize)), c % (2 * headSize)];
      let value: number;
      if (c >= 2 * ofQueries) value = at(qkv, t * width + c - ofQueries);
      else if (within < headSize) value = at(qkv, t * width + head * headSize + within);
      else value = at(gate, t * ofQueries + head * headSize + within - headSize);
      fused[t * (width + ofQueries) + c] = value;
    }
  }
  return fused;
}

/** `out = x sigmoid(gate)`, element by element. */
export function outputGateForward(x: Float64Array, gate: Float64Array): Float64Array {
  return x.map((value, i) => value * sigmoid(at(gate, i)));
}

/** `dx = dOut sigmoid(gate)`, `dGate = dOut x sigmoid(gate) sigmoid(-gate)`. */
export function outputGateBackward(
  dOut: Float64Array,
  x: Float64Array,
  gate: Float64Array,
): { dx: Float64Array; dGate: Float64Array } {
  return {
    dx: outputGateForward(dOut, gate),
    dGate: dOut.map((d, i) => d * at(x, i) * sigmoid(at(gate, i)) * sigmoid(-at(gate, i))),
  };
}
