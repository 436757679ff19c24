/** DoRA in plain TypeScript, by its definition: V = W + scale B A is written out. See `../dora.ts`. */
import { at } from "./elements.ts";
import { matmul } from "./matmul.ts";

/** A layer with an adapter: W [outputs, inputs], A [rank, inputs], B [outputs, rank]. */
export interface DoraLayer {
  readonly weight: Float64Array;
  readonly a: Float64Array;
  readonly b: Float64Array;
  /** [outputs]; undefined for LoRA, whose gains are 1. */
  readonly magnitude: Float64Array | undefined;
  readonly inputs: number;
  readonly outputs: number;
  readonly rank: number;
  readonly scale: number;
}

/** V = W + scale B A [outputs, inputs] and the lengths n of its rows. */
export function doraDirection({ weight, a, b, inputs, outputs, rank, scale }: Omit<DoraLayer, "magnitude">): {
  readonly v: Float64Array;
  readonly norms: Float64Array;
} {
  const delta = matmul({ a: b, b: a, m: outputs, n: inputs, k: rank });
  const v = weight.map((value, i) => value + scale * at(delta, i));
  const norms = Float64Array.from({ length: outputs }, (_, o) => {
    return Math.hypot(...v.subarray(o * inputs, (o + 1) * inputs));
  });
  return { v, norms };
}

/** m / n of every output, 0 where n is; 1 for LoRA. */
export function doraGains(layer: DoraLayer): Float64Array {
  const { norms } = doraDirection(layer);
  return norms.map((norm, o) => (layer.magnitude === undefined ? 1 : norm > 0 ? at(layer.magnitude, o) / norm : 0));
}

/** The merged weight (m / n) V. */
export function doraWeight(layer: DoraLayer): Float64Array {
  const { v } = doraDirection(layer);
  const gains = doraGains(layer);
  return v.map((value, i) => value * at(gains, Math.floor(i / layer.inputs)));
}

/** The gradients of A, B and the magnitude from that of the merged weight; n is a constant, as in PEFT. */
export function doraBackward(
  layer: DoraLayer,
  dWeight: Float64Array,
): { readonly dA: Float64Array; readonly dB: Float64Array; readonly dMagnitude: Float64Array } {
  const { a, b, inputs, outputs, rank, scale } = layer;
  const { v, norms } = doraDirection(layer);
  const gains = doraGains(layer);
  const dV = dWeight.map((value, i) => scale * value * at(gains, Math.floor(i / inputs)));
  const dMagnitude = new Float64Array(outputs);
  for (let o = 0; o < outputs; o++) {
    let sum = 0;
    for (let i = o * inputs; i < (o + 1) * inputs; i++) sum += at(dWeight, i) * at(v, i);
    dMagnitude[o] = at(norms, o) > 0 ? sum / at(norms, o) : 0;
  }
  const dA = matmul({ a: b, b: dV, m: rank, n: inputs, k: outputs, transposeA: true });
  const dB = matmul({ a: dV, b: a, m: outputs, n: rank, k: inputs, transposeB: true });
  return { dA, dB, dMagnitude };
}
