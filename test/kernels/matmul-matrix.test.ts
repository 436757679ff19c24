/**
 * Products on subgroup matrices, in all layouts, with every epilogue, over odd shapes, by all their tiles: split
 * operands within f32's bounds, rounded ones within f16's. They run where the device offers matrices, as `npm run
 * test:matrix` makes one; elsewhere they are emulated.
 */
import { describe, expect, it } from "vitest";
import { matmul } from "../../src/kernels/matmul.ts";
import type { MatmulLayout } from "../../src/kernels/matmul-variant.ts";
import type { AdapterFacts } from "../../src/kernels/wgsl.ts";
import { bits, normals, seeded } from "../helpers/compare.ts";
import { sharedDevice } from "../helpers/device.ts";
import { candidate, f32, runKernel, unset } from "../helpers/gpu.ts";
import { checkMatmul } from "../helpers/matmul.ts";

const { facts } = await sharedDevice();
const offered = facts.matrices !== undefined;
const device = await sharedDevice();
const layouts: readonly MatmulLayout[] = ["NN", "NT", "TN"];
const all = { hasBias: true, hasResidual: true, accumulate: true, seed: 21 };
const alone = { hasBias: false, hasResidual: false, accumulate: false, seed: 22 };
const tell = (layout: MatmulLayout, operands: string, error: number) =>
  console.log(
    `${layout}, ${operands} operands, K = 516: error at most ${error.toExponential(2)} of the sum of absolute terms`,
  );

describe.runIf(offered).each(layouts)("matmul%s on matrices", (layout) => {
  it("equals the float64 product within f32's bounds by split operands, at and around the tile's borders", async () => {
    for (const [M, N, K] of [
      [36, 68, 132],
      [16, 16, 16],
      [4, 8, 12],
    ] as const) {
      await checkMatmul(layout, facts, { M, N, K, ...all }, "matrix16x16");
    }
    tell(layout, "split", await checkMatmul(layout, facts, { M: 36, N: 68, K: 516, ...alone }, "matrix16x16"));
  });

  it("takes odd shapes", async () => {
    for (const [M, N, K] of [
      [37, 35, 33],
      [1, 3, 7],
      [17, 1, 70],
    ] as const) {
      await checkMatmul(layout, facts, { M, N, K, ...all }, "matrix16x16");
    }
  });

  it("equals the float64 product within f16's bounds by operands that are rounded, large or small", async () => {
    for (const sizes of [
      { a: 1, b: 1 },
      { a: 1e-9, b: 300 },
      { a: 1e6, b: 1e-5 },
    ]) {
      await checkMatmul(layout, facts, { M: 20, N: 36, K: 68, ...all, products: "f16", sizes }, "matrix16x16");
    }
    const rounded = { M: 36, N: 68, K: 516, ...alone, products: "f16" } as const;
    tell(layout, "rounded", await checkMatmul(layout, facts, rounded, "matrix16x16"));
  });

  it("keeps f32's digits for operands that are large or small", async () => {
    for (const sizes of [
      { a: 1e-9, b: 300 },
      { a: 1e6, b: 1e-5 },
      { a: 1e-20, b: 1e-15 },
    ]) {
      await checkMatmul(layout, facts, { M: 20, N: 36, K: 68, ...alone, sizes }, "matrix16x16");
    }
  });
});

// As on hardware. Larger tiles take lavapipe 10 seconds and more to compile: emulated matrices run these.
it.runIf(offered).each(layouts)("%s where four subgroups share a tile", async (layout) => {
  await checkMatmul(layout, { ...facts, software: false }, { M: 36, N: 68, K: 36, ...all }, "matrix32x32");
});

