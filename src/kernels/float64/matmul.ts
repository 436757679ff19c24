/**
 * Matrix product in float64: the specification of the matmul kernels and the bound on their rounding error.
 * Not fast and not meant to be: one dot product per element, in the order of k.
 */
import { at } from "./elements.ts";

export interface MatmulInputs {
  /** [m, k], or [k, m] when `transposeA`. */
  readonly a: Float64Array;
  /** [k, n], or [n, k] when `transposeB` (the layout of a Hugging Face linear weight [out, in]). */
  readonly b: Float64Array;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly transposeA?: boolean;
  readonly transposeB?: boolean;
  /** [n], added to every row. */
  readonly bias?: Float64Array | undefined;
  /** [m, n], added element by element. */
  readonly residual?: Float64Array | undefined;
}

/** `y[i, j] = sum_p a[i, p] b[p, j] + bias[j] + residual[i, j]`, [m, n]. With k = 0 the sum is 0. */
export function matmul(inputs: MatmulInputs): Float64Array {
  const { a, b, m, n, k, transposeA = false, transposeB = false, bias, residual } = inputs;
  requireLength("a", a, m * k);
  requireLength("b", b, k * n);
  if (bias) requireLength("bias", bias, n);
  if (residual) requireLength("residual", residual, m * n);
  // Both operands with k innermost, so that every dot product runs through two contiguous rows.
  const rowsOfA = transposeA ? transposed(a, k, m) : a;
  const columnsOfB = transposeB ? b : transposed(b, k, n);
  const y = new Float64Array(m * n);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      let sum = 0;
      for (let p = 0; p < k; p++) sum += (rowsOfA[i * k + p] as number) * (columnsOfB[j * k + p] as number);
      if (bias) sum += at(bias, j);
      if (residual) sum += at(residual, i * n + j);
      y[i * n + j] = sum;
    }
  }
  return y;
}

/**
 * The product's sum over absolute terms, [m, n]: `sum_p |a[i, p] b[p, j]| + |bias[j]| + |residual[i, j]|`. A product in f32
 * lies within c sqrt(k) 2^-24 of this of the exact one.
 */
export function matmulAbsolute(inputs: MatmulInputs): Float64Array {
  return matmul({
    ...inputs,
    a: inputs.a.map(Math.abs),
    b: inputs.b.map(Math.abs),
    bias: inputs.bias?.map(Math.abs),
    residual: inputs.residual?.map(Math.abs),
  });
}

/** x [rows, columns] as [columns, rows]. */
function transposed(x: Float64Array, rows: number, columns: number): Float64Array {
  const y = new Float64Array(x.length);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) y[j * rows + i] = at(x, i * columns + j);
  return y;
}

function requireLength(name: string, values: Float64Array, length: number): void {
  if (values.length !== length) throw new RangeError(`matmul: ${name} holds ${values.length} elements, not ${length}.`);
}
