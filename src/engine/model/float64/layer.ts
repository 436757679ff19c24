/**
 * One layer of the float64 decoder, forward and backward, its parts switched by the configuration. Formulas as they are
 * published: no stream is rescaled, nothing is fused.
 */
import {
  gegluBackward,
  gegluForward,
  geluBackward,
  geluForward,
  swigluBackward,
  swigluForward,
} from "../../../kernels/float64/activation.ts";
import { attentionBackward, attentionForward } from "../../../kernels/float64/attention.ts";
import { columnSums, joinColumns, splitColumns } from "../../../kernels/float64/columns.ts";
import { add, at } from "../../../kernels/float64/elements.ts";
import { type HeadNormInputs, headNormBackward, headNormForward } from "../../../kernels/float64/head-norm.ts";
import { matmul } from "../../../kernels/float64/matmul.ts";
import { layerNormBackward, layerNormForward, rmsNormBackward, rmsNormForward } from "../../../kernels/float64/norm.ts";
import { ropeBackward, ropeForward } from "../../../kernels/float64/rope.ts";
import { positionFactor, scaleByPosition } from "../../../kernels/float64/scale.ts";
import type { ModelConfig } from "../config/config.ts";
import type { Layer, Linear, Norm, Parameter } from "./parameters.ts";

/** Gradients under the names of the weights, each in its weight's layout. */
export type Float64Gradients = Map<string, Float64Array>;

export interface NormResult {
  readonly y: Float64Array;
  /** [T], LayerNorm only. */
  readonly mean: Float64Array;
  /** [T], inverse rms or inverse standard deviation. */
  readonly inverse: Float64Array;
}

/** What the backward pass of one layer needs of its forward pass. */
export interface LayerActivations {
  readonly x: Float64Array;
  /** What attention reads, and further down what the MLP reads: normed or, without a norm, as it is. */
  readonly attentionNorm: NormResult;
  /** Before the norms of query and key heads: [q | k | v], [T, H + KV]; undefined without them. */
  readonly headNorm: { readonly x: Float64Array; readonly inverse: Float64Array } | undefined;
  /** Normed and rotated, as attention reads them. */
  readonly q: Float64Array;
  readonly k: Float64Array;
  readonly v: Float64Array;
  readonly attention: { readonly out: Float64Array; readonly logSumExp: Float64Array };
  readonly attentionBranch: Branch;
  readonly middle: Float64Array;
  readonly mlpNorm: NormResult;
  readonly mlpHidden: Float64Array;
  readonly activated: Float64Array;
  readonly mlpBranch: Branch;
}

/** What attention or the MLP gives, before its norm and after it. */
interface Branch {
  readonly x: Float64Array;
  readonly norm: NormResult;
}

/** Keys that each row sees, [T, 4] as `attentionForward` takes it: those up to itself, within the layer's window. */
function visibleRanges(config: ModelConfig, index: number, rows: number): Int32Array {
  const window = config.layerWindow[index] ? (config.slidingWindow ?? rows) : rows;
  const ranges = new Int32Array(4 * rows);
  for (let t = 0; t < rows; t++) {
    ranges[4 * t + 2] = Math.max(0, t - window + 1);
    ranges[4 * t + 3] = t + 1;
  }
  return ranges;
}

export function layerForward(
  config: ModelConfig,
  index: number,
  layer: Layer,
  x: Float64Array,
  positions: Int32Array,
): { y: Float64Array; activations: LayerActivations } {
  const { heads, keyValueHeads, headSize, residualMultiplier } = config;
  const { attentionScale: scale, attentionSoftCap: softCap } = config;
  const rows = positions.length;
  const ranges = visibleRanges(config, index, rows);
  const attentionNorm = normForward(config, layer.attentionNorm, x);
  const parts = layer.qkv.map((part) => linearForward(part, attentionNorm.y, rows));
  const fused = joinColumns(parts, rows);
  const norms = headNormInputs(config, layer, rows);
  const normed = norms && headNormForward(fused, config.normEpsilon, norms);
  const headNorm = normed && { x: fused, inverse: normed.inverse };
  const [plainQ, plainK, v] = splitQkv(config, normed?.y ?? fused, rows);
  const q = queryScaled(config, rotated(ropeForward, config, index, plainQ, heads, positions), positions);
  const k = rotated(ropeForward, config, index, plainK, keyValueHeads, positions);
  const attention = attentionForward({ q, k, v, ranges, heads, keyValueHeads, headSize, scale, softCap });
  const attentionOut = linearForward(layer.attentionOutput, attention.out, rows);
  const attentionBranch = { x: attentionOut, norm: normForward(config, layer.attentionBranchNorm, attentionOut) };
  const middle = plus(x, times(attentionBranch.norm.y, residualMultiplier));
  const mlpNorm = normForward(config, layer.mlpNorm, middle);
  const mlpParts = layer.mlpInput.map((part) => linearForward(part, mlpNorm.y, rows));
  const mlpHidden = joinColumns(mlpParts, rows);
  const activated = activationForward(config, mlpHidden);
  const mlpOut = linearForward(layer.mlpOutput, activated, rows);
  const mlpBranch = { x: mlpOut, norm: normForward(config, layer.mlpBranchNorm, mlpOut) };
  const y = plus(middle, times(mlpBranch.norm.y, residualMultiplier));
  const ofAttention = { x, attentionNorm, headNorm, q, k, v, attention, attentionBranch };
  return { y, activations: { ...ofAttention, middle, mlpNorm, mlpHidden, activated, mlpBranch } };
}

