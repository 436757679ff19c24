/** The matmul in its three layouts, both bodies, vector and scalar loads and stores, and every epilogue. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type MatmulLayout, matmul } from "../../src/kernels/matmul.ts";
import { tileNames } from "../../src/kernels/matmul-variant.ts";
import { BASE_FACTS } from "../../src/kernels/wgsl.ts";
import { bits, normals, seeded } from "../helpers/compare.ts";
import { activationFormats, emulatedLanes, kernelVariants, runsFor, sharedDevice, someOf } from "../helpers/device.ts";
import { expectEmulated } from "../helpers/emulated-subgroups.ts";
import { f32, runKernel, unset } from "../helpers/gpu.ts";
import { checkMatmul, type MatmulCase } from "../helpers/matmul.ts";

const device = await sharedDevice();
const variants = await kernelVariants();
const formats = await activationFormats();
const layouts: readonly MatmulLayout[] = ["NN", "NT", "TN"];

/** Around the tiles' borders (4 to 64 rows, 32 or 64 columns, steps of 4 or 16 in k), and primes. */
const anySize = fc.constantFrom(1, 2, 3, 4, 5, 7, 13, 15, 16, 17, 31, 32, 33, 37, 65);
/** The same in multiples of 4, for which operands and results are read and written as vectors. */
const vectorSize = fc.constantFrom(4, 8, 12, 16, 20, 28, 32, 36, 60, 64, 68);

