/** RMSNorm between two products of few rows: what the one gives, and what the other makes of it. */
import { describe, expect, it } from "vitest";
import { swigluForward } from "../../src/kernels/float64/activation.ts";
import * as twin from "../../src/kernels/float64/matmul.ts";
import { rmsNormForward } from "../../src/kernels/float64/norm.ts";
import type { StoredFormat } from "../../src/kernels/kernel.ts";
import { matmul, type NormGivingKernel, type NormTakingKernel } from "../../src/kernels/matmul.ts";
import { takesNorms } from "../../src/kernels/matmul-variant.ts";
import { BASE_FACTS } from "../../src/kernels/wgsl.ts";
import { EPSILON, expError, expectWithin, float64, normals, seeded } from "../helpers/compare.ts";
import { sharedDevice } from "../helpers/device.ts";
import { f32, runKernel, stored, unset } from "../helpers/gpu.ts";

const device = await sharedDevice();

// Rows of each tile, at 8 lanes and, on the machine, at those of a GPU; columns of one workgroup and of several.
const CASES = [
  { lanes: 8, software: true, M: 1, C: 68, K: 40, N: 132, format: "bf16" },
  { lanes: 8, software: true, M: 1, C: 36, K: 20, N: 36, format: "f32" },
  { lanes: 8, software: true, M: 3, C: 68, K: 36, N: 36, format: "f16" },
  { lanes: 8, software: true, M: 8, C: 36, K: 20, N: 68, format: "bf16" },
  { lanes: 8, software: true, M: 16, C: 516, K: 36, N: 516, format: "bf16" },
  { lanes: 4, software: true, M: 16, C: 36, K: 20, N: 20, format: "f32" },
  { lanes: 32, software: false, M: 1, C: 36, K: 132, N: 20, format: "bf16" },
] as const satisfies readonly { format: StoredFormat; [name: string]: unknown }[];

