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
  return product(inputs, false);
}

/**
 * The same sum over absolute terms, [m, n]: `sum_p |a[i, p] b[p, j]| + |bias[j]| + |residual[i, j]|`. A product in f32
 * lies within c sqrt(k) 2^-24 of this of the exact one.
 */
export function matmulAbsolute(inputs: MatmulInputs): Float64Array {
  return product(inputs, true);
}

function product(inputs: MatmulInputs, absolute: boolean): Float64Array {
  const { a, b, m, n, k, transposeA = false, transposeB = false, bias, residual } = inputs;
  requireLength("a", a, m * k);
  requireLength("b", b, k * n);
  if (bias) requireLength("bias", bias, n);
  if (residual) requireLength("residual", residual, m * n);
  const rowStrideA = transposeA ? 1 : k;
  const columnStrideA = transposeA ? m : 1;
  const rowStrideB = transposeB ? 1 : n;
  const columnStrideB = transposeB ? k : 1;
  const y = new Float64Array(m * n);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      let sum = 0;
      let indexA = i * rowStrideA;
      let indexB = j * columnStrideB;
      for (let p = 0; p < k; p++) {
        // Inside both arrays, as their lengths are checked; this loop is where the time goes.
        const term = (a[indexA] as number) * (b[indexB] as number);
        sum += absolute ? Math.abs(term) : term;
        indexA += columnStrideA;
        indexB += rowStrideB;
      }
      if (bias) sum += absolute ? Math.abs(at(bias, j)) : at(bias, j);
      if (residual) sum += absolute ? Math.abs(at(residual, i * n + j)) : at(residual, i * n + j);
      y[i * n + j] = sum;
    }
  }
  return y;
}

function requireLength(name: string, values: Float64Array, length: number): void {
  if (values.length !== length) throw new RangeError(`matmul: ${name} holds ${values.length} elements, not ${length}.`);
}
