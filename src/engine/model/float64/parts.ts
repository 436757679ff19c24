/** Parts of a float64 layer that all mixers share: norms, linear layers and sums of gradients. */
import { columnSums, splitColumns } from "../../../kernels/float64/columns.ts";
import { add, at } from "../../../kernels/float64/elements.ts";
import { matmul } from "../../../kernels/float64/matmul.ts";
import { layerNormBackward, layerNormForward, rmsNormBackward, rmsNormForward } from "../../../kernels/float64/norm.ts";
import type { ModelConfig } from "../config/config.ts";
import type { Linear, Norm, Parameter } from "./parameters.ts";

/** Gradients under the names of the weights, each in its weight's layout. */
export type Float64Gradients = Map<string, Float64Array>;

export interface NormResult {
  readonly y: Float64Array;
  /** [T], LayerNorm only. */
  readonly mean: Float64Array;
  /** [T], inverse rms or inverse standard deviation. */
  readonly inverse: Float64Array;
}

/** What RMSNorm multiplies with: its weight, which Gemma stores around 0. */
export function gain({ normUnitOffset }: ModelConfig, { data }: Parameter): Float64Array {
  return normUnitOffset ? data.map((weight) => 1 + weight) : data;
}

export function normForward(config: ModelConfig, norm: Norm | undefined, x: Float64Array): NormResult {
  if (!norm) return { y: x, mean: new Float64Array(0), inverse: new Float64Array(0) };
  if (norm.bias) {
    const { y, mean, inverseStd } = layerNormForward(x, norm.weight.data, norm.bias.data, config.normEpsilon);
    return { y, mean, inverse: inverseStd };
  }
  const { y, inverseRms } = rmsNormForward(x, gain(config, norm.weight), config.normEpsilon);
  return { y, mean: new Float64Array(0), inverse: inverseRms };
}

export function normBackward(
  config: ModelConfig,
  norm: Norm | undefined,
  dy: Float64Array,
  x: Float64Array,
  saved: NormResult,
  grads: Float64Gradients,
): Float64Array {
  if (!norm) return dy;
  if (norm.bias) {
    const d = layerNormBackward(dy, x, norm.weight.data, saved.mean, saved.inverse);
    accumulate(grads, norm.weight, d.dWeight);
    accumulate(grads, norm.bias, d.dBias);
    return d.dx;
  }
  const d = rmsNormBackward(dy, x, gain(config, norm.weight), saved.inverse);
  accumulate(grads, norm.weight, d.dWeight);
  return d.dx;
}

export function linearForward(linear: Linear, x: Float64Array, rows: number): Float64Array {
  const { weight, bias, inputs: k, outputs: n, inOut } = linear;
  return matmul({ a: x, b: weight.data, m: rows, n, k, transposeB: !inOut, bias: bias?.data });
}

/** dx of linears that share the input x [T, in]; dy [T, sum of outputs] holds their outputs' gradients side by side. */
export function linearBackward(
  linears: readonly Linear[],
  dy: Float64Array,
  x: Float64Array,
  rows: number,
  grads: Float64Gradients,
): Float64Array {
  const outputs = linears.map((linear) => linear.outputs);
  const parts = splitColumns(dy, outputs, rows);
  let dx: Float64Array | undefined;
  linears.forEach((linear, i) => {
    const part = parts[i] as Float64Array;
    const { weight, bias, inputs, outputs: width, inOut } = linear;
    const dWeight = inOut
      ? matmul({ a: x, b: part, m: inputs, n: width, k: rows, transposeA: true })
      : matmul({ a: part, b: x, m: width, n: inputs, k: rows, transposeA: true });
    accumulate(grads, weight, dWeight);
    if (bias) accumulate(grads, bias, columnSums(part, rows, width));
    dx = matmul({ a: part, b: weight.data, m: rows, n: inputs, k: width, transposeB: inOut, residual: dx });
  });
  return dx ?? new Float64Array(x.length);
}

export function plus(a: Float64Array, b: Float64Array): Float64Array {
  return a.map((value, i) => value + at(b, i));
}

export function times(x: Float64Array, factor: number): Float64Array {
  return factor === 1 ? x : x.map((value) => factor * value);
}

export function accumulate(grads: Float64Gradients, parameter: Parameter, gradient: Float64Array): void {
  let total = grads.get(parameter.name);
  if (!total) {
    total = new Float64Array(parameter.data.length);
    grads.set(parameter.name, total);
  }
  for (let i = 0; i < total.length; i++) add(total, i, at(gradient, i));
}

/** Keys that rows of one sequence see, [T, 4]: those up to themselves. */
export function sequenceRanges(rows: number): Int32Array {
  return Int32Array.from({ length: 4 * rows }, (_, i) => (i % 4 === 3 ? Math.floor(i / 4) + 1 : 0));
}