function cases(size: fc.Arbitrary<number>): fc.Arbitrary<MatmulCase> {
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

// What a tuner may choose instead of the default: every one within, at and over the border of its tile, in several
// workgroups.
const alternatives = variants.flatMap(({ variant, facts, emulated }) =>
  [132, 8, 3].flatMap((M) =>
    tileNames({ M, N: 64, K: 128 }, facts)
      .slice(1)
      .filter((tile) => !tile.startsWith("matrix") && (!emulated || tile.startsWith("subgroup")))
      .map((tile) => ({ variant, facts, tile, M })),
  ),
);

describe.each(alternatives)("matmul by $tile, $variant", ({ facts, tile, M }) => {
  it.each(layouts)("%s equals the float64 product", async (layout) => {
    const all = { hasBias: true, hasResidual: true, accumulate: true, seed: 9 };
    // In TN vectors of A need M in fours.
    const rows = layout === "TN" ? 4 * Math.ceil(M / 4) : M;
    await checkMatmul(layout, facts, { M: rows, N: 68, K: 132, ...all }, tile);
    if (M > 64)
      await checkMatmul(layout, facts, { M: 64, N: 64, K: 144, ...all, hasBias: false, hasResidual: false }, tile);
  });
});

// With `KTO_FEATURES=core` lavapipe and SwiftShader are such: operands that are vectors and others take other tiles.
describe("matmul without subgroups on a software adapter", () => {
  it.each(layouts)("%s equals the float64 product", async (layout) => {
    const facts = { ...BASE_FACTS, software: true };
    const all = { hasBias: true, hasResidual: true, accumulate: true, seed: 12 };
    for (const [M, N, K] of [
      [132, 68, 132],
      [16, 260, 20],
      [4, 12, 4],
      [70, 67, 36],
      [35, 69, 33],
    ] as const) {
      await checkMatmul(layout, facts, { M, N, K, ...all });
    }
  });
});

describe.each(variants)("matmul, $variant", ({ facts, emulated }) => {
  describe.each(layouts)("%s", (layout) => {
    it("equals the float64 product at sizes around the tile borders", async () => {
      await fc.assert(
        fc.asyncProperty(cases(anySize), async (one) => void (await checkMatmul(layout, facts, one))),
        { seed: 7, numRuns: runsFor({ emulated }, 25) },
      );
    });

    it("equals the float64 product where all sizes are multiples of 4 and vectors are used", async () => {
      await fc.assert(
        fc.asyncProperty(cases(vectorSize), async (one) => void (await checkMatmul(layout, facts, one))),
        { seed: 8, numRuns: runsFor({ emulated }, 20) },
      );
    });

    it("equals the float64 product where K is a multiple of 4 and the other sizes are not", async () => {
      const all = { hasBias: true, hasResidual: true, accumulate: true, seed: 11 };
      for (const [M, N, K] of someOf({ emulated }, [
        [37, 69, 20],
        [1, 35, 4],
        [34, 1, 64],
        [66, 38, 36],
        [35, 67, 8],
      ] as const)) {
        await checkMatmul(layout, facts, { M, N, K, ...all });
      }
    });

    it("takes A and gives the result as columns of wider matrices, scaled", async () => {
      const margins = fc.record({ a: fc.constantFrom(0, 1, 4, 8), out: fc.constantFrom(0, 2, 4, 12) });
      await fc.assert(
        fc.asyncProperty(
          cases(fc.oneof(anySize, vectorSize)),
          margins,
          async (one, margin) =>
            void (await checkMatmul(layout, facts, { ...one, hasResidual: false, margin, scale: 0.75 })),
        ),
        { seed: 10, numRuns: runsFor({ emulated }, 20) },
      );
    });

    it("covers several workgroups in both directions with a long sum", async () => {
      const one = { M: 131, N: 140, K: 516, hasBias: true, hasResidual: true, accumulate: true, seed: 3 };
      await checkMatmul(layout, facts, one);
    });
  });

  // In 16 bits are weights, which stand in products of these two layouts. Of odd sizes, pairs straddle rows.
  it.each(
    (["NT", "NN"] as const).flatMap((layout) => (["bf16", "f16"] as const).map((format) => ({ layout, format }))),
  )("$layout equals the float64 product of what B is rounded to, stored as $format", async ({ layout, format }) => {
    const all = { hasBias: true, hasResidual: true, accumulate: true, seed: 4, format };
    await checkMatmul(layout, facts, { M: 36, N: 68, K: 132, ...all });
    for (const [M, N, K] of someOf({ emulated }, [
      [37, 35, 33],
      [17, 35, 132],
      [5, 71, 1],
      [1, 1, 7],
      [17, 33, 131],
    ] as const)) {
      await checkMatmul(layout, facts, { M, N, K, ...all });
    }
  });

  // The products of a pass with f16 activations: into them, out of them, both, and, for weights' gradients, as A or B.
  const halves = [
    { layout: "NT", aFormat: "f16", format: "bf16", outFormat: "f16" },
    { layout: "NT", aFormat: "f16", outFormat: "f32" },
    { layout: "NN", aFormat: "f16", format: "f16", outFormat: "f16" },
    { layout: "NN", aFormat: "f32", outFormat: "f16" },
    { layout: "TN", aFormat: "f16" },
    { layout: "TN", format: "f16" },
  ] as const;
  it.skipIf(formats.length === 1).each(halves)(
    "$layout equals the float64 product of f16 activations, rounded once, $aFormat $format $outFormat",
    async ({ layout, ...stored }) => {
      const all = { hasBias: true, hasResidual: true, accumulate: true, seed: 6, ...stored };
      for (const [M, N, K] of someOf({ emulated }, [
        [36, 68, 132],
        [37, 35, 33],
        [5, 71, 1],
        [1, 3, 7],
      ] as const)) {
        await checkMatmul(layout, facts, { M, N, K, ...all });
        await checkMatmul(layout, facts, {
          M,
          N,
          K,
          ...all,
          accumulate: false,
          margin: { a: 4, out: 8 },
          hasResidual: false,
        });
      }
    },
  );

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
    const [first, second] = [
      await runKernel(device, kernel, args, facts),
      await runKernel(device, kernel, args, facts),
    ];
    expect(bits(second("out"))).toEqual(bits(first("out")));
  });
});

expectEmulated(["matmulNN", "matmulNT", "matmulTN"], await emulatedLanes());