describe.each(CASES)("a norm between products of $M rows at $lanes lanes, $format", (one) => {
  const { lanes, software, M, C, K, N, format } = one;
  const facts = { subgroupSize: lanes, software };
  const random = seeded(31);
  const epsilon = 1e-3;
  const gains = normals(random, C);
  const given = async (gainOffset: number) => {
    const a = f32([M, K], normals(random, M * K));
    const b = stored(format, [C, K], normals(random, C * K, 0.3));
    const [bias, residual] = [f32([C], normals(random, C)), f32([M, C], normals(random, M * C))];
    const operandsOf = { format, norm: "gives", aWidth: K, outWidth: C } as const;
    const kernel: NormGivingKernel = matmul("NT", { M, N: C, K }, facts, operandsOf);
    const tiles = kernel.grid({ M, N: C, K }).reduce((product, size) => product * size, 1);
    const operands = { a, b: b.array, bias, residual, out: unset(M, C), gain: f32([C], gains) };
    const results = { scaled: unset(M, C), squares: unset(M, tiles), gainOffset };
    const numbers = { M, N: C, K, aFrom: 0, outFrom: 0, scale: 1, hasBias: 1, hasResidual: 1, accumulate: 0 };
    const result = await runKernel(device, kernel, { ...operands, ...results, ...numbers }, facts);
    const inputs = { a: float64(a.data), b: b.values, m: M, n: C, k: K, transposeB: true };
    const adds = { bias: float64(bias.data), residual: float64(residual.data) };
    return { result, tiles, inputs: { ...inputs, ...adds } };
  };
  const take = async (x: Float32Array, squares: Float32Array, tiles: number, gated: boolean) => {
    const rows = gated ? 2 * N : N;
    const b = stored(format, [rows, C], normals(random, rows * C, 0.3));
    const kernel: NormTakingKernel = matmul("NT", { M, N, K: C }, facts, {
      format,
      norm: "takes",
      gated,
      aWidth: C,
      outWidth: N,
    });
    const operands = { a: f32([M, C], x), b: b.array, squares: f32([M, tiles], squares), out: unset(M, N) };
    const numbers = { M, N, K: C, aFrom: 0, outFrom: 0, scale: 1, hasBias: 0, hasResidual: 0, accumulate: 0, epsilon };
    const unused = { bias: unset(4), residual: unset(1, 4) };
    const out = (await runKernel(device, kernel, { ...operands, ...unused, ...numbers }, facts))("out");
    return { out, b: b.values, rows };
  };

  it("gives the stream, the stream times the gain, and sums of its squares", async () => {
    const { result, tiles, inputs } = await given(0);
    const x = result("out");
    const absolute = twin.matmulAbsolute(inputs);
    const exact = twin.matmul(inputs);
    expectWithin("stream", x, exact, (i) => 4 * Math.sqrt(K) * EPSILON * (absolute[i] ?? Number.NaN));
    expectWithin(
      "scaled",
      result("scaled"),
      float64(x).map((value, i) => value * Math.fround(gains[i % C] ?? Number.NaN)),
      (i) => EPSILON * Math.abs((x[i] ?? 0) * (gains[i % C] ?? Number.NaN)),
    );
    const squares = result("squares");
    const sums = Float64Array.from({ length: M }, (_, row) =>
      squares.subarray(row * tiles, (row + 1) * tiles).reduce((sum, value) => sum + value, 0),
    );
    const wanted = sums.map((_, row) => x.subarray(row * C, (row + 1) * C).reduce((sum, value) => sum + value ** 2, 0));
    expectWithin("squares", sums, wanted, (row) => 4 * Math.sqrt(C) * EPSILON * (wanted[row] ?? Number.NaN));
  });

  it.each([false, true])("is taken by the product behind it, gated: %s", async (gated) => {
    if (gated && !software) {
      await expect(take(new Float32Array(C), new Float32Array(1), 1, true)).rejects.toThrow("takes gates here");
      return;
    }
    const { result, tiles } = await given(1);
    const { out, b, rows } = await take(result("scaled"), result("squares"), tiles, gated);
    const weight = Float64Array.from(gains, (gain) => 1 + Math.fround(gain));
    const { y } = rmsNormForward(float64(result("out")), weight, epsilon);
    const inputs = { a: y, b, m: M, n: rows, k: C, transposeB: true };
    const [product, absolute] = [twin.matmul(inputs), twin.matmulAbsolute(inputs)];
    // The factor of a row has the error of half a sum of squares, and a few roundings.
    const errors = absolute.map((terms) => (5 * Math.sqrt(C) + 8) * EPSILON * terms);
    if (!gated) {
      expectWithin("product", out, product, errors);
      return;
    }
    expectWithin("gated product", out, swigluForward(product, N), (i) => {
      const [at, beside] = [Math.floor(i / N) * 2 * N + (i % N), Math.floor(i / N) * 2 * N + N + (i % N)];
      const [gate = Number.NaN, up = Number.NaN] = [product[at], product[beside]];
      const [gateError = Number.NaN, upError = Number.NaN] = [errors[at], errors[beside]];
      const rounding = (expError(gate) + 6 * EPSILON) * Math.abs(gate * up);
      return 1.1 * gateError * (Math.abs(up) + upError) + Math.abs(gate) * upError + rounding;
    });
  });
});

it("takes a dispatch of its own among more rows, without subgroups, and where rows are not in fours", () => {
  const eight = { subgroupSize: 8, software: true };
  for (const [layout, M, N, K, facts] of [
    ["NT", 17, 64, 64, eight],
    ["NT", 2, 64, 64, { subgroupSize: 32, software: false }],
    ["NT", 1, 64, 64, BASE_FACTS],
    ["NT", 1, 66, 64, eight],
    ["NT", 1, 64, 66, eight],
    ["NN", 1, 64, 64, eight],
  ] as const) {
    expect(takesNorms(layout, { M, N, K }, facts)).toBe(false);
    expect(() => matmul(layout, { M, N, K }, facts, { norm: "takes" })).toThrow("takes norms here");
  }
});
