/**
 * Choosing a token from logits, in Hugging Face's order: repetition penalty (Keskar et al. 2019), then greedy, or
 * temperature, top-k, top-p and min-p. Host arithmetic; sorts no more of the vocabulary than it must. What needs none of
 * these but the temperature is drawn on the device (`kernels/next-token.ts`).
 */
import type { Random } from "../../random.ts";

export interface SamplingOptions {
  /** Logits are divided by this; 0 takes the likeliest token. */
  readonly temperature: number;
  /** Only the k likeliest tokens; 0 for all. */
  readonly topK: number;
  /** Only the smallest set of likeliest tokens whose probabilities reach this; 1 for all. */
  readonly topP: number;
  /** Only tokens at least this many times as probable as the likeliest one, from 0 (default: all) to 1. */
  readonly minP?: number;
  /**
   * Logits of tokens that have occurred are divided by this where positive and multiplied by it where negative, once a
   * token however often it occurred. Above 0; default 1: none.
   */
  readonly repetitionPenalty?: number;
}

/** Whether every token may be drawn and none is changed, so that nobody has to look at the logits as a whole. */
export function drawsFromAll({ temperature, topK, topP, minP = 0, repetitionPenalty = 1 }: SamplingOptions): boolean {
  return repetitionPenalty === 1 && (temperature === 0 || (topK === 0 && topP === 1 && minP === 0));
}

/**
 * The token drawn from one row of logits, which is left as it is. Of equal logits the lower id wins when greedy.
 *
 * @param seen tokens of prompt and continuation, for the repetition penalty
 */
export function sampleToken(
  logits: Float32Array,
  options: SamplingOptions,
  random: Random,
  seen: Iterable<number> = [],
): number {
  const penalised = penalise(logits, options.repetitionPenalty ?? 1, seen);
  if (options.temperature === 0) return likeliest(penalised);
  const { ids, weights, total } = candidates(penalised, options);
  let left = random.float() * total;
  for (let i = 0; i < weights.length; i++) {
    left -= weights[i] ?? 0;
    if (left < 0) return ids?.[i] ?? i;
  }
  // Rounding can leave a small rest after the last weight: take the last token with any weight.
  const last = weights.findLastIndex((weight) => weight > 0);
  return ids?.[last] ?? last;
}

/** The largest f32: what a penalty carries beyond it has no weight against the others that is a number. */
const LARGEST_F32 = (2 - 2 ** -23) * 2 ** 127;

function penalise(logits: Float32Array, penalty: number, seen: Iterable<number>): Float32Array {
  if (penalty === 1) return logits;
  const penalised = logits.slice();
  for (const id of new Set(seen)) {
    const logit = logits[id] ?? 0;
    const changed = logit < 0 ? logit * penalty : logit / penalty;
    penalised[id] = Math.max(-LARGEST_F32, Math.min(LARGEST_F32, changed));
  }
  return penalised;
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
  { temperature, topK, topP, minP = 0 }: SamplingOptions,
): { ids: Uint32Array | undefined; weights: Float64Array; total: number } {
  const highest = logits[likeliest(logits)] ?? 0;
  // The likeliest token weighs 1, so that minP is a weight too.
  const weightOf = (logit: number) => Math.exp((logit - highest) / temperature);
  const enough = (weight: number) => (weight >= minP ? weight : 0);
  if (topK === 0 && topP >= 1) {
    const weights = Float64Array.from(logits, (logit) => enough(weightOf(logit)));
    return { ids: undefined, weights, total: sum(weights) };
  }
  const weigh = (ids: Uint32Array) => Float64Array.from(ids, (id) => weightOf(logits[id] ?? 0));
  const most = topK > 0 ? Math.min(topK, logits.length) : logits.length;
  // Without top-k, few tokens usually reach top-p: more are ranked only when those do not.
  let ranked = topK > 0 ? most : Math.min(FIRST_RANKED, most);
  let ids = likeliestIds(logits, ranked);
  let weights = weigh(ids);
  if (topP < 1) {
    const wanted = topP * (topK > 0 ? sum(weights) : logits.reduce((total, logit) => total + weightOf(logit), 0));
    let count = countToReach(weights, wanted);
    while (count === undefined && ranked < most) {
      ranked = Math.min(RANKED_GROWTH * ranked, most);
      ids = likeliestIds(logits, ranked);
      weights = weigh(ids);
      count = countToReach(weights, wanted);
    }
    ids = ids.subarray(0, count ?? ids.length);
    weights = weights.subarray(0, count ?? weights.length);
  }
  weights = weights.map(enough);
  return { ids, weights, total: sum(weights) };
}

const FIRST_RANKED = 256;
const RANKED_GROWTH = 8;

function sum(weights: Float64Array): number {
  return weights.reduce((total, weight) => total + weight, 0);
}

/** How many of the first weights, at least one, reach a sum together; undefined if all of them do not. */
function countToReach(weights: Float64Array, wanted: number): number | undefined {
  let reached = 0;
  for (let i = 0; i < weights.length; i++) {
    reached += weights[i] ?? 0;
    if (reached >= wanted) return i + 1;
  }
  return undefined;
}

/** The `count` likeliest tokens, likeliest first, of equal ones the lower id first. */
function likeliestIds(logits: Float32Array, count: number): Uint32Array {
  const order = (a: number, b: number) => (logits[b] ?? 0) - (logits[a] ?? 0) || a - b;
  if (4 * count > logits.length)
    return Uint32Array.from(logits, (_, id) => id)
      .sort(order)
      .subarray(0, count);
  // A heap with the least likely of those kept on top.
  const heap = new Uint32Array(count);
  const at = (place: number) => heap[place] ?? 0;
  const sink = (from: number) => {
    const id = at(from);
    let place = from;
    for (;;) {
      let child = 2 * place + 1;
      if (child >= count) break;
      if (child + 1 < count && order(at(child + 1), at(child)) > 0) child++;
      if (order(at(child), id) <= 0) break;
      heap[place] = at(child);
      place = child;
    }
    heap[place] = id;
  };
  for (let id = 0; id < count; id++) heap[id] = id;
  for (let place = (count >> 1) - 1; place >= 0; place--) sink(place);
  for (let id = count; id < logits.length; id++) {
    if ((logits[id] ?? 0) <= (logits[at(0)] ?? 0)) continue;
    heap[0] = id;
    sink(0);
  }
  return heap.sort(order);
}
