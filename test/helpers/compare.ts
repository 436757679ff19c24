/**
 * Comparing f32 results with float64 ones. Every bound is derived from the terms of the sum that is computed, never a
 * bare absolute number: a result that is small because its terms cancel may be wrong by as much as its terms allow, a
 * result whose terms are small may not.
 */
import { expect } from "vitest";
import { Random } from "../../src/engine/random.ts";
import type { ActivationFormat } from "../../src/kernels/kernel.ts";

export { normals } from "../../bench/measure/case.ts";

/** Half a unit in the last place of 1: the largest relative error of one f32 operation that rounds to nearest. */
export const EPSILON = 2 ** -24;

/** Below this f32 has no full precision, and WGSL lets an implementation write zero instead. */
export const SMALLEST_NORMAL = 2 ** -126;

/** Relative error of WGSL's and Vulkan's exp(x): (3 + 2 |x|) units in the last place, each 2 EPSILON. */
export function expError(x: number): number {
  return (3 + 2 * Math.abs(x)) * 2 * EPSILON;
}

/**
 * Absolute error of tanh(x), x held within +-9.01: sinh over cosh, whose exponentials cancel near 0.
 */
export function tanhError(x: number): number {
  return 2 * expError(Math.min(9.01, Math.abs(x))) + 8 * EPSILON;
}

/** The bound of a result that is off by `bound` and then rounded to the format that it is stored in. */
export function storedBound(format: ActivationFormat, value: number, bound: number): number {
  // Half a unit of f16: 2^-11 of a normal number, 2^-25 below these.
  return format === "f32" ? bound : bound + 2 ** -11 * (Math.abs(value) + bound) + 2 ** -25;
}

/** Fails unless |actual[i] - expected[i]| <= bound[i] for every i, naming the worst. Returns the largest quotient. */
export function expectWithin(
  what: string,
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  bound: ArrayLike<number> | ((index: number) => number),
): number {
  expect(actual.length, `${what}: number of elements`).toBe(expected.length);
  let worst = 0;
  let worstIndex = -1;
  for (let i = 0; i < expected.length; i++) {
    const allowed = (typeof bound === "function" ? bound(i) : bound[i]) ?? Number.NaN;
    if (!Number.isFinite(allowed) || !Number.isFinite(expected[i] ?? Number.NaN)) {
      throw new Error(`${what}: the expected value or its bound at ${i} is not finite`);
    }
    const difference = Math.abs((actual[i] ?? Number.NaN) - (expected[i] ?? Number.NaN));
    const quotient = difference === 0 ? 0 : difference / allowed;
    if (!(quotient <= worst)) {
      worst = Number.isNaN(quotient) ? Number.POSITIVE_INFINITY : quotient;
      worstIndex = i;
    }
  }
  if (!(worst <= 1)) {
    const allowed = typeof bound === "function" ? bound(worstIndex) : bound[worstIndex];
    expect.fail(
      `${what}: element ${worstIndex} of ${expected.length} is ${actual[worstIndex]}, wanted ${expected[worstIndex]} within ${allowed}`,
    );
  }
  return worst;
}

export function seeded(seed: number): Random {
  return new Random(seed);
}

export function float64(values: Iterable<number>): Float64Array {
  return Float64Array.from(values);
}

/** The bits of f32 numbers, for comparisons in which NaN equals NaN and -0 is not 0. */
export function bits(values: Float32Array<ArrayBuffer>): number[] {
  return [...new Uint32Array(values.buffer, values.byteOffset, values.length)];
}
