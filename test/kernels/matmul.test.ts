/** The matrix product in its three layouts, both bodies, vector and scalar loads and stores, and every epilogue. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type MatmulLayout, type MatmulShape, matmul } from "../../src/kernels/matmul.ts";
import * as reference from "../../src/kernels/reference/matmul.ts";
import type { AdapterFacts } from "../../src/kernels/wgsl.ts";
import { bits, EPSILON, expectWithin, float64, normals, seeded } from "../helpers/compare.ts";
import { kernelVariants, sharedDevice } from "../helpers/device.ts";
import { f32, runKernel, unset } from "../helpers/gpu.ts";

const device = await sharedDevice();
const variants = await kernelVariants();
const layouts: readonly MatmulLayout[] = ["NN", "NT", "TN"];

/** Around the tiles of both bodies (16 or 32 rows, 32 columns, steps of 4 or 16 in k), and primes. */
const anySize = fc.constantFrom(1, 2, 3, 4, 5, 7, 13, 15, 16, 17, 31, 32, 33, 37, 65);
/** The same in multiples of 4, for which operands and results are read and written as vectors. */
const vectorSize = fc.constantFrom(4, 8, 12, 16, 20, 28, 32, 36, 60, 64, 68);

interface Case extends MatmulShape {
  readonly hasBias: boolean;
  readonly hasResidual: boolean;
  readonly accumulate: boolean;
  readonly seed: number;
}

function cases(size: fc.Arbitrary<number>): fc.Arbitrary<Case> {
  const flag = fc.boolean();
  return fc.record({
    M: size,
    N: size,
    K: size,
    hasBias: flag,
    hasResidual: flag,
    accumulate: flag,
    seed: fc.integer({ min: 0, max: 2 ** 31 }),
  });
}

async function check(layout: MatmulLayout, facts: AdapterFacts, one: Case): Promise<void> {
  const { M, N, K, hasBias, hasResidual, accumulate } = one;
  const random = seeded(one.seed);
  const a = normals(random, M * K);
  const b = normals(random, K * N);
  const bias = normals(random, N);
  const residual = normals(random, M * N);
  const before = normals(random, M * N);
  const result = await runKernel(device, matmul(layout, one, facts), {
    a: f32(layout === "TN" ? [K, M] : [M, K], a),
    b: f32(layout === "NT" ? [N, K] : [K, N], b),
    // NaN in whatever the flags turn off: it must not be read.
    bias: hasBias ? f32([N], bias) : unset(4),
    residual: hasResidual ? f32([M, N], residual) : unset(1, 4),
    out: accumulate ? f32([M, N], before) : unset(M, N),
    aFrom: 0,
    outFrom: 0,
    scale: 1,
    hasBias: Number(hasBias),
    hasResidual: Number(hasResidual),
    accumulate: Number(accumulate),
  });
  const added = new Float64Array(M * N);
  const addedAbsolute = new Float64Array(M * N);
  for (const [use, values] of [
    [hasResidual, residual],
    [accumulate, before],
  ] as const) {
    if (!use) continue;
    values.forEach((value, i) => {
      added[i] = (added[i] ?? 0) + value;
      addedAbsolute[i] = (addedAbsolute[i] ?? 0) + Math.abs(value);
    });
  }
  const inputs = {
    a: float64(a),
    b: float64(b),
    m: M,
    n: N,
    k: K,
    transposeA: layout === "TN",
    transposeB: layout === "NT",
    bias: hasBias ? float64(bias) : undefined,
  };
  const absolute = reference.matmulAbsolute({ ...inputs, residual: addedAbsolute });
  // c = 4: with K = 1 one product and three additions round once each; for larger K the K roundings of partial sums,
  // none of which exceeds the sum of absolute terms, add up like a random walk, and 4 sqrt(K) is four deviations.
  expectWithin(
    `matmul${layout} ${M}x${N}x${K}`,
    result("out"),
    reference.matmul({ ...inputs, residual: added }),
    absolute.map((terms) => 4 * Math.sqrt(K) * EPSILON * terms),
  );
}

describe.each(variants)("matmul, $variant", ({ facts }) => {
  describe.each(layouts)("%s", (layout) => {
    it("equals the float64 product at sizes around the tile borders", async () => {
      await fc.assert(
        fc.asyncProperty(cases(anySize), (one) => check(layout, facts, one)),
        { seed: 7, numRuns: 25 },
      );
    });

    it("equals the float64 product where all sizes are multiples of 4 and vectors are used", async () => {
      await fc.assert(
        fc.asyncProperty(cases(vectorSize), (one) => check(layout, facts, one)),
        { seed: 8, numRuns: 20 },
      );
    });

    it("covers several workgroups in both directions with a long sum", async () => {
      const one = { M: 131, N: 140, K: 516, hasBias: true, hasResidual: true, accumulate: true, seed: 3 };
      await check(layout, facts, one);
    });
  });

  it("gives the same bits twice", async () => {
    const random = seeded(5);
    const shape = { M: 37, N: 70, K: 301 };
    const args = {
      a: f32([shape.M, shape.K], normals(random, shape.M * shape.K)),
      b: f32([shape.K, shape.N], normals(random, shape.K * shape.N)),
      bias: unset(4),
      residual: unset(1, 4),
      out: unset(shape.M, shape.N),
      aFrom: 0,
      outFrom: 0,
      scale: 1,
      hasBias: 0,
      hasResidual: 0,
      accumulate: 0,
    };
    const kernel = matmul("NN", shape, facts);
    const [first, second] = [await runKernel(device, kernel, args), await runKernel(device, kernel, args)];
    expect(bits(second("out"))).toEqual(bits(first("out")));
  });
});
