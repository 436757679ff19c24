/** The gated norm of DeltaNet's heads, forward, backward and the gradient of its weight, against float64. */
import fc from "fast-check";
import { describe, it } from "vitest";
import { sigmoid } from "../../src/kernels/float64/activation.ts";
import * as twin from "../../src/kernels/float64/gated-norm.ts";
import { gatedNormBackward, gatedNormForward, gatedNormWeightPartials } from "../../src/kernels/gated-norm.ts";
import type { ActivationFormat } from "../../src/kernels/kernel.ts";
import { rowBlocks } from "../../src/kernels/norm.ts";
import { addColumnSums } from "../../src/kernels/reduce.ts";
import type { AdapterFacts } from "../../src/kernels/wgsl.ts";
import { columns } from "../helpers/attention.ts";
import { EPSILON, expError, expectWithin, float64, normals, seeded, storedBound } from "../helpers/compare.ts";
import { ACTIVATION_FORMATS, emulatedLanes, kernelVariants, runsFor, sharedDevice } from "../helpers/device.ts";
import { f32, runKernel, stored, unset, unsetAs } from "../helpers/gpu.ts";
import { expectLanes } from "../helpers/lane-widths.ts";

const device = await sharedDevice();
const variants = await kernelVariants();
const at = (values: ArrayLike<number>, index: number) => values[index] ?? Number.NaN;
const epsilon = Math.fround(1e-6);

const shapes = fc.record({
  T: fc.constantFrom(1, 2, 7, 33),
  heads: fc.constantFrom(1, 2, 5),
  D: fc.constantFrom(1, 2, 7, 8, 9, 64, 65),
  /** Columns before and behind the gates. */
  before: fc.constantFrom(0, 4, 5),
  behind: fc.constantFrom(0, 4, 3),
  /** Of x: small ones are what the epsilon acts on. */
  spread: fc.constantFrom(1e-3, 1, 10),
  seed: fc.integer({ min: 0, max: 2 ** 31 }),
});
type Shape = typeof shapes extends fc.Arbitrary<infer S> ? S : never;

async function check(facts: AdapterFacts, format: ActivationFormat, shape: Shape): Promise<void> {
  const { T, heads, D, before: zFrom, behind, spread } = shape;
  const random = seeded(shape.seed);
  const [width, G] = [heads * D, zFrom + heads * D + behind];
  const [x, weight, dy] = [normals(random, T * width, spread), normals(random, D), normals(random, T * width)];
  const gates = stored(format, [T, G], normals(random, T * G, 3));
  const z = columns(gates.values, G, zFrom, width);
  const common = { weight: f32([D], weight), x: f32([T, width], x), gates: gates.array, zFrom };
  const forward = await runKernel(
    device,
    gatedNormForward(facts),
    { ...common, y: unsetAs(format, T, width), inverse: unset(T, heads), epsilon },
    facts,
  );
  const wanted = twin.gatedNormForward(float64(x), z, float64(weight), epsilon);
  // A mean of D rounded numbers and the inverse root of it, and the gate's exponential.
  const error = (2 * Math.sqrt(D) + 8) * EPSILON;
  const gateError = (i: number) => expError(at(z, i)) + 6 * EPSILON;
  const relative = (i: number) => error + gateError(i) + 4 * EPSILON;
  expectWithin("inverse", forward("inverse"), wanted.inverse, (n) => error * at(wanted.inverse, n));
  expectWithin("y", forward("y"), wanted.y, (i) =>
    storedBound(format, at(wanted.y, i), relative(i) * Math.abs(at(wanted.y, i)) + 2 ** -126),
  );

  // The inverse is an input here: rounded before either side sees it.
  const inverse = float64(Float32Array.from(wanted.inverse));
  const back = { ...common, dy: f32([T, width], dy), inverse: f32([T, heads], inverse), heads };
  const backward = await runKernel(
    device,
    gatedNormBackward(facts),
    { ...back, dx: unset(T, width), dGates: unset(T, G) },
    facts,
  );
  const d = twin.gatedNormBackward(float64(dy), float64(x), z, float64(weight), inverse);
  const silu = (i: number) => Math.abs(at(z, i)) * sigmoid(at(z, i));
  const xhat = (i: number) => Math.abs(at(x, i)) * at(inverse, Math.floor(i / D));
  const g = (i: number) => Math.abs(at(dy, i) * at(weight, i % D)) * silu(i);
  expectWithin("dx", backward("dx"), d.dx, (i) => {
    const first = i - (i % D);
    let along = 0;
    for (let c = first; c < first + D; c++) along += ((error + relative(c)) * g(c) * xhat(c)) / D;
    return at(inverse, Math.floor(i / D)) * (2 * relative(i) * g(i) + 2 * xhat(i) * along) + 2 ** -126;
  });
  const dz = columns(backward("dGates"), G, zFrom, width);
  expectWithin("dz", dz, d.dz, (i) => {
    const own = Math.abs(at(dy, i) * at(weight, i % D)) * xhat(i);
    const s = sigmoid(at(z, i));
    // The slope's two terms may cancel.
    return 2 * relative(i) * own * s * (1 + Math.abs(at(z, i)) * (1 - s)) + 2 ** -126;
  });

  const blocks = rowBlocks(T);
  const partials = await runKernel(device, gatedNormWeightPartials, { ...back, partials: unset(blocks, D) });
  const sums = await runKernel(device, addColumnSums, {
    partials: f32([blocks, D], partials("partials")),
    out: f32([D], weight),
  });
  const gradients = d.dWeight.map((value, c) => value + at(weight, c));
  expectWithin("dWeight", sums("out"), gradients, (c) => {
    let terms = 2 * EPSILON * Math.abs(at(weight, c));
    for (let i = c; i < T * width; i += D) {
      const term = Math.abs(at(dy, i)) * xhat(i) * silu(i);
      terms += term * (relative(i) + (2 * Math.sqrt(T * heads) + 6) * EPSILON);
    }
    return terms;
  });
}

describe.each(variants)("gated norm, $variant", ({ facts, emulated }) => {
  it.each(ACTIVATION_FORMATS)("norms heads and gates them in %s, and back, and sums weights", async (format) => {
    await fc.assert(
      fc.asyncProperty(shapes, (shape) => check(facts, format, shape)),
      { seed: 42, numRuns: runsFor({ emulated }, 20) },
    );
  });
});

expectLanes(["gatedNormForward", "gatedNormBackward"], await emulatedLanes());
