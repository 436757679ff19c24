/** RMSNorm and LayerNorm, forward, backward, and the two passes of their weight gradients. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import * as twin from "../../src/kernels/float64/norm.ts";
import type { ActivationFormat } from "../../src/kernels/kernel.ts";
import {
  layerNormBackward,
  layerNormForward,
  normWeightPartials,
  rmsNormBackward,
  rmsNormForward,
  rmsNormResidual,
  rowBlocks,
} from "../../src/kernels/norm.ts";
import { addColumnSums } from "../../src/kernels/reduce.ts";
import type { AdapterFacts } from "../../src/kernels/wgsl.ts";
import { EPSILON, expectWithin, float64, normals, seeded, storedBound } from "../helpers/compare.ts";
import { ACTIVATION_FORMATS, emulatedLanes, kernelVariants, runsFor, sharedDevice } from "../helpers/device.ts";
import { f32, runKernel, unset, unsetAs } from "../helpers/gpu.ts";
import { expectLanes } from "../helpers/lane-widths.ts";

const device = await sharedDevice();
const variants = await kernelVariants();

const shapes = fc.record({
  T: fc.constantFrom(1, 2, 7, 33),
  C: fc.constantFrom(1, 3, 7, 8, 9, 63, 64, 65, 100),
  /** A large mean is what makes LayerNorm's centring lose digits. */
  offset: fc.constantFrom(0, 0, 30),
  seed: fc.integer({ min: 0, max: 2 ** 31 }),
});
type Shape = typeof shapes extends fc.Arbitrary<infer S> ? S : never;

interface Inputs extends Shape {
  readonly x: Float32Array;
  readonly weight: Float32Array;
  readonly bias: Float32Array;
  readonly dy: Float32Array;
  readonly dx: Float32Array;
}

function inputsOf(shape: Shape): Inputs {
  const random = seeded(shape.seed);
  const { T, C, offset } = shape;
  const x = normals(random, T * C).map((value) => value + offset);
  return {
    ...shape,
    x,
    weight: normals(random, C),
    bias: normals(random, C),
    dy: normals(random, T * C),
    dx: normals(random, T * C),
  };
}

const at = (values: ArrayLike<number>, index: number) => values[index] ?? Number.NaN;
const meanOf = (count: number, term: (c: number) => number) => {
  let sum = 0;
  for (let c = 0; c < count; c++) sum += term(c);
  return sum / count;
};

/** The mean of C rounded numbers is off by sqrt(C) of their roundings; an inverse square root by 2 units, 4 EPSILON. */
const reductionError = (C: number) => (2 * Math.sqrt(C) + 8) * EPSILON;

/** RMSNorm, the same for weights around 0, RMSNorm added to a residual, and LayerNorm. */
type Norm = "rms" | "rms with offset" | "rms on a residual" | "layer";

/** What the twin multiplies with: a weight, or a weight around 0 with 1 added, rounded as f32 adds it. */
const gainOf = (norm: Norm, weight: Float32Array) =>
  norm === "rms with offset" ? weight.map((value) => 1 + value) : weight;

