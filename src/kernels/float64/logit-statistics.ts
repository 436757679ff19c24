/** Entropy and mean of rows of logits in float64. One row of logits exists at a time. */
import { fillLogits, type LogitOptions } from "./log-softmax-gather.ts";

/**
 * `logits[v] = hidden[n] . table[v]`, `p = softmax(logits)`: `entropies[n] = -sum_v p[v] log p[v]` in nats,
 * `meanLogits[n] = sum_v logits[v] / V`.
 *
 * @param hidden [rows, C] @param table [V, C]
 * @returns entropies [rows], meanLogits [rows]
 */
export function logitStatistics(
  hidden: Float64Array,
  table: Float64Array,
  rows: number,
  options: LogitOptions = {},
): { entropies: Float64Array; meanLogits: Float64Array } {
  const columns = rows === 0 ? 1 : hidden.length / rows;
  const entropies = new Float64Array(rows);
  const meanLogits = new Float64Array(rows);
  const logits = new Float64Array(table.length / columns);
  for (let n = 0; n < rows; n++) {
    fillLogits(logits, hidden, table, n, columns, options);
    const highest = logits.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
    const total = highest + Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - highest), 0));
    entropies[n] = logits.reduce((sum, logit) => sum + Math.exp(logit - total) * (total - logit), 0);
    meanLogits[n] = logits.reduce((sum, logit) => sum + logit, 0) / logits.length;
  }
  return { entropies, meanLogits };
}
