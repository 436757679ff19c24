/** Choosing a token from logits: greedy, temperature, top-k, top-p, in Hugging Face's order. Host arithmetic. */
import type { Random } from "../random.ts";

export interface SamplingOptions {
  /** Logits are divided by this; 0 takes the likeliest token. */
  readonly temperature: number;
  /** Only the k likeliest tokens; 0 for all. */
  readonly topK: number;
  /** Only the smallest set of likeliest tokens whose probabilities reach this; 1 for all. */
  readonly topP: number;
}

/** The token drawn from one row of logits. Of equal logits the lower id wins when greedy. */
export function sampleToken(logits: Float32Array, options: SamplingOptions, random: Random): number {
  if (options.temperature === 0) return likeliest(logits);
  const { ids, weights, total } = candidates(logits, options);
  let left = random.float() * total;
  for (let i = 0; i < weights.length; i++) {
    left -= weights[i] ?? 0;
    if (left < 0) return ids?.[i] ?? i;
  }
  // Rounding left a crumb: the last token that has any weight.
  const last = weights.findLastIndex((weight) => weight > 0);
  return ids?.[last] ?? last;
}

function likeliest(logits: Float32Array): number {
  let best = 0;
  for (let id = 1; id < logits.length; id++) {
    if ((logits[id] ?? 0) > (logits[best] ?? 0)) best = id;
  }
  return best;
}

/** Unnormalised probabilities of the tokens that may be drawn; without `ids` they are those of token 0, 1, ... */
function candidates(
  logits: Float32Array,
  { temperature, topK, topP }: SamplingOptions,
): { ids: Uint32Array | undefined; weights: Float64Array; total: number } {
  let highest = Number.NEGATIVE_INFINITY;
  for (const logit of logits) highest = Math.max(highest, logit);
  const weightOf = (logit: number) => Math.exp((logit - highest) / temperature);
  const sum = (weights: Float64Array) => weights.reduce((total, weight) => total + weight, 0);
  if (topK === 0 && topP >= 1) {
    const weights = Float64Array.from(logits, weightOf);
    return { ids: undefined, weights, total: sum(weights) };
  }
  let ids = Uint32Array.from(logits, (_, id) => id).sort((a, b) => (logits[b] ?? 0) - (logits[a] ?? 0) || a - b);
  if (topK > 0) ids = ids.subarray(0, topK);
  let weights = Float64Array.from(ids, (id) => weightOf(logits[id] ?? 0));
  if (topP < 1) {
    const wanted = topP * sum(weights);
    let reached = 0;
    let count = 0;
    while (count < weights.length && (count === 0 || reached < wanted)) reached += weights[count++] ?? 0;
    ids = ids.subarray(0, count);
    weights = weights.subarray(0, count);
  }
  return { ids, weights, total: sum(weights) };
}
