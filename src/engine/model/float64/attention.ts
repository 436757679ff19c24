/** Attention of a float64 layer, from its fused input [q | k | v] to what the output projection reads. */
import { attentionBackward, attentionForward } from "../../../kernels/float64/attention.ts";
import { joinColumns, splitColumns } from "../../../kernels/float64/columns.ts";
import { type HeadNormInputs, headNormBackward, headNormForward } from "../../../kernels/float64/head-norm.ts";
import { joinGates, outputGateBackward, outputGateForward, splitGates } from "../../../kernels/float64/output-gate.ts";
import { ropeBackward, ropeForward } from "../../../kernels/float64/rope.ts";
import { positionFactor, scaleByPosition } from "../../../kernels/float64/scale.ts";
import type { ModelConfig } from "../config/config.ts";
import type { AttentionParameters } from "./parameters.ts";
import { accumulate, type Float64Gradients, gain } from "./parts.ts";

/** What the backward pass needs of the forward pass. */
export interface AttentionActivations {
  readonly type: "attention";
  /** Before the norms of query and key heads: [q | k | v], [T, H + KV]; undefined without them. */
  readonly headNorm: { readonly x: Float64Array; readonly inverse: Float64Array } | undefined;
  /** Normed and rotated, as attention reads them. */
  readonly q: Float64Array;
  readonly k: Float64Array;
  readonly v: Float64Array;
  /** What attention gives, and with a gate what that leaves of it. */
  readonly attended: Float64Array;
  readonly out: Float64Array;
  readonly logSumExp: Float64Array;
  /** [T, H D], where the model has one. */
  readonly gate: Float64Array | undefined;
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

export function attentionMixerForward(
  config: ModelConfig,
  index: number,
  parameters: AttentionParameters,
  input: Float64Array,
  positions: Int32Array,
): AttentionActivations {
  const { heads, keyValueHeads, headSize } = config;
  const { attentionScale: scale, attentionSoftCap: softCap } = config;
  const rows = positions.length;
  const { qkv: fused, gate } = config.attentionGate
    ? splitGates(input, heads, headSize, rows)
    : { qkv: input, gate: undefined };
  const ranges = visibleRanges(config, index, rows);
  const norms = headNormInputs(config, parameters, rows);
  const normed = norms && headNormForward(fused, config.normEpsilon, norms);
  const headNorm = normed && { x: fused, inverse: normed.inverse };
  const [plainQ, plainK, v] = splitQkv(config, normed?.y ?? fused, rows);
  const q = queryScaled(config, rotated(ropeForward, config, index, plainQ, heads, positions), positions);
  const k = rotated(ropeForward, config, index, plainK, keyValueHeads, positions);
  const result = attentionForward({ q, k, v, ranges, heads, keyValueHeads, headSize, scale, softCap });
  const { out: attended, logSumExp } = result;
  const out = gate ? outputGateForward(attended, gate) : attended;
  return { type: "attention", headNorm, q, k, v, attended, logSumExp, gate, out };
}

/** The gradient of the fused input; the norms' own are added to `grads`. */
export function attentionMixerBackward(
  config: ModelConfig,
  index: number,
  parameters: AttentionParameters,
  saved: AttentionActivations,
  dGated: Float64Array,
  positions: Int32Array,
  grads: Float64Gradients,
): Float64Array {
  const { gate, attended } = saved;
  const ofGate = gate && outputGateBackward(dGated, attended, gate);
  const dOut = ofGate?.dx ?? dGated;
  const { heads, keyValueHeads, headSize } = config;
  const { attentionScale: scale, attentionSoftCap: softCap } = config;
  const rows = positions.length;
  const { q, k, v, headNorm, logSumExp } = saved;
  const ranges = visibleRanges(config, index, rows);
  const shape = { heads, keyValueHeads, headSize, scale, softCap };
  const d = attentionBackward({ q, k, v, ranges, ...shape, dOut, logSumExp });
  const dq = rotated(ropeBackward, config, index, queryScaled(config, d.dq, positions), heads, positions);
  const dk = rotated(ropeBackward, config, index, d.dk, keyValueHeads, positions);
  let qkv = joinColumns([dq, dk, d.dv], rows);
  const norms = headNormInputs(config, parameters, rows);
  const { queryNorm, keyNorm } = parameters;
  if (headNorm && norms && queryNorm && keyNorm) {
    const { dx, dQueryWeight, dKeyWeight } = headNormBackward(qkv, headNorm.x, headNorm.inverse, norms);
    accumulate(grads, queryNorm, dQueryWeight);
    accumulate(grads, keyNorm, dKeyWeight);
    qkv = dx;
  }
  return ofGate ? joinGates({ qkv, gate: ofGate.dGate }, heads, headSize, rows) : qkv;
}

function splitQkv(config: ModelConfig, fused: Float64Array, rows: number): [Float64Array, Float64Array, Float64Array] {
  const { heads, keyValueHeads, headSize } = config;
  const widths = [heads * headSize, keyValueHeads * headSize, keyValueHeads * headSize];
  return splitColumns(fused, widths, rows) as [Float64Array, Float64Array, Float64Array];
}

function headNormInputs(
  config: ModelConfig,
  { queryNorm, keyNorm }: AttentionParameters,
  rows: number,
): HeadNormInputs | undefined {
  if (!queryNorm || !keyNorm) return undefined;
  // All heads together are one head, as wide as the weight.
  const [queryHeads, keyHeads] = config.qkNorm === "width" ? [1, 1] : [config.heads, config.keyValueHeads];
  return { queryWeight: gain(config, queryNorm), keyWeight: gain(config, keyNorm), queryHeads, keyHeads, rows };
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
