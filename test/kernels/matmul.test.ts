/** The matmul in its three layouts, both bodies, vector and scalar loads and stores, and every epilogue. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { swigluForward } from "../../src/kernels/float64/activation.ts";
import * as twin from "../../src/kernels/float64/matmul.ts";
import type { StoredFormat } from "../../src/kernels/kernel.ts";
import { type MatmulLayout, matmul } from "../../src/kernels/matmul.ts";
import { takesGates, tileNames } from "../../src/kernels/matmul-variant.ts";
import { BASE_FACTS } from "../../src/kernels/wgsl.ts";
import { bits, EPSILON, expError, expectWithin, normals, seeded } from "../helpers/compare.ts";
import {
  ACTIVATION_FORMATS,
  emulatedLanes,
  kernelVariants,
  onlyOnMachine,
  runsFor,
  sharedDevice,
  someOf,
} from "../helpers/device.ts";
import { f32, type HostArray, runKernel, stored, unset } from "../helpers/gpu.ts";
import { expectLanes } from "../helpers/lane-widths.ts";
import { checkMatmul, type MatmulCase } from "../helpers/matmul.ts";

const device = await sharedDevice();
const variants = await kernelVariants();
const halvesOnMachine = await onlyOnMachine("f16");
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
    tileNames("NN", { M, N: 64, K: 128 }, facts)
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

// What generates: a token of one sequence, and of up to 16. Tiles of many columns need some to be the default.
describe.each([
  ...variants,
  { variant: "base on a software adapter", facts: { ...BASE_FACTS, software: true }, emulated: false },
])("matmul of few rows, $variant", ({ facts, emulated }) => {
  const size = fc.constantFrom(1, 3, 4, 7, 8, 9, 31, 32, 36, 64, 132, 515, 516, 1028);
  const format = fc.constantFrom<StoredFormat>("f32", "f16", "bf16");
  const rows = (M: number) => cases(size).chain((one) => format.map((stored) => ({ ...one, M, format: stored })));

  it.each(layouts)("%s of one row equals the float64 product", async (layout) => {
    await fc.assert(
      fc.asyncProperty(rows(1), async (one) => void (await checkMatmul(layout, facts, one))),
      { seed: 13, numRuns: runsFor({ emulated }, 20) },
    );
  });

  it.each(layouts)("%s of up to 16 rows and many columns equals the float64 product", async (layout) => {
    const all = { hasBias: true, hasResidual: true, accumulate: true, seed: 14 };
    for (const [M, N, K] of someOf({ emulated }, [
      [16, 580, 24],
      [12, 512, 132],
      [9, 517, 33],
      [16, 518, 36],
    ] as const)) {
      await checkMatmul(layout, facts, { M, N, K, ...all, format: "bf16" });
    }
    await checkMatmul(layout, facts, { M: 3, N: 68, K: 136, ...all, format: "f16" });
  });

  it("takes one row of columns of a wider matrix, of f16 too, and gives columns of another", async () => {
    for (const aFormat of ACTIVATION_FORMATS) {
      const all = { hasBias: true, hasResidual: false, accumulate: true, seed: 15, aFormat, outFormat: aFormat };
      await checkMatmul("NT", facts, { M: 1, N: 68, K: 132, ...all, margin: { a: 4, out: 8 }, scale: 0.5 });
      await checkMatmul("NT", facts, { M: 1, N: 35, K: 33, ...all, margin: { a: 1, out: 2 }, scale: 0.5 });
    }
  });
});

// SwiGLU as the product has it where lanes read rows of their own: at 8 lanes on software, and elsewhere emulated.
describe.each([8, 32])("a gated product of few rows at %i lanes", (subgroupSize) => {
  const facts = { subgroupSize, software: true };
  const emulated = subgroupSize !== device.facts.subgroupSize;
  it.each(["f32", "bf16", "f16"] as const)("equals float64's SwiGLU of the product, %s", async (format) => {
    for (const [M, N, K] of someOf({ emulated }, [
      [1, 68, 72],
      [1, 36, 40],
      [1, 35, 33],
      [1, 7, 20],
      [1, 132, 516],
      [3, 68, 36],
      [16, 36, 20],
    ] as const)) {
      expect(takesGates("NT", { M, N, K }, facts)).toBe(true);
      const random = seeded(N);
      const a = f32([M, K], normals(random, M * K));
      const b = stored(format, [2 * N, K], normals(random, 2 * N * K, 0.3));
      const kernel = matmul("NT", { M, N, K }, facts, { format, gated: true });
      const no = { hasBias: 0, hasResidual: 0, accumulate: 0, aFrom: 0, outFrom: 0, scale: 1 };
      const sizes = { M, N, K };
      const operands = { a, b: b.array, bias: unset(4), residual: unset(1, 4), out: unset(M, N) };
      const out = (await runKernel(device, kernel, { ...operands, ...sizes, ...no }, facts))("out");
      const inputs = { a: Float64Array.from(a.data), b: b.values, m: M, n: 2 * N, k: K, transposeB: true };
      const product = twin.matmul(inputs);
      // Of a sum as `checkMatmul` has it; silu's slope is at most 1.1, and sigmoid is an exp and three roundings.
      const errors = twin.matmulAbsolute(inputs).map((terms) => 4 * Math.sqrt(K) * EPSILON * terms);
      expectWithin(`gated ${M} x ${N} x ${K} ${format}`, out, swigluForward(product, N), (i) => {
        const at = i + Math.floor(i / N) * N;
        const [gate = Number.NaN, up = Number.NaN] = [product[at], product[N + at]];
        const [gateError = Number.NaN, upError = Number.NaN] = [errors[at], errors[N + at]];
        const rounding = (expError(gate) + 6 * EPSILON) * Math.abs(gate * up);
        return 1.1 * gateError * (Math.abs(up) + upError) + Math.abs(gate) * upError + rounding;
      });
    }
  });
});

it("a product of many rows, or of another adapter, takes no gates", () => {
  for (const [M, facts] of [
    [17, { subgroupSize: 8, software: true }],
    [1, { subgroupSize: 32, software: false }],
    [1, BASE_FACTS],
  ] as const) {
    expect(takesGates("NT", { M, N: 64, K: 64 }, facts)).toBe(false);
    expect(() => matmul("NT", { M, N: 64, K: 64 }, facts, { gated: true })).toThrow("no tile of NT takes gates here");
  }
});

// Aligned and shifted vectors, single numbers, blocks that run over the ends of rows, one row and many. A variant differs
// in how it looks up codes, which int8 does not, and has one way to load what is not aligned.
describe.each(variants)("matmul of quantised weights, $variant", ({ variant, facts, emulated }) => {
  const own = variant === variants[0]?.variant;
  const shapes = [[36, 68, 64], [1, 64, 132], ...(own ? [[20, 33, 36] as const, [7, 35, 33] as const] : [])] as const;
  const all = { hasBias: true, hasResidual: true, accumulate: true, seed: 16 };

  it.each(own ? (["nf4", "int8"] as const) : (["nf4"] as const))(
    "of %s equals the float64 product of the same bytes",
    async (format) => {
      for (const layout of ["NN", "NT"] as const) {
        for (const [M, N, K] of someOf({ emulated }, shapes)) {
          await checkMatmul(layout, facts, { M, N, K, ...all, format });
        }
      }
    },
  );
});

// Every kind of tile looks codes up in its own way.
describe.each(alternatives.filter(({ M }) => M === 132))("matmul of nf4 by $tile, $variant", ({ facts, tile, M }) => {
  it("equals the float64 product of the same bytes", async () => {
    const all = { hasBias: true, hasResidual: true, accumulate: true, seed: 17 };
    await checkMatmul("NT", facts, { M, N: 64, K: 128, ...all, format: "nf4" }, tile);
  });
});

it("the grid of one row stays within what every adapter allows, however many columns there are", () => {
  for (const { facts } of [...variants, { facts: BASE_FACTS }]) {
    for (const N of [2 ** 14, 2 ** 14 + 4, 2 ** 18, 2 ** 19 - 8]) {
      const kernel = matmul("NT", { M: 1, N, K: 64 }, facts);
      for (const size of kernel.grid({ M: 1, N, K: 64 })) expect(size).toBeLessThanOrEqual(65535);
    }
  }
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
  it.each(halves)(
    "$layout equals the float64 product of f16 activations, rounded once, $aFormat $format $outFormat",
    async ({ layout, ...stored }) => {
      const all = { hasBias: true, hasResidual: true, accumulate: true, seed: 6, ...stored };
      for (const [M, N, K] of someOf({ emulated: emulated || halvesOnMachine }, [
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

  // Parts of K as windows of a large matrix have them, and a last one of odd length; aligned, shifted and single loads.
  it.each([
    [36, 68, [64, 128, 4]],
    [37, 66, [64, 68]],
    [5, 35, [64, 128, 7]],
  ])(
    "of %i rows and %i columns, K in parts of %j: sums that continue have the bits of the whole",
    async (M, N, parts) => {
      const K = parts.reduce((sum, part) => sum + part, 0);
      const random = seeded(K);
      const [a, b] = [normals(random, M * K), normals(random, K * N)];
      const [bias, residual] = [f32([N], normals(random, N)), f32([M, N], normals(random, M * N))];
      const run = async (first: number, count: number, out: HostArray) => {
        const isLast = Number(first + count === K);
        const rows = f32([count, N], b.subarray(first * N, (first + count) * N));
        const operands = { aWidth: K, aFrom: first, continues: first > 0 };
        const result = await runKernel(
          device,
          matmul("NN", { M, N, K: count }, facts, operands),
          {
            ...{ a: f32([M, K], a), b: rows, bias, residual, out, M, N, K: count, aFrom: first, outFrom: 0, scale: 1 },
            ...{ hasBias: isLast, hasResidual: isLast, accumulate: 0 },
          },
          facts,
        );
        return f32([M, N], result("out"));
      };
      const whole = await run(0, K, unset(M, N));
      let [first, out] = [0, unset(M, N)];
      for (const part of parts) {
        out = await run(first, part, out);
        first += part;
      }
      expect(bits(Float32Array.from(out.data))).toEqual(bits(Float32Array.from(whole.data)));
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

expectLanes(["matmulNN", "matmulNT", "matmulTN"], await emulatedLanes());
