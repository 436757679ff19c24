/** SwiGLU, GELU and GeGLU, forward and backward, from tiny arguments to those at which exp overflows. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  gegluBackward,
  gegluForward,
  geluBackward,
  geluForward,
  swigluBackward,
  swigluForward,
} from "../../src/kernels/activation.ts";
import * as twin from "../../src/kernels/float64/activation.ts";
import type { ActivationFormat } from "../../src/kernels/kernel.ts";
import {
  EPSILON,
  expError,
  expectWithin,
  float64,
  normals,
  SMALLEST_NORMAL,
  seeded,
  storedBound,
  tanhError,
} from "../helpers/compare.ts";
import { ACTIVATION_FORMATS, sharedDevice } from "../helpers/device.ts";
import { f32, runKernel, stored, unset, unsetAs } from "../helpers/gpu.ts";

const device = await sharedDevice();

const shapes = fc.record({
  T: fc.constantFrom(1, 2, 7, 31),
  I: fc.constantFrom(1, 3, 8, 63, 64, 65),
  seed: fc.integer({ min: 0, max: 2 ** 31 }),
});
/** f16 ends at 65504, and a SwiGLU is a product of two. */
const scales = { f32: fc.constantFrom(1e-3, 1, 6, 60), f16: fc.constantFrom(1e-3, 1, 6) };

const at = (values: ArrayLike<number>, index: number) => values[index] ?? Number.NaN;

/** sigmoid = 1 or e, over 1 + e: exp's own error, a division of 2.5 units and two roundings. */
const sigmoidError = (x: number) => expError(x) + 8 * EPSILON;

/** Where exp(-|x|) falls below the smallest normal number it may become 0; times what multiplies it afterwards. */
const flushed = (...factors: number[]) =>
  SMALLEST_NORMAL * factors.reduce((product, factor) => product * Math.max(1, Math.abs(factor)), 1);

async function checkSwiglu(
  format: ActivationFormat,
  [T, I]: readonly [number, number],
  given: Float32Array,
  dy: Float32Array,
): Promise<void> {
  const { array, values: gateUp } = stored(format, [T, 2 * I], given);
  const place = (i: number) => Math.floor(i / I) * 2 * I + (i % I);
  const forward = await runKernel(device, swigluForward, { gateUp: array, y: unsetAs(format, T, I) });
  const y = twin.swigluForward(gateUp, I);
  expectWithin("swiglu y", forward("y"), y, (i) => {
    const gate = at(gateUp, place(i));
    const up = at(gateUp, place(i) + I);
    const error = Math.abs(at(y, i)) * (sigmoidError(gate) + 2 * EPSILON) + flushed(gate, up);
    return storedBound(format, at(y, i), error);
  });
  const backward = await runKernel(device, swigluBackward, {
    dy: f32([T, I], dy),
    gateUp: array,
    dGateUp: unset(T, 2 * I),
  });
  expectWithin("swiglu dGateUp", backward("dGateUp"), twin.swigluBackward(float64(dy), gateUp, I), (j) => {
    const i = Math.floor(j / (2 * I)) * I + (j % I);
    const gate = at(gateUp, place(i));
    const up = at(gateUp, place(i) + I);
    const s = twin.sigmoid(gate);
    const error = sigmoidError(gate) + 4 * EPSILON;
    if (j % (2 * I) >= I) return Math.abs(at(dy, i) * gate * s) * error + flushed(at(dy, i), gate);
    // 1 - s is a difference: s itself is one of its terms, with its rounding.
    const terms = s * (1 + Math.abs(gate) * (1 - s + s));
    return Math.abs(at(dy, i) * up) * terms * 2 * error + flushed(at(dy, i), up, gate);
  });
}

// tanh of GELU's argument, and the slope of that.
const root = Math.sqrt(2 / Math.PI);
const geluTanhError = (value: number) => tanhError(root * (Math.abs(value) + 0.044715 * Math.abs(value) ** 3));
const geluSlope = (value: number) => root * (1 + 3 * 0.044715 * value ** 2);

/** What gelu(value) and its derivative may be off by. */
const geluError = (value: number) => 0.5 * Math.abs(value) * (geluTanhError(value) + 2 * 4 * EPSILON);
const geluDerivativeError = (value: number) => {
  // d(1 - t^2) = 2 |t| dt, and the rounding of 1 - t^2 itself.
  const curved = Math.abs(value) * geluSlope(value) * (2 * geluTanhError(value) + 4 * EPSILON);
  return 0.5 * (geluTanhError(value) + 8 * EPSILON + curved);
};

