/** The norms of query and key heads, forward, backward and the gradient of their weights, against float64. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import * as twin from "../../src/kernels/float64/head-norm.ts";
import { headNormBackward, headNormForward, headNormWeightPartials } from "../../src/kernels/head-norm.ts";
import type { ActivationFormat } from "../../src/kernels/kernel.ts";
import { rowBlocks } from "../../src/kernels/norm.ts";
import { addColumnSums } from "../../src/kernels/reduce.ts";
import type { AdapterFacts } from "../../src/kernels/wgsl.ts";
import { EPSILON, expectWithin, float64, normals, seeded, storedBound } from "../helpers/compare.ts";
import { ACTIVATION_FORMATS, emulatedLanes, kernelVariants, runsFor, sharedDevice } from "../helpers/device.ts";
import { f32, runKernel, stored, unset, unsetAs } from "../helpers/gpu.ts";
import { expectLanes } from "../helpers/lane-widths.ts";

const device = await sharedDevice();
const variants = await kernelVariants();

const shapes = fc.record({
  T: fc.constantFrom(1, 2, 7, 33, 65),
  queryHeads: fc.constantFrom(1, 2, 5),
  keyHeads: fc.constantFrom(1, 3),
  D: fc.constantFrom(1, 2, 7, 8, 9, 64, 65),
  /** Columns of values behind the heads. */
  rest: fc.constantFrom(0, 5),
  seed: fc.integer({ min: 0, max: 2 ** 31 }),
});
type Shape = typeof shapes extends fc.Arbitrary<infer S> ? S : never;

const at = (values: ArrayLike<number>, index: number) => values[index] ?? Number.NaN;
const epsilon = Math.fround(1e-6);

/** Relative error of a mean of D rounded numbers and of the inverse root taken of it, as for the other norms. */
const reductionError = (D: number) => (2 * Math.sqrt(D) + 8) * EPSILON;

async function check(facts: AdapterFacts, format: ActivationFormat, shape: Shape): Promise<void> {
  const { T, queryHeads, keyHeads, D, rest } = shape;
  const random = seeded(shape.seed);
  const heads = queryHeads + keyHeads;
  const W = heads * D + rest;
  const { array, values: x } = stored(format, [T, W], normals(random, T * W));
  const [dy, weight] = [normals(random, T * W), normals(random, 2 * D)];
  weight[0] = 0; // a weight that hides its channel
  const inputs = {
    queryWeight: float64(weight.slice(0, D)),
    keyWeight: float64(weight.slice(D)),
    queryHeads,
    keyHeads,
    rows: T,
  };
  const forward = await runKernel(
    device,
    headNormForward(facts),
    {
      weight: f32([2 * D], weight),
      x: array,
      normed: unsetAs(format, T, heads * D),
      inverse: unset(T, heads),
      queryHeads,
      epsilon,
    },
    facts,
  );
  const wanted = twin.headNormForward(x, epsilon, inputs);
  const error = reductionError(D);
  expectWithin("inverse", forward("inverse"), wanted.inverse, (i) => error * at(wanted.inverse, i));
  expectWithin("y", forward("x"), wanted.y, (i) =>
    i % W < heads * D
      ? storedBound(format, at(wanted.y, i), (error + 4 * EPSILON) * Math.abs(at(wanted.y, i)))
      : Number.MIN_VALUE,
  );

  /** In normed rows [T, heads D] the element that lies at `i` in fused rows, if there is one. */
  const keptAt = (i: number) => Math.floor(i / W) * heads * D + (i % W);
  const inverseAt = (i: number) => at(wanted.inverse, Math.floor(i / W) * heads + Math.floor((i % W) / D));
  const xhat = (i: number) => at(x, i) * inverseAt(i);
  const fused = Array.from({ length: T * W }, (_, i) => i).filter((i) => i % W < heads * D);
  expectWithin("normed", forward("normed"), fused.map(xhat), (i) => {
    const value = xhat(fused[i] ?? 0);
    return storedBound(format, value, (error + 2 * EPSILON) * Math.abs(value));
  });

  // What the forward pass keeps is an input of the backward pass: rounded before either side sees it.
  const normed = stored(format, [T, heads * D], fused.map(xhat));
  const back = { normed: normed.array, inverse: f32([T, heads], wanted.inverse) };
  const backward = await runKernel(
    device,
    headNormBackward(facts),
    {
      weight: f32([2 * D], weight),
      ...back,
      dx: f32([T, W], dy),
      queryHeads,
    },
    facts,
  );
  const before = x.map((value, i) => (i % W < heads * D ? at(normed.values, keptAt(i)) / inverseAt(i) : value));
  const d = twin.headNormBackward(float64(dy), before, wanted.inverse, inputs);
  const g = (i: number) => {
    const [head, c] = [Math.floor((i % W) / D), (i % W) % D];
    return Math.abs(at(dy, i) * at(weight, (head < queryHeads ? 0 : D) + c));
  };
  expectWithin("dx", backward("dx"), d.dx, (i) => {
    if (i % W >= heads * D) return Number.MIN_VALUE;
    const first = i - ((i % W) % D);
    let along = 0;
    for (let c = 0; c < D; c++) along += (g(first + c) * Math.abs(at(normed.values, keptAt(first + c)))) / D;
    return error * inverseAt(i) * (g(i) + Math.abs(at(normed.values, keptAt(i))) * along);
  });

  const G = rowBlocks(T);
  const partials = await runKernel(device, headNormWeightPartials, {
    dy: f32([T, W], dy),
    normed: normed.array,
    partials: unset(G, 2 * D),
    heads,
    queryHeads,
  });
  const sums = await runKernel(device, addColumnSums, {
    partials: f32([G, 2 * D], partials("partials")),
    out: f32([2 * D], weight),
  });
  const gradients = [...d.dQueryWeight, ...d.dKeyWeight];
  expectWithin(
    "dWeight",
    sums("out"),
    gradients.map((value, c) => value + at(weight, c)),
    (c) => {
      const [from, to] = c < D ? [0, queryHeads] : [queryHeads, heads];
      let terms = Math.abs(at(weight, c));
      for (let row = 0; row < T; row++) {
        for (let head = from; head < to; head++) {
          const i = row * W + head * D + (c % D);
          terms += Math.abs(at(dy, i) * at(normed.values, keptAt(i)));
        }
      }
      return (2 * Math.sqrt(T * (to - from)) + 6) * EPSILON * terms;
    },
  );
}

describe.each(variants)("head norm, $variant", ({ facts, emulated }) => {
  it.each(ACTIVATION_FORMATS)(
    "norms every head of queries and keys in %s in place, and back, and sums weights",
    async (format) => {
      await fc.assert(
        fc.asyncProperty(shapes, (shape) => check(facts, format, shape)),
        { seed: 41, numRuns: runsFor({ emulated }, 30) },
      );
    },
  );

  it("a head of zeros stays zeros, by the epsilon", async () => {
    const result = await runKernel(
      device,
      headNormForward(facts),
      {
        weight: f32([6], [1, 2, 3, 4, 5, 6]),
        x: f32([1, 7], [0, 0, 0, 0, 0, 0, 9]),
        normed: unset(1, 6),
        inverse: unset(1, 2),
        queryHeads: 1,
        epsilon,
      },
      facts,
    );
    expect([...result("x")]).toEqual([0, 0, 0, 0, 0, 0, 9]);
  });
});

expectLanes(["headNormForward", "headNormBackward"], await emulatedLanes());