function activationForward({ mlp, intermediateSize }: ModelConfig, x: Float64Array): Float64Array {
  if (mlp === "gelu") return geluForward(x);
  return (mlp === "swiglu" ? swigluForward : gegluForward)(x, intermediateSize);
}

function activationBackward({ mlp, intermediateSize }: ModelConfig, dy: Float64Array, x: Float64Array): Float64Array {
  if (mlp === "gelu") return geluBackward(dy, x);
  return (mlp === "swiglu" ? swigluBackward : gegluBackward)(dy, x, intermediateSize);
}

export function layerBackward(
  config: ModelConfig,
  index: number,
  layer: Layer,
  saved: LayerActivations,
  dy: Float64Array,
  positions: Int32Array,
  grads: Float64Gradients,
): Float64Array {
  const { heads, keyValueHeads, headSize, residualMultiplier } = config;
  const { attentionScale: scale, attentionSoftCap: softCap } = config;
  const rows = positions.length;
  /** The gradient of what a part of the layer gives, from that of the residual stream behind it. */
  const branchBackward = (norm: Norm | undefined, d: Float64Array, { x, norm: result }: Branch) =>
    normBackward(config, norm, times(d, residualMultiplier), x, result, grads);
  const dMlp = branchBackward(layer.mlpBranchNorm, dy, saved.mlpBranch);
  const dActivated = linearBackward([layer.mlpOutput], dMlp, saved.activated, rows, grads);
  const dMlpHidden = activationBackward(config, dActivated, saved.mlpHidden);
  const dMlpNorm = linearBackward(layer.mlpInput, dMlpHidden, saved.mlpNorm.y, rows, grads);
  const dMiddle = plus(dy, normBackward(config, layer.mlpNorm, dMlpNorm, saved.middle, saved.mlpNorm, grads));
  const dAttention = branchBackward(layer.attentionBranchNorm, dMiddle, saved.attentionBranch);
  const dOut = linearBackward([layer.attentionOutput], dAttention, saved.attention.out, rows, grads);
  const { q, k, v, attention, headNorm } = saved;
  const { logSumExp } = attention;
  const ranges = visibleRanges(config, index, rows);
  const shape = { heads, keyValueHeads, headSize, scale, softCap };
  const d = attentionBackward({ q, k, v, ranges, ...shape, dOut, logSumExp });
  const dq = rotated(ropeBackward, config, index, queryScaled(config, d.dq, positions), heads, positions);
  const dk = rotated(ropeBackward, config, index, d.dk, keyValueHeads, positions);
  let dFused = joinColumns([dq, dk, d.dv], rows);
  const norms = headNormInputs(config, layer, rows);
  if (headNorm && norms && layer.queryNorm && layer.keyNorm) {
    const { dx, dQueryWeight, dKeyWeight } = headNormBackward(dFused, headNorm.x, headNorm.inverse, norms);
    accumulate(grads, layer.queryNorm, dQueryWeight);
    accumulate(grads, layer.keyNorm, dKeyWeight);
    dFused = dx;
  }
  const dAttentionNorm = linearBackward(layer.qkv, dFused, saved.attentionNorm.y, rows, grads);
  return plus(dMiddle, normBackward(config, layer.attentionNorm, dAttentionNorm, saved.x, saved.attentionNorm, grads));
}

function splitQkv(config: ModelConfig, fused: Float64Array, rows: number): [Float64Array, Float64Array, Float64Array] {
  const { heads, keyValueHeads, headSize } = config;
  const widths = [heads * headSize, keyValueHeads * headSize, keyValueHeads * headSize];
  return splitColumns(fused, widths, rows) as [Float64Array, Float64Array, Float64Array];
}

function headNormInputs(config: ModelConfig, { queryNorm, keyNorm }: Layer, rows: number): HeadNormInputs | undefined {
  if (!queryNorm || !keyNorm) return undefined;
  // All heads together are one head, as wide as the weight.
  const [queryHeads, keyHeads] = config.qkNorm === "width" ? [1, 1] : [config.heads, config.keyValueHeads];
  return { queryWeight: gain(config, queryNorm), keyWeight: gain(config, keyNorm), queryHeads, keyHeads, rows };
}

/** What RMSNorm multiplies with: its weight, which Gemma stores around 0. */
function gain({ normUnitOffset }: ModelConfig, { data }: Parameter): Float64Array {
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

function rotated(
  rotate: typeof ropeForward,
  config: ModelConfig,
  index: number,
  x: Float64Array,
  heads: number,
  positions: Int32Array,
): Float64Array {
  const rope = config.layerRope[index];
  return rope ? rotate({ x, positions, heads, headSize: config.headSize, ...rope, length: positions.length }) : x;
}

/** Queries, or their gradients, by the factors of their positions. */
function queryScaled({ queryScaling }: ModelConfig, x: Float64Array, positions: Int32Array): Float64Array {
  if (!queryScaling) return x;
  const { beta, length } = queryScaling;
  const factors = Float64Array.from(positions, (position) => positionFactor(position, beta, length));
  return scaleByPosition(x, positions, factors);
}

function linearForward(linear: Linear, x: Float64Array, rows: number): Float64Array {
  const { weight, bias, inputs: k, outputs: n, inOut } = linear;
  return matmul({ a: x, b: weight.data, m: rows, n, k, transposeB: !inOut, bias: bias?.data });
}

/** dx of linears that share the input x [T, in]; dy [T, sum of outputs] holds their outputs' gradients side by side. */
function linearBackward(
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