function checkForward(norm: Norm, facts: AdapterFacts, format: ActivationFormat, inputs: Inputs) {
  return async () => {
    const { T, C, x, bias, dx: residual } = inputs;
    const weight = gainOf(norm, inputs.weight);
    const epsilon = Math.fround(1e-5);
    const y = unsetAs(format, T, C);
    const common = { x: f32([T, C], x), weight: f32([C], inputs.weight), epsilon, y, stats: unset(T, 2) };
    const run = () => {
      if (norm === "layer") {
        return runKernel(device, layerNormForward(facts), { ...common, bias: f32([C], bias) }, facts);
      }
      if (norm === "rms on a residual") {
        return runKernel(device, rmsNormResidual(facts), { ...common, residual: f32([T, C], residual) }, facts);
      }
      return runKernel(device, rmsNormForward(facts, norm === "rms with offset"), common, facts);
    };
    const result = await run();
    const isRms = norm !== "layer";
    const rms = twin.rmsNormForward(float64(x), float64(weight), epsilon);
    const layer = twin.layerNormForward(float64(x), float64(weight), float64(bias), epsilon);
    const mean = isRms ? new Float64Array(T) : layer.mean;
    const inverse = isRms ? rms.inverseRms : layer.inverseStd;
    const error = reductionError(C);
    // A wrong mean shifts every centred value; relative to the spread, this is what the inverse magnifies.
    const meanError = (row: number) => (isRms ? 0 : error * meanOf(C, (c) => Math.abs(at(x, row * C + c))));
    // With s the inverse, s^2 mean((x - mean)^2) <= 1: a shift of the mean enters the variance squared, and its
    // roundings once, so that s keeps the relative error of a reduction plus (s meanError)^2.
    const inverseError = (row: number) => error + (at(inverse, row) * meanError(row)) ** 2;
    const stats = result("stats");
    expectWithin(
      `${norm} mean`,
      Float64Array.from({ length: T }, (_, row) => at(stats, 2 * row)),
      mean,
      (row) => (isRms ? Number.MIN_VALUE : meanError(row)),
    );
    expectWithin(
      `${norm} inverse`,
      Float64Array.from({ length: T }, (_, row) => at(stats, 2 * row + 1)),
      inverse,
      (row) => at(inverse, row) * inverseError(row),
    );
    const added = (i: number) => (norm === "rms on a residual" ? at(residual, i) : 0);
    const exact = (isRms ? rms.y : layer.y).map((value, i) => value + added(i));
    expectWithin(`${norm} y`, result("y"), exact, (i) => {
      const row = Math.floor(i / C);
      const scale = Math.abs(at(weight, i % C)) * at(inverse, row);
      const centred = Math.abs(at(x, i) - at(mean, row));
      const offset = 2 * EPSILON * (isRms ? Math.abs(added(i)) : Math.abs(at(bias, i % C)));
      const bound = scale * (meanError(row) + centred * (inverseError(row) + 4 * EPSILON)) + offset;
      return storedBound(format, at(exact, i), bound);
    });
  };
}

function checkBackward(norm: Exclude<Norm, "rms on a residual">, facts: AdapterFacts, inputs: Inputs) {
  return async () => {
    const { T, C, x, bias, dy, dx } = inputs;
    const weight = gainOf(norm, inputs.weight);
    const isRms = norm !== "layer";
    const epsilon = 1e-5;
    // The statistics are an input here: rounded to f32 before either side sees them.
    const layer = twin.layerNormForward(float64(x), float64(weight), float64(bias), epsilon);
    const mean = isRms ? new Float32Array(T) : Float32Array.from(layer.mean);
    const inverse = Float32Array.from(
      isRms ? twin.rmsNormForward(float64(x), float64(weight), epsilon).inverseRms : layer.inverseStd,
    );
    const stats = f32(
      [T, 2],
      Array.from({ length: 2 * T }, (_, i) => at(i % 2 === 0 ? mean : inverse, i >> 1)),
    );
    const kernel = isRms ? rmsNormBackward(facts, norm === "rms with offset") : layerNormBackward(facts);
    const result = await runKernel(
      device,
      kernel,
      {
        dy: f32([T, C], dy),
        x: f32([T, C], x),
        weight: f32([C], inputs.weight),
        stats,
        dx: f32([T, C], dx),
      },
      facts,
    );
    const wanted = isRms
      ? twin.rmsNormBackward(float64(dy), float64(x), float64(weight), float64(inverse))
      : twin.layerNormBackward(float64(dy), float64(x), float64(weight), float64(mean), float64(inverse));
    // Terms of the sums in absolute value; x - mean may cancel, so its terms count apart.
    const g = (i: number) => Math.abs(at(dy, i) * at(weight, i % C));
    const xhat = (i: number) =>
      (Math.abs(at(x, i)) + Math.abs(at(mean, Math.floor(i / C)))) * at(inverse, Math.floor(i / C));
    expectWithin(
      `${norm} dx`,
      result("dx"),
      wanted.dx.map((value, i) => value + at(dx, i)),
      (i) => {
        const base = Math.floor(i / C) * C;
        const meanG = isRms ? 0 : meanOf(C, (c) => g(base + c));
        const meanAlong = meanOf(C, (c) => g(base + c) * xhat(base + c));
        const terms = at(inverse, Math.floor(i / C)) * (g(i) + meanG + xhat(i) * meanAlong);
        return reductionError(C) * (terms + Math.abs(at(dx, i)));
      },
    );

    const G = rowBlocks(T);
    const partials = await runKernel(device, normWeightPartials, {
      dy: f32([T, C], dy),
      x: f32([T, C], x),
      stats,
      partials: unset(G, C),
    });
    const sums = await runKernel(device, addColumnSums, {
      partials: f32([G, C], partials("partials")),
      out: f32([C], weight),
    });
    expectWithin(
      `${norm} dWeight`,
      sums("out"),
      wanted.dWeight.map((value, c) => value + at(weight, c)),
      (c) => {
        const terms = T * meanOf(T, (row) => Math.abs(at(dy, row * C + c)) * xhat(row * C + c));
        return (2 * Math.sqrt(T) + 4) * EPSILON * (terms + Math.abs(at(weight, c)));
      },
    );
  };
}