// What GPUs have: their texts, with matrices emulated (`emulated-matrices.ts`), on the machine of `wgsl/machine.ts`.
const GPUS = [
  ...layouts.map((layout) => ({ gpu: "NVIDIA", lanes: 32, tile: "matrix64x64", layout, shape: [16, 16, 16] }) as const),
  { gpu: "NVIDIA", lanes: 32, tile: "matrix128x64", layout: "NN", shape: [16, 8, 16] },
  { gpu: "AMD", lanes: 64, tile: "matrix32x32", layout: "NT", shape: [16, 16, 16] },
  { gpu: "Intel", lanes: 16, tile: "matrix64x64", layout: "TN", shape: [8, 16, 16] },
  { gpu: "Apple", lanes: 32, tile: "matrix64x64", layout: "NN", shape: [8, 8, 8] },
] as const;
it.each(GPUS)(
  "$layout by $tile as on $gpu equals the float64 product, emulated: $lanes lanes, $shape",
  async ({ gpu, lanes, tile, layout, shape: [M, N, K] }) => {
    const matrices = { component: gpu === "Apple" ? "f32" : "f16", M, N, K } as const;
    const own: AdapterFacts = { subgroupSize: lanes, software: false, matrices };
    await checkMatmul(layout, own, { M: 132, N: 68, K: 36, ...all }, tile);
    if (gpu === "AMD") await checkMatmul(layout, own, { M: 35, N: 37, K: 21, ...all }, tile);
    if (gpu === "AMD") await checkMatmul(layout, own, { M: 36, N: 68, K: 36, ...all, products: "f16" }, tile);
    // A quantised number is an f32 once it is unpacked: it is split.
    if (gpu === "AMD") await checkMatmul(layout, own, { M: 36, N: 68, K: 36, ...all, format: "nf4" }, tile);
  },
);

describe.runIf(offered)("stored formats on matrices", () => {
  it.each([
    { layout: "NT", format: "bf16" },
    { layout: "NN", format: "nf4" },
    { layout: "NT", format: "f16", aFormat: "f16", outFormat: "f16" },
    { layout: "NN", format: "f16", aFormat: "f32", outFormat: "f16" },
    { layout: "TN", aFormat: "f16" },
  ] as const)("$layout, $format $aFormat $outFormat", async ({ layout, ...stored }) => {
    await checkMatmul(layout, facts, { M: 36, N: 68, K: 132, ...all, ...stored }, "matrix16x16");
    const margin = { a: 4, out: 8 };
    await checkMatmul(
      layout,
      facts,
      { M: 36, N: 68, K: 132, ...all, ...stored, hasResidual: false, margin, scale: 0.75 },
      "matrix16x16",
    );
  });
});

it.runIf(offered)("what grows along k is scaled again, and gives the same bits twice", async () => {
  const random = seeded(23);
  const [M, N, K] = [16, 16, 128];
  // From 1e-6 on by a factor of 2^4 every 16 steps; the first have no number but 0.
  const grown = normals(random, M * K).map((value, i) =>
    i % K < 16 ? 0 : value * 1e-6 * 2 ** (4 * Math.floor((i % K) / 16)),
  );
  const b = normals(random, K * N);
  const args = {
    ...{ a: f32([M, K], grown), b: f32([K, N], b), bias: unset(4), residual: unset(1, 4), out: unset(M, N) },
    ...{ aFrom: 0, outFrom: 0, scale: 1, hasBias: 0, hasResidual: 0, accumulate: 0 },
  };
  const kernel = candidate(matmul("NN", { M, N, K }, facts), "matrix16x16");
  const found = (await runKernel(device, kernel, args, facts))("out");
  const again = (await runKernel(device, kernel, args, facts))("out");
  expect(bits(again)).toEqual(bits(found));
  for (let i = 0; i < M * N; i++) {
    const [row, column] = [Math.floor(i / N), i % N];
    let [sum, terms] = [0, 0];
    for (let k = 0; k < K; k++) {
      const term = Math.fround(grown[row * K + k] ?? 0) * (b[k * N + column] ?? 0);
      sum += term;
      terms += Math.abs(term);
    }
    expect(Math.abs((found[i] ?? Number.NaN) - sum)).toBeLessThanOrEqual(2 ** -21 * terms);
  }
});

