/**
 * The log-prob head in float64: logits = hidden table^T, log-softmax, the target's entry; its gradient from one
 * coefficient a row; and the sums over each sequence's rows. One row of logits exists at a time.
 */
import { add, at, idAt } from "./elements.ts";
import { softCapped } from "./scale.ts";

/** What becomes of the products of hidden rows and the table on their way to being logits. */
export interface LogitOptions {
  /** What they are divided by (Granite); default 1. */
  readonly divisor?: number;
  /** Cap of the divided logits, x -> cap tanh(x / cap) (Gemma); default: none. */
  readonly cap?: number | undefined;
}

/**
 * `logits[v] = hidden[n] . table[v]`, `logSumExp[n] = log sum_v exp(logits[v])`,
 * `logProbs[n] = logits[targets[n]] - logSumExp[n]`.
 *
 * @param hidden [N, C] @param table [V, C] @param targets [N], below V
 * @returns logProbs [N], logSumExp [N]
 */
export function logSoftmaxGatherForward(
  hidden: Float64Array,
  table: Float64Array,
  targets: ArrayLike<number>,
  options: LogitOptions = {},
): { logProbs: Float64Array; logSumExp: Float64Array } {
  const rows = targets.length;
  const columns = rows === 0 ? 1 : hidden.length / rows;
  const logProbs = new Float64Array(rows);
  const logSumExp = new Float64Array(rows);
  const logits = new Float64Array(table.length / columns);
  for (let n = 0; n < rows; n++) {
    fillLogits(logits, hidden, table, n, columns, options);
    let maximum = Number.NEGATIVE_INFINITY;
    for (let v = 0; v < logits.length; v++) maximum = Math.max(maximum, at(logits, v));
    let sum = 0;
    for (let v = 0; v < logits.length; v++) sum += Math.exp(at(logits, v) - maximum);
    logSumExp[n] = maximum + Math.log(sum);
    logProbs[n] = at(logits, idAt(targets, n)) - at(logSumExp, n);
  }
  return { logProbs, logSumExp };
}

/** `hits[n] = 1 where logits[targets[n]] is the highest of row n, alone or with others, else 0`. @returns [N] */
export function targetHits(hidden: Float64Array, table: Float64Array, targets: ArrayLike<number>): Float64Array {
  const columns = targets.length === 0 ? 1 : hidden.length / targets.length;
  const logits = new Float64Array(table.length / columns);
  return Float64Array.from({ length: targets.length }, (_, n) => {
    fillLogits(logits, hidden, table, n, columns);
    return at(logits, idAt(targets, n)) >= Math.max(...logits) ? 1 : 0;
  });
}

/**
 * `dLogits[n, v] = coefficients[n] ([v = targets[n]] - exp(logits[v] - logSumExp[n]))`, where coefficients[n] is
 * dloss / dlogProbs[n], times `1 - (logits[v] / cap)^2` and over the divisor where there are such; `dHidden[n] = sum_v dLogits[n, v] table[v]`, `dTable[v] = sum_n dLogits[n, v] hidden[n]`.
 *
 * @param hidden [N, C] @param table [V, C] @param targets [N] @param coefficients [N] @param logSumExp [N]
 * @returns dHidden [N, C], dTable [V, C]
 */
export function logSoftmaxGatherBackward(
  hidden: Float64Array,
  table: Float64Array,
  targets: ArrayLike<number>,
  coefficients: Float64Array,
  logSumExp: Float64Array,
  options: LogitOptions = {},
): { dHidden: Float64Array; dTable: Float64Array } {
  const { divisor = 1, cap } = options;
  const rows = targets.length;
  const columns = rows === 0 ? 1 : hidden.length / rows;
  const dHidden = new Float64Array(hidden.length);
  const dTable = new Float64Array(table.length);
  const logits = new Float64Array(table.length / columns);
  for (let n = 0; n < rows; n++) {
    fillLogits(logits, hidden, table, n, columns, options);
    const target = idAt(targets, n);
    const coefficient = at(coefficients, n);
    for (let v = 0; v < logits.length; v++) {
      const probability = Math.exp(at(logits, v) - at(logSumExp, n));
      const slope = (cap === undefined ? 1 : 1 - (at(logits, v) / cap) ** 2) / divisor;
      const dLogit = coefficient * ((v === target ? 1 : 0) - probability) * slope;
      for (let i = n * columns, j = v * columns; i < (n + 1) * columns; i++, j++) {
        dHidden[i] = (dHidden[i] as number) + dLogit * (table[j] as number);
        dTable[j] = (dTable[j] as number) + dLogit * (hidden[i] as number);
      }
    }
  }
  return { dHidden, dTable };
}

/** `sums[s] = sum of logProbs[n] for n in [start, end)`. @param logProbs [N] @param ranges [S, 2]; @returns [S] */
export function segmentSum(logProbs: Float64Array, ranges: ArrayLike<number>): Float64Array {
  const sums = new Float64Array(ranges.length / 2);
  for (let s = 0; s < sums.length; s++) {
    for (let n = idAt(ranges, 2 * s); n < idAt(ranges, 2 * s + 1); n++) add(sums, s, at(logProbs, n));
  }
  return sums;
}

/** Fills `logits` [V] with those of row n. */
export function fillLogits(
  logits: Float64Array,
  hidden: Float64Array,
  table: Float64Array,
  n: number,
  columns: number,
  { divisor = 1, cap }: LogitOptions = {},
): void {
  for (let v = 0; v < logits.length; v++) {
    let sum = 0;
    for (let i = n * columns, j = v * columns; i < (n + 1) * columns; i++, j++) {
      sum += (hidden[i] as number) * (table[j] as number);
    }
    logits[v] = softCapped(sum / divisor, cap);
  }
}