describe.each(variants)("norms, $variant", ({ facts, emulated }) => {
  const norms = ["rms", "rms with offset", "layer"] as const;
  const forwards = [
    ...ACTIVATION_FORMATS.flatMap((format) => norms.map((norm) => [norm, format] as const)),
    ["rms on a residual", "f32"] as const,
  ];
  it.each(forwards)("%s norm forward keeps mean and inverse and writes y as %s", async (norm, format) => {
    await fc.assert(
      fc.asyncProperty(shapes, (shape) => checkForward(norm, facts, format, inputsOf(shape))()),
      { seed: 11, numRuns: runsFor({ emulated }, 25) },
    );
  });

  it.each(norms)("%s norm backward adds dx and sums dWeight over rows", async (norm) => {
    await fc.assert(
      fc.asyncProperty(shapes, (shape) => checkBackward(norm, facts, inputsOf(shape))()),
      { seed: 12, numRuns: runsFor({ emulated }, 25) },
    );
  });

  it("a row of equal numbers has no variance: LayerNorm gives its bias, and nothing is NaN", async () => {
    const C = 64;
    const result = await runKernel(
      device,
      layerNormForward(facts),
      {
        x: f32([1, C], new Array(C).fill(0.5)),
        weight: f32([C], new Array(C).fill(3)),
        bias: f32(
          [C],
          Array.from({ length: C }, (_, c) => c),
        ),
        epsilon: 1e-5,
        y: unset(1, C),
        stats: unset(1, 2),
      },
      facts,
    );
    expect([...result("y")]).toEqual(Array.from({ length: C }, (_, c) => c));
  });

  it("RMSNorm of a row of zeros is zeros, by its epsilon", async () => {
    const result = await runKernel(
      device,
      rmsNormForward(facts),
      {
        x: f32([1, 5], [0, 0, 0, 0, 0]),
        weight: f32([5], [1, 2, 3, 4, 5]),
        epsilon: 1e-6,
        y: unset(1, 5),
        stats: unset(1, 2),
      },
      facts,
    );
    expect([...result("y")]).toEqual([0, 0, 0, 0, 0]);
  });
});

describe("blocks of rows", () => {
  it("more rows than blocks: 32 rows to a block up to 64 blocks, and every row is in one", async () => {
    expect([1, 32, 33, 2048, 5000].map(rowBlocks)).toEqual([1, 1, 2, 64, 64]);
    const [T, C] = [67, 3];
    const random = seeded(1);
    const dy = normals(random, T * C);
    const x = normals(random, T * C);
    const inverse = new Float32Array(T).fill(1);
    const partials = await runKernel(device, normWeightPartials, {
      dy: f32([T, C], dy),
      x: f32([T, C], x),
      stats: f32(
        [T, 2],
        Array.from({ length: 2 * T }, (_, i) => i % 2),
      ),
      // One more block than the rows fill: ceil(67 / 12) = 6 rows to a block leave the last one empty.
      partials: unset(12, C),
    });
    const sums = await runKernel(device, addColumnSums, {
      partials: f32([12, C], partials("partials")),
      out: f32([C], [0, 0, 0]),
    });
    const wanted = twin.rmsNormBackward(float64(dy), float64(x), Float64Array.of(1, 1, 1), float64(inverse));
    expectWithin("dWeight", sums("out"), wanted.dWeight, (c) => {
      const terms = T * meanOf(T, (row) => Math.abs(at(dy, row * C + c) * at(x, row * C + c)));
      return 2 * Math.sqrt(T) * EPSILON * terms;
    });
  });
});

expectLanes(["rmsNormForward", "layerNormForward", "rmsNormBackward", "layerNormBackward"], await emulatedLanes());