it("numbers that are not finite stay so, and other rows of their tile keep their digits", async () => {
  const emulated = { subgroupSize: 32, software: false, matrices: { component: "f16", M: 16, N: 16, K: 16 } } as const;
  const own: AdapterFacts = offered ? facts : emulated;
  const tile = offered ? "matrix16x16" : "matrix32x32";
  const [M, N, K] = [32, 32, 32];
  const ones = (size: number) => new Float32Array(size).fill(1);
  const a = ones(M * K);
  a[5] = Number.NaN;
  a[K + 7] = Number.POSITIVE_INFINITY;
  const args = {
    ...{ a: f32([M, K], a), b: f32([K, N], ones(K * N)), bias: unset(4), residual: unset(1, 4), out: unset(M, N) },
    ...{ aFrom: 0, outFrom: 0, scale: 1, hasBias: 0, hasResidual: 0, accumulate: 0 },
  };
  const out = (await runKernel(device, candidate(matmul("NN", { M, N, K }, own), tile), args, own))("out");
  for (const row of [0, 1]) expect(Number.isFinite(out[row * N])).toBe(false);
  // They scale nothing.
  expect([...out.subarray(2 * N)]).toEqual(new Array((M - 2) * N).fill(K));
});

describe("tiles on matrices", () => {
  it("are no candidates where sums are continued, which they would round otherwise", () => {
    const gpu = { subgroupSize: 32, software: false, matrices: { component: "f16", M: 16, N: 16, K: 16 } } as const;
    const tiles = (N: number, operands: { continues?: boolean; continued?: boolean } = {}) => {
      const kernel = matmul("NN", { M: 256, N, K: 256 }, gpu, operands);
      return (kernel.candidates?.({}) ?? [kernel]).map(({ variant = "" }) => variant);
    };
    for (const N of [256, 255]) {
      expect(tiles(N).filter((tile) => tile.startsWith("matrix"))).not.toEqual([]);
      expect(tiles(N, { continues: true }).filter((tile) => tile.startsWith("matrix"))).toEqual([]);
      // Nor for the first of the parts, so that all take the same.
      expect(tiles(N, { continued: true })).toEqual(tiles(N, { continues: true }));
    }
  });

  it("of a part are those of the whole, and are chosen once for it", () => {
    const gpu = { subgroupSize: 32, software: false, matrices: { component: "f16", M: 16, N: 16, K: 16 } } as const;
    const parts = [256, 64, 4].map((N) =>
      matmul("NT", { M: 256, N, K: 64 }, gpu, { whole: { M: 256, N: 324, K: 64 } }),
    );
    const about = parts.map(({ candidates, tuningClass, tuningFlops }) => ({
      tiles: candidates?.({}).map(({ variant }) => variant),
      ...{ tuningClass, tuningFlops },
    }));
    const [whole] = [matmul("NT", { M: 256, N: 324, K: 64 }, gpu)];
    expect(about[0]?.tiles?.length).toBeGreaterThan(2);
    for (const part of about) {
      expect(part.tiles).toEqual(whole?.candidates?.({}).map(({ variant }) => variant));
      expect([part.tuningClass, part.tuningFlops]).toEqual([whole?.tuningClass, whole?.tuningFlops]);
    }
  });

  // What a GPU would run: its text is written, with as much workgroup memory as is asked for, and no more.
  it.each([8, 16, 32, 64])("for subgroups of %i take at most 32 KiB", (subgroupSize) => {
    for (const [component, M, N, K] of [
      ["f16", 16, 16, 16],
      ["f16", 8, 16, 16],
      ["f16", 16, 8, 8],
      ["f32", 8, 8, 8],
    ] as const) {
      const gpu = { subgroupSize, software: false, matrices: { component, M, N, K } };
      const kernels = layouts.map((layout) => matmul(layout, { M: 256, N: 256, K: 256 }, gpu));
      for (const { variant = "", wgsl } of kernels.flatMap((kernel) => kernel.candidates?.({}) ?? [])) {
        if (!variant.startsWith("matrix")) continue;
        const bytes = [...wgsl.matchAll(/var<workgroup> \w+: array<(f16|f32), (\d+)>/g)].reduce(
          (sum, [, type, count]) => sum + (type === "f16" ? 2 : 4) * Number(count),
          0,
        );
        expect(bytes).toBeGreaterThan(0);
        expect(bytes).toBeLessThanOrEqual(32768 - 2048); // the head's reductions and the counters
      }
    }
  });
});
