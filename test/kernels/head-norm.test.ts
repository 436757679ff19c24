/** The norms of query and key heads, forward, backward and the gradient of their weights, against float64. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import * as twin from "../../src/kernels/float64/head-norm.ts";
import {
  headNormBackward,
  headNormForward,
  headNormWeightPartials,
  widthNormBackward,
  widthNormForward,
  widthNormWeightPartials,
} from "../../src/kernels/head-norm.ts";
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

/** Norms of heads, the same for weights around 0, and norms over the whole width of queries and of keys. */
type Kind = "head" | "head with offset" | "width";

async function check(facts: AdapterFacts, format: ActivationFormat, kind: Kind, shape: Shape): Promise<void> {
  const { T, queryHeads, keyHeads, D, rest } = shape;
  const random = seeded(shape.seed);
  const heads = queryHeads + keyHeads;
  const W = heads * D + rest;
  const { array, values: x } = stored(format, [T, W], normals(random, T * W));
  const isWide = kind === "width";
  // Spans that have a mean square of their own: how many, their numbers, and where each column's weight is.
  const queries = queryHeads * D;
  const spans = isWide ? 2 : heads;
  const spanOf = (c: number) => (isWide ? Number(c >= queries) : Math.floor(c / D));
  const lengthOf = (c: number) => (isWide ? [queries, keyHeads * D][spanOf(c)] : D) ?? D;
  const firstOf = (c: number) => (isWide ? spanOf(c) * queries : c - (c % D));
  const weightAt = (c: number) => (isWide ? c : (c < queries ? 0 : D) + (c % D));
  const weights = isWide ? heads * D : 2 * D;
  const [dy, given] = [normals(random, T * W), normals(random, weights)];
  given[0] = 0; // a weight that hides its channel, unless 1 is added to it
  const weight = kind === "head with offset" ? given.map((value) => 1 + value) : given;
  const split = isWide ? queries : D;
  const inputs = {
    queryWeight: float64(weight.slice(0, split)),
    keyWeight: float64(weight.slice(split)),
    ...(isWide ? { queryHeads: 1, keyHeads: 1 } : { queryHeads, keyHeads }),
    rows: T,
  };
  const offset = kind === "head with offset";
  const forward = await runKernel(
    device,
    (isWide ? widthNormForward : headNormForward)(facts, offset),
    {
      weight: f32([weights], given),
      x: array,
      normed: unsetAs(format, T, heads * D),
      inverse: unset(T, spans),
      heads,
      queryHeads,
      epsilon,
    },
    facts,
  );
  const wanted = twin.headNormForward(x, epsilon, inputs);
  const error = reductionError(isWide ? Math.max(queryHeads, keyHeads) * D : D);
  expectWithin("inverse", forward("inverse"), wanted.inverse, (i) => error * at(wanted.inverse, i));
  expectWithin("y", forward("x"), wanted.y, (i) =>
    i % W < heads * D
      ? storedBound(format, at(wanted.y, i), (error + 4 * EPSILON) * Math.abs(at(wanted.y, i)))
      : Number.MIN_VALUE,
  );

  /** In normed rows [T, heads D] the element that lies at `i` in fused rows, if there is one. */
  const keptAt = (i: number) => Math.floor(i / W) * heads * D + (i % W);
  const inverseAt = (i: number) => at(wanted.inverse, Math.floor(i / W) * spans + spanOf(i % W));
  const xhat = (i: number) => at(x, i) * inverseAt(i);
  const fused = Array.from({ length: T * W }, (_, i) => i).filter((i) => i % W < heads * D);
  expectWithin("normed", forward("normed"), fused.map(xhat), (i) => {
    const value = xhat(fused[i] ?? 0);
    return storedBound(format, value, (error + 2 * EPSILON) * Math.abs(value));
  });

  // What the forward pass keeps is an input of the backward pass: rounded before either side sees it.
  const normed = stored(format, [T, heads * D], fused.map(xhat));
  const back = { normed: normed.array, inverse: f32([T, spans], wanted.inverse) };
  const backward = await runKernel(
    device,
    (isWide ? widthNormBackward : headNormBackward)(facts, offset),
    {
      weight: f32([weights], given),
      ...back,
      dx: f32([T, W], dy),
      heads,
      queryHeads,
    },
    facts,
  );
  const before = x.map((value, i) => (i % W < heads * D ? at(normed.values, keptAt(i)) / inverseAt(i) : value));
  const d = twin.headNormBackward(float64(dy), before, wanted.inverse, inputs);
  const g = (i: number) => Math.abs(at(dy, i) * at(weight, weightAt(i % W)));
  expectWithin("dx", backward("dx"), d.dx, (i) => {
    if (i % W >= heads * D) return Number.MIN_VALUE;
    const [first, length] = [i - (i % W) + firstOf(i % W), lengthOf(i % W)];
    let along = 0;
    for (let c = first; c < first + length; c++) along += (g(c) * Math.abs(at(normed.values, keptAt(c)))) / length;
    return error * inverseAt(i) * (g(i) + Math.abs(at(normed.values, keptAt(i))) * along);
  });

  const G = rowBlocks(T);
  const partials = await runKernel(device, isWide ? widthNormWeightPartials : headNormWeightPartials, {
    dy: f32([T, W], dy),
    normed: normed.array,
    partials: unset(G, weights),
    heads,
    queryHeads,
  });
  const sums = await runKernel(device, addColumnSums, {
    partials: f32([G, weights], partials("partials")),
    out: f32([weights], weight),
  });
  const gradients = [...d.dQueryWeight, ...d.dKeyWeight];
  expectWithin(
    "dWeight",
    sums("out"),
    gradients.map((value, c) => value + at(weight, c)),
    (c) => {
      const own = Array.from({ length: heads * D }, (_, column) => column).filter((column) => weightAt(column) === c);
      let terms = Math.abs(at(weight, c));
      for (let row = 0; row < T; row++) {
        for (const column of own) {
          const i = row * W + column;
          terms += Math.abs(at(dy, i) * at(normed.values, keptAt(i)));
        }
      }
      return (2 * Math.sqrt(T * own.length) + 6) * EPSILON * terms;
    },
  );
}

describe.each(variants)("head norm, $variant", ({ facts, emulated }) => {
  const kinds = ["head", "head with offset", "width"] as const;
  it.each(ACTIVATION_FORMATS.flatMap((format) => kinds.map((kind) => [kind, format] as const)))(
    "norms (%s) queries and keys in %s in place, and back, and sums weights",
    async (kind, format) => {
      await fc.assert(
        fc.asyncProperty(shapes, (shape) => check(facts, format, kind, shape)),
        { seed: 41, numRuns: runsFor({ emulated }, kind === "head" ? 30 : 15) },
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

expectLanes(["headNormForward", "headNormBackward", "widthNormForward", "widthNormBackward"], await emulatedLanes());
