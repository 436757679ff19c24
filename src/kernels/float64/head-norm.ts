/**
 * RMSNorm over every query and key head of fused rows [q | k | v] (Qwen3), forward and backward, in float64. A head is
 * a row of D numbers to RMSNorm, so what is said here is only which heads meet which weight. All query heads together
 * and all key heads together (OLMo 2) are one wide head each.
 */
import { joinColumns, splitColumns } from "./columns.ts";
import { rmsNormBackward, rmsNormForward } from "./norm.ts";

export interface HeadNormInputs {
  /** [D], of the query heads; keys may be of another width. */
  readonly queryWeight: Float64Array;
  /** [D], of the key heads. */
  readonly keyWeight: Float64Array;
  readonly queryHeads: number;
  readonly keyHeads: number;
  /** T, at least 1. */
  readonly rows: number;
}

/**
 * `y = weight x / sqrt(mean_d(x^2) + epsilon)` over each query and key head; columns behind them stay.
 *
 * @param x [T, W], W at least (queryHeads + keyHeads) D
 * @returns y [T, W], inverse [T, queryHeads + keyHeads]
 */
export function headNormForward(
  x: Float64Array,
  epsilon: number,
  inputs: HeadNormInputs,
): { y: Float64Array; inverse: Float64Array } {
  const { queryWeight, keyWeight, rows } = inputs;
  const [q, k, rest] = parts(x, inputs);
  const queries = rmsNormForward(q, queryWeight, epsilon);
  const keys = rmsNormForward(k, keyWeight, epsilon);
  return {
    y: joinColumns([queries.y, keys.y, rest], rows),
    inverse: joinColumns([queries.inverseRms, keys.inverseRms], rows),
  };
}

/**
 * @param dy [T, W] @param x [T, W], before the norm @param inverse [T, queryHeads + keyHeads]
 * @returns dx [T, W], dQueryWeight [D], dKeyWeight [D], each summed over rows and heads
 */
export function headNormBackward(
  dy: Float64Array,
  x: Float64Array,
  inverse: Float64Array,
  inputs: HeadNormInputs,
): { dx: Float64Array; dQueryWeight: Float64Array; dKeyWeight: Float64Array } {
  const { queryWeight, keyWeight, queryHeads, keyHeads, rows } = inputs;
  const [dq, dk, rest] = parts(dy, inputs);
  const [q, k] = parts(x, inputs);
  const [ofQueries, ofKeys] = splitColumns(inverse, [queryHeads, keyHeads], rows) as [Float64Array, Float64Array];
  const queries = rmsNormBackward(dq, q, queryWeight, ofQueries);
  const keys = rmsNormBackward(dk, k, keyWeight, ofKeys);
  return {
    dx: joinColumns([queries.dx, keys.dx, rest], rows),
    dQueryWeight: queries.dWeight,
    dKeyWeight: keys.dWeight,
  };
}

function parts(x: Float64Array, inputs: HeadNormInputs): [Float64Array, Float64Array, Float64Array] {
  const { queryWeight, keyWeight, queryHeads, keyHeads, rows } = inputs;
  const widths = [queryHeads * queryWeight.length, keyHeads * keyWeight.length];
  const rest = x.length / rows - widths.reduce((sum, width) => sum + width, 0);
  return splitColumns(x, [...widths, rest], rows) as [Float64Array, Float64Array, Float64Array];
}
