/**
 * Softmax attention over two key ranges per row, with grouped-query heads, in float64 and straight from the definition
 * (Vaswani et al. 2017): no tiles, no online softmax. A causal sequence is the case of an empty prefix range and the
 * branch range [first row of the sequence, t + 1).
 */
import { add, at, idAt } from "./elements.ts";
import { softCapped } from "./scale.ts";

export interface AttentionInputs {
  /** [T, H, D] */
  readonly q: Float64Array;
  /** [S, KV, D] */
  readonly k: Float64Array;
  /** [S, KV, D] */
  readonly v: Float64Array;
  /** [T, 4]: prefixStart, prefixEnd, branchStart, branchEnd. Ends are exclusive; the two ranges do not overlap. */
  readonly ranges: ArrayLike<number>;
  /** H, a multiple of KV: query head h reads key/value head floor(h KV / H). */
  readonly heads: number;
  readonly keyValueHeads: number;
  /** D */
  readonly headSize: number;
  /** Default: 1 / sqrt(D). */
  readonly scale?: number | undefined;
  /** Cap of scores, s -> cap tanh(s / cap); default: none. */
  readonly softCap?: number | undefined;
}

/**
 * `s[j] = scale q[t, h] . k[j, g]`, with a soft cap `cap tanh(of it / cap)`, for every j in the row's two ranges,
 * `logSumExp[t, h] = log sum_j exp(s[j])`,
 * `out[t, h] = sum_j exp(s[j] - logSumExp) v[j, g]`. A row without keys gives 0 and a logSumExp of -Infinity.
 *
 * @returns out [T, H, D], logSumExp [T, H]
 */
export function attentionForward(inputs: AttentionInputs): { out: Float64Array; logSumExp: Float64Array } {
  const { v, ranges, heads, keyValueHeads, headSize } = inputs;
  const rows = ranges.length / 4;
  const out = new Float64Array(rows * heads * headSize);
  const logSumExp = new Float64Array(rows * heads);
  for (let t = 0; t < rows; t++) {
    const keys = visibleKeys(ranges, t);
    for (let h = 0; h < heads; h++) {
      const scores = scoresOf(inputs, t, h, keys);
      let maximum = Number.NEGATIVE_INFINITY;
      for (let n = 0; n < keys.length; n++) maximum = Math.max(maximum, at(scores, n));
      let sum = 0;
      for (let n = 0; n < keys.length; n++) sum += Math.exp(at(scores, n) - maximum);
      const total = keys.length === 0 ? Number.NEGATIVE_INFINITY : maximum + Math.log(sum);
      logSumExp[t * heads + h] = total;
      const group = Math.floor((h * keyValueHeads) / heads);
      const outBase = (t * heads + h) * headSize;
      for (let n = 0; n < keys.length; n++) {
        const probability = Math.exp(at(scores, n) - total);
        const keyBase = (idAt(keys, n) * keyValueHeads + group) * headSize;
        for (let d = 0; d < headSize; d++) add(out, outBase + d, probability * at(v, keyBase + d));
      }
    }
  }
  return { out, logSumExp };
}

/**
 * With `p[j] = exp(s[j] - logSumExp)` and `dp[j] = dOut[t, h] . v[j, g]`: `dv[j, g] += p[j] dOut[t, h]`,
 * `ds[j] = p[j] (dp[j] - sum_i p[i] dp[i])`, with a soft cap times `1 - (s[j] / cap)^2`, `dq[t, h] += scale ds[j] k[j, g]`,
 * `dk[j, g] += scale ds[j] q[t, h]`.
 *
 * @param inputs as in the forward pass, with its logSumExp [T, H] and dOut [T, H, D]
 * @returns dq [T, H, D], dk [S, KV, D], dv [S, KV, D]
 */
export function attentionBackward(
  inputs: AttentionInputs & { readonly dOut: Float64Array; readonly logSumExp: Float64Array },
): { dq: Float64Array; dk: Float64Array; dv: Float64Array } {
  const { q, k, v, ranges, heads, keyValueHeads, headSize, dOut, logSumExp, softCap } = inputs;
  const { scale = 1 / Math.sqrt(headSize) } = inputs;
  const rows = ranges.length / 4;
  const dq = new Float64Array(q.length);
  const dk = new Float64Array(k.length);
  const dv = new Float64Array(v.length);
  for (let t = 0; t < rows; t++) {
    const keys = visibleKeys(ranges, t);
    const probabilities = new Float64Array(keys.length);
    const dProbabilities = new Float64Array(keys.length);
    for (let h = 0; h < heads; h++) {
      const scores = scoresOf(inputs, t, h, keys);
      const group = Math.floor((h * keyValueHeads) / heads);
      const queryBase = (t * heads + h) * headSize;
      let mean = 0;
      for (let n = 0; n < keys.length; n++) {
        const keyBase = (idAt(keys, n) * keyValueHeads + group) * headSize;
        const probability = Math.exp(at(scores, n) - at(logSumExp, t * heads + h));
        let dProbability = 0;
        for (let d = 0; d < headSize; d++) dProbability += at(dOut, queryBase + d) * at(v, keyBase + d);
        probabilities[n] = probability;
        dProbabilities[n] = dProbability;
        mean += probability * dProbability;
      }
      for (let n = 0; n < keys.length; n++) {
        const keyBase = (idAt(keys, n) * keyValueHeads + group) * headSize;
        const probability = at(probabilities, n);
        const slope = softCap === undefined ? scale : scale * (1 - (at(scores, n) / softCap) ** 2);
        const dScore = probability * (at(dProbabilities, n) - mean) * slope;
        for (let d = 0; d < headSize; d++) {
          add(dv, keyBase + d, probability * at(dOut, queryBase + d));
          add(dq, queryBase + d, dScore * at(k, keyBase + d));
          add(dk, keyBase + d, dScore * at(q, queryBase + d));
        }
      }
    }
  }
  return { dq, dk, dv };
}

/** Key rows that row t sees: its prefix range, then its branch range. */
function visibleKeys(ranges: ArrayLike<number>, t: number): Int32Array {
  const prefixStart = idAt(ranges, 4 * t);
  const branchStart = idAt(ranges, 4 * t + 2);
  const prefixLength = Math.max(0, idAt(ranges, 4 * t + 1) - prefixStart);
  const branchLength = Math.max(0, idAt(ranges, 4 * t + 3) - branchStart);
  const keys = new Int32Array(prefixLength + branchLength);
  for (let n = 0; n < prefixLength; n++) keys[n] = prefixStart + n;
  for (let n = 0; n < branchLength; n++) keys[prefixLength + n] = branchStart + n;
  return keys;
}

/** Scaled, and capped, scores of query row t, head h against each of `keys`. */
function scoresOf(inputs: AttentionInputs, t: number, h: number, keys: Int32Array): Float64Array {
  const { q, k, heads, keyValueHeads, headSize, softCap } = inputs;
  const { scale = 1 / Math.sqrt(headSize) } = inputs;
  const group = Math.floor((h * keyValueHeads) / heads);
  const queryBase = (t * heads + h) * headSize;
  const scores = new Float64Array(keys.length);
  for (let n = 0; n < keys.length; n++) {
    const keyBase = (idAt(keys, n) * keyValueHeads + group) * headSize;
    let score = 0;
    for (let d = 0; d < headSize; d++) score += at(q, queryBase + d) * at(k, keyBase + d);
    scores[n] = softCapped(score * scale, softCap);
  }
  return scores;
}
