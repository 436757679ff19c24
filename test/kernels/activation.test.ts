/** SwiGLU and GELU, forward and backward, from tiny arguments to those at which exp overflows. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { geluBackward, geluForward, swigluBackward, swigluForward } from "../../src/kernels/activation.ts";
import * as reference from "../../src/kernels/reference/activation.ts";
import { EPSILON, expError, expectWithin, float64, normals, SMALLEST_NORMAL, seeded } from "../helpers/compare.ts";
import { sharedDevice } from "../helpers/device.ts";
import { f32, runKernel, unset } from "../helpers/gpu.ts";

const device = await sharedDevice();

const shapes = fc.record({
  T: fc.constantFrom(1, 2, 7, 31),
  I: fc.constantFrom(1, 3, 8, 63, 64, 65),
  scale: fc.constantFrom(1e-3, 1, 6, 60),
  seed: fc.integer({ min: 0, max: 2 ** 31 }),
});

const at = (values: ArrayLike<number>, index: number) => values[index] ?? Number.NaN;

/** sigmoid = 1 or e, over 1 + e: exp's own error, a division of 2.5 units and two roundings. */
const sigmoidError = (x: number) => expError(x) + 8 * EPSILON;

/** Where exp(-|x|) falls below the smallest normal number it may become 0; times what multiplies it afterwards. */
const flushed = (...factors: number[]) =>
  SMALLEST_NORMAL * factors.reduce((product, factor) => product * Math.max(1, Math.abs(factor)), 1);

async function checkSwiglu(T: number, I: number, gateUp: Float32Array, dy: Float32Array): Promise<void> {
  const place = (i: number) => Math.floor(i / I) * 2 * I + (i % I);
  const forward = await runKernel(device, swigluForward, { gateUp: f32([T, 2 * I], gateUp), y: unset(T, I) });
  const y = reference.swigluForward(float64(gateUp), I);
  expectWithin("swiglu y", forward("y"), y, (i) => {
    const gate = at(gateUp, place(i));
    const up = at(gateUp, place(i) + I);
    return Math.abs(at(y, i)) * (sigmoidError(gate) + 2 * EPSILON) + flushed(gate, up);
  });
  const backward = await runKernel(device, swigluBackward, {
    dy: f32([T, I], dy),
    gateUp: f32([T, 2 * I], gateUp),
    dGateUp: unset(T, 2 * I),
  });
  expectWithin(
    "swiglu dGateUp",
    backward("dGateUp"),
    reference.swigluBackward(float64(dy), float64(gateUp), I),
    (j) => {
      const i = Math.floor(j / (2 * I)) * I + (j % I);
      const gate = at(gateUp, place(i));
      const up = at(gateUp, place(i) + I);
      const s = reference.sigmoid(gate);
      const error = sigmoidError(gate) + 4 * EPSILON;
      if (j % (2 * I) >= I) return Math.abs(at(dy, i) * gate * s) * error + flushed(at(dy, i), gate);
      // 1 - s is a difference: s itself is one of its terms, with its rounding.
      const terms = s * (1 + Math.abs(gate) * (1 - s + s));
      return Math.abs(at(dy, i) * up) * terms * 2 * error + flushed(at(dy, i), up, gate);
    },
  );
}

async function checkGelu(T: number, I: number, x: Float32Array, dy: Float32Array): Promise<void> {
  // tanh = sinh / cosh of a clamped argument: errors of exp, absolute near 0, where the two exponentials cancel.
  const root = Math.sqrt(2 / Math.PI);
  const inner = (value: number) => root * (Math.abs(value) + 0.044715 * Math.abs(value) ** 3);
  const tanhError = (value: number) => 2 * expError(Math.min(9.01, inner(value))) + 8 * EPSILON;
  const forward = await runKernel(device, geluForward, { x: f32([T, I], x), y: unset(T, I) });
  expectWithin("gelu y", forward("y"), reference.geluForward(float64(x)), (i) => {
    const value = at(x, i);
    return 0.5 * Math.abs(value) * (tanhError(value) + 2 * 4 * EPSILON) + SMALLEST_NORMAL;
  });
  const backward = await runKernel(device, geluBackward, { dy: f32([T, I], dy), x: f32([T, I], x), dx: unset(T, I) });
  expectWithin("gelu dx", backward("dx"), reference.geluBackward(float64(dy), float64(x)), (i) => {
    const value = at(x, i);
    const slope = root * (1 + 3 * 0.044715 * value ** 2);
    // d(1 - t^2) = 2 |t| dt, and the rounding of 1 - t^2 itself.
    const curved = Math.abs(value) * slope * (2 * tanhError(value) + 4 * EPSILON);
    return 0.5 * Math.abs(at(dy, i)) * (tanhError(value) + 8 * EPSILON + curved) + SMALLEST_NORMAL;
  });
}

describe("activations", () => {
  it("SwiGLU equals float64 over odd shapes and scales", async () => {
    await fc.assert(
      fc.asyncProperty(shapes, async ({ T, I, scale, seed }) => {
        const random = seeded(seed);
        await checkSwiglu(T, I, normals(random, 2 * T * I, scale), normals(random, T * I));
      }),
      { seed: 31, numRuns: 30 },
    );
  });

  it("GELU equals float64 over odd shapes and scales", async () => {
    await fc.assert(
      fc.asyncProperty(shapes, async ({ T, I, scale, seed }) => {
        const random = seeded(seed);
        await checkGelu(T, I, normals(random, T * I, scale), normals(random, T * I));
      }),
      { seed: 32, numRuns: 30 },
    );
  });

  it("is exact or finite where exp overflows and where its result vanishes", async () => {
    const extremes = Float32Array.of(0, 88, -88, 89, -89, 104, -104, 200, -200, 1e4, -1e4);
    const I = extremes.length;
    const ones = new Float32Array(I).fill(1);
    const gateUp = Float32Array.of(...extremes, ...ones);
    await checkSwiglu(1, I, gateUp, ones);
    await checkGelu(1, I, extremes, ones);
    const gelu = await runKernel(device, geluForward, { x: f32([1, I], extremes), y: unset(1, I) });
    expect([...gelu("y")].map((value) => value + 0)).toEqual([0, 88, 0, 89, 0, 104, 0, 200, 0, 1e4, 0]);
  });
});
