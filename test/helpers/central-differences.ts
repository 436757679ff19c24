/** Numerical gradients for the tests of the float64 twin, and the seeded random numbers they are taken at. */
import { expect } from "vitest";

/** Deterministic normal numbers (mulberry32 and Box-Muller). */
export function normals(seed: number): (length: number, deviation?: number) => Float64Array {
  let state = seed >>> 0;
  function uniform(): number {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 4294967296;
  }
  return (length, deviation = 1) =>
    Float64Array.from(
      { length },
      () => deviation * Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()),
    );
}

/** `sum_i a[i] b[i]`: the scalar whose gradient with respect to y is `b`. */
export function dot(a: Float64Array, b: Float64Array): number {
  expect(a.length).toBe(b.length);
  return a.reduce((total, value, i) => total + value * (b[i] as number), 0);
}

/** Distance of two vectors relative to the longer one. */
export function relativeError(actual: Float64Array, expected: Float64Array): number {
  expect(actual.length).toBe(expected.length);
  const difference = Math.sqrt(actual.reduce((total, value, i) => total + (value - (expected[i] as number)) ** 2, 0));
  const size = Math.max(Math.hypot(...actual), Math.hypot(...expected));
  return size === 0 ? difference : difference / size;
}

/** Fourth-order central differences of `f` at the given elements of `x`, which is changed and restored. */
export function centralDifferences(
  f: () => number,
  x: Float64Array,
  indices: number[] = [...x.keys()],
  h = 1e-5,
): Float64Array {
  return Float64Array.from(indices, (i) => {
    const value = x[i] as number;
    const shifted = (steps: number): number => {
      x[i] = value + steps * h;
      return f();
    };
    const slope = (8 * (shifted(1) - shifted(-1)) - (shifted(2) - shifted(-2))) / (12 * h);
    x[i] = value;
    return slope;
  });
}

/**
 * Asserts that `gradient` is that of `f` with respect to `x`: 1e-6 relative in norm, beside the round-off of the
 * differences themselves (about 2^-53 |f| / h an element), which is all that is left where the true gradient is 0.
 */
export function expectGradient(f: () => number, x: Float64Array, gradient: Float64Array, h = 1e-5): void {
  const numeric = centralDifferences(f, x, undefined, h);
  const error = Math.sqrt(numeric.reduce((total, value, i) => total + (value - (gradient[i] as number)) ** 2, 0));
  expect(gradient.length).toBe(x.length);
  const roundOff = (4 * 2 ** -53 * (Math.abs(f()) + 1) * Math.sqrt(x.length)) / h;
  expect(error).toBeLessThanOrEqual(1e-6 * Math.hypot(...gradient) + roundOff);
}