async function checkGelu(
  format: ActivationFormat,
  [T, I]: readonly [number, number],
  given: Float32Array,
  dy: Float32Array,
): Promise<void> {
  const { array, values: x } = stored(format, [T, I], given);
  const forward = await runKernel(device, geluForward, { x: array, y: unsetAs(format, T, I) });
  const y = twin.geluForward(x);
  expectWithin("gelu y", forward("y"), y, (i) => {
    return storedBound(format, at(y, i), geluError(at(x, i)) + SMALLEST_NORMAL);
  });
  const backward = await runKernel(device, geluBackward, { dy: f32([T, I], dy), x: array, dx: unset(T, I) });
  expectWithin("gelu dx", backward("dx"), twin.geluBackward(float64(dy), x), (i) => {
    return Math.abs(at(dy, i)) * geluDerivativeError(at(x, i)) + SMALLEST_NORMAL;
  });
}

async function checkGeglu(
  format: ActivationFormat,
  [T, I]: readonly [number, number],
  given: Float32Array,
  dy: Float32Array,
): Promise<void> {
  const { array, values: gateUp } = stored(format, [T, 2 * I], given);
  const place = (i: number) => Math.floor(i / I) * 2 * I + (i % I);
  const forward = await runKernel(device, gegluForward, { gateUp: array, y: unsetAs(format, T, I) });
  const y = twin.gegluForward(gateUp, I);
  expectWithin("geglu y", forward("y"), y, (i) => {
    const [gate, up] = [at(gateUp, place(i)), at(gateUp, place(i) + I)];
    const error = Math.abs(up) * geluError(gate) + 2 * EPSILON * Math.abs(at(y, i)) + flushed(gate, up);
    return storedBound(format, at(y, i), error);
  });
  const args = { dy: f32([T, I], dy), gateUp: array, dGateUp: unset(T, 2 * I) };
  const backward = await runKernel(device, gegluBackward, args);
  const wanted = twin.gegluBackward(float64(dy), gateUp, I);
  expectWithin("geglu dGateUp", backward("dGateUp"), wanted, (j) => {
    const i = Math.floor(j / (2 * I)) * I + (j % I);
    const [gate, up] = [at(gateUp, place(i)), at(gateUp, place(i) + I)];
    const [factor, error] = j % (2 * I) >= I ? [1, geluError(gate)] : [up, geluDerivativeError(gate)];
    const product = Math.abs(at(dy, i) * factor);
    return product * error + 4 * EPSILON * Math.abs(at(wanted, j)) + flushed(at(dy, i), factor, gate);
  });
}

describe.each(ACTIVATION_FORMATS)("activations in %s", (format) => {
  const cases = fc.tuple(shapes, scales[format]);

  it("SwiGLU equals float64 over odd shapes and scales", async () => {
    await fc.assert(
      fc.asyncProperty(cases, async ([{ T, I, seed }, scale]) => {
        const random = seeded(seed);
        await checkSwiglu(format, [T, I], normals(random, 2 * T * I, scale), normals(random, T * I));
      }),
      { seed: 31, numRuns: 30 },
    );
  });

  it("GELU equals float64 over odd shapes and scales", async () => {
    await fc.assert(
      fc.asyncProperty(cases, async ([{ T, I, seed }, scale]) => {
        const random = seeded(seed);
        await checkGelu(format, [T, I], normals(random, T * I, scale), normals(random, T * I));
      }),
      { seed: 32, numRuns: 30 },
    );
  });

  it("GeGLU equals float64 over odd shapes and scales", async () => {
    await fc.assert(
      fc.asyncProperty(cases, async ([{ T, I, seed }, scale]) => {
        const random = seeded(seed);
        await checkGeglu(format, [T, I], normals(random, 2 * T * I, scale), normals(random, T * I));
      }),
      { seed: 33, numRuns: 30 },
    );
  });
});

describe("activations", () => {
  it("are exact or finite where exp overflows and where their result vanishes", async () => {
    const extremes = Float32Array.of(0, 88, -88, 89, -89, 104, -104, 200, -200, 1e4, -1e4);
    const I = extremes.length;
    const ones = new Float32Array(I).fill(1);
    const gateUp = Float32Array.of(...extremes, ...ones);
    await checkSwiglu("f32", [1, I], gateUp, ones);
    await checkGelu("f32", [1, I], extremes, ones);
    await checkGeglu("f32", [1, I], gateUp, ones);
    const gelu = await runKernel(device, geluForward, { x: f32([1, I], extremes), y: unset(1, I) });
    expect([...gelu("y")].map((value) => value + 0)).toEqual([0, 88, 0, 89, 0, 104, 0, 200, 0, 1e4, 0]);
  });
});

describe("in f16", () => {
  it("what is beyond its range is infinite, so that it is seen", async () => {
    const { array } = stored("f16", [1, 4], [300, 200, 300, 300]);
    const y = await runKernel(device, swigluForward, { gateUp: array, y: unsetAs("f16", 1, 2) });
    expect([...y("y")]).toEqual([Number.POSITIVE_INFINITY, 60000]);
  });
});
