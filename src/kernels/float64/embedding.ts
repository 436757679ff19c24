/**
 * Embedding lookup and its gradient, and the same two moves under the names that the log-prob head uses: rows gathered
 * from the hidden states, their gradients scattered back. In float64.
 */
import { add, at, idAt } from "./elements.ts";

/** `y[t] = table[ids[t]]`. @param table [V, C] @param ids [T], below V @param columns C; @returns [T, C] */
export function embeddingForward(table: Float64Array, ids: ArrayLike<number>, columns: number): Float64Array {
  return gatherRows(table, ids, columns);
}

/** `dTable[v] = sum over t with ids[t] = v of dy[t]`. @param dy [T, C] @param ids [T]; @returns [V, C] */
export function embeddingBackward(
  dy: Float64Array,
  ids: ArrayLike<number>,
  vocabSize: number,
  columns: number,
): Float64Array {
  return scatterRows(dy, ids, vocabSize, columns);
}

/** `y[n] = x[rows[n]]`. @param x [T, C] @param rows [N], below T @param columns C; @returns [N, C] */
export function gatherRows(x: Float64Array, rows: ArrayLike<number>, columns: number): Float64Array {
  const y = new Float64Array(rows.length * columns);
  for (let n = 0; n < rows.length; n++) {
    const source = idAt(rows, n) * columns;
    for (let c = 0; c < columns; c++) y[n * columns + c] = at(x, source + c);
  }
  return y;
}

/** `dx[rows[n]] += dy[n]` into zeros; rows may repeat. @param dy [N, C] @param rows [N]; @returns [rowCount, C] */
export function scatterRows(
  dy: Float64Array,
  rows: ArrayLike<number>,
  rowCount: number,
  columns: number,
): Float64Array {
  const dx = new Float64Array(rowCount * columns);
  for (let n = 0; n < rows.length; n++) {
    const target = idAt(rows, n) * columns;
    for (let c = 0; c < columns; c++) add(dx, target + c, at(dy, n * columns + c));
  }
  return dx;
}
