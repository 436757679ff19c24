/** Matrices side by side, taken apart again, and summed over rows: what fused q/k/v, gate/up and biases need. */
import { add, at } from "./elements.ts";

/** Parts [T, width_i] side by side, [T, sum of widths]. @param rows T, at least 1 */
export function joinColumns(parts: readonly Float64Array[], rows: number): Float64Array {
  const widths = parts.map((part) => part.length / rows);
  const width = widths.reduce((total, one) => total + one, 0);
  const joined = new Float64Array(rows * width);
  let start = 0;
  parts.forEach((part, i) => {
    const own = widths[i] ?? 0;
    for (let t = 0; t < rows; t++) joined.set(part.subarray(t * own, (t + 1) * own), t * width + start);
    start += own;
  });
  return joined;
}

/** The inverse of `joinColumns`: x [T, sum of widths] in parts [T, width_i]. */
export function splitColumns(x: Float64Array, widths: readonly number[], rows: number): Float64Array[] {
  const width = widths.reduce((total, one) => total + one, 0);
  let start = 0;
  return widths.map((own) => {
    const part = new Float64Array(rows * own);
    for (let t = 0; t < rows; t++) part.set(x.subarray(t * width + start, t * width + start + own), t * own);
    start += own;
    return part;
  });
}

/** `sums[c] = sum_t x[t, c]`, the gradient of a bias. @param x [T, C]; @returns [C] */
export function columnSums(x: Float64Array, rows: number, columns: number): Float64Array {
  const sums = new Float64Array(columns);
  for (let t = 0; t < rows; t++) for (let c = 0; c < columns; c++) add(sums, c, at(x, t * columns + c));
  return sums;
}
