/** DoRA's kernels against its definition in float64: norms by products that never form W + scale B A, columns scaled. */
import { describe, expect, it } from "vitest";
import { doraGains, magnitudePartials, rowSquares, scaleColumns, scaledColumns } from "../../src/kernels/dora.ts";
import * as twin from "../../src/kernels/float64/dora.ts";
import { matmul } from "../../src/kernels/float64/matmul.ts";
import { expectWithin, float64, normals, seeded } from "../helpers/compare.ts";
import { ACTIVATION_FORMATS, sharedDevice } from "../helpers/device.ts";
import { f32, runKernel, stored, unset } from "../helpers/gpu.ts";

const device = await sharedDevice();
const random = seeded(17);
const numbers = (count: number) => normals(random, count);

describe("squares of rows", () => {
  it.each(["f32", "f16", "bf16", "nf4", "int8"] as const)(
    "of a matrix in %s, by rows and by columns",
    async (format) => {
      const [R, C] = [37, 64];
      const { array, values } = stored(format, [R, C], numbers(R * C));
      for (const byColumn of [0, 1]) {
        const [count, first] = byColumn ? [C, 0] : [R, 3];
        const before = numbers(count + 5);
        const args = { weight: array, squares: f32([count + 5], before), byColumn, first };
        const found = (await runKernel(device, rowSquares(format), args))("squares");
        const wanted = float64(before);
        for (let i = 0; i < R * C; i++) {
          const at = first + (byColumn ? i % C : Math.floor(i / C));
          wanted[at] = (wanted[at] ?? 0) + (values[i] ?? 0) ** 2;
        }
        expectWithin(`${format} ${byColumn}`, found, wanted, (i) => 1e-5 * (1 + Math.abs(wanted[i] ?? 0)));
      }
    },
  );
});

describe("gains", () => {
  it.each([
    [1, 5, 9, 0],
    [4, 33, 20, 7],
    [16, 70, 64, 1],
  ])("of rank %d over %d x %d are m / |W + scale B A|", async (rank, outputs, inputs, from) => {
    const scale = 1.7;
    const [weight, a, b] = [numbers(outputs * inputs), numbers(rank * inputs), numbers(outputs * rank)];
    const magnitude = numbers(outputs);
    weight.fill(0, 0, inputs); // a row that has no direction, with its adapter's
    b.fill(0, 0, rank);
    const layer = { weight: float64(weight), a: float64(a), b: float64(b), inputs, outputs, rank, scale };
    const gains = twin.doraGains({ ...layer, magnitude: float64(magnitude) });
    const { norms } = twin.doraDirection(layer);
    const projected = matmul({ a: layer.a, b: layer.weight, m: rank, n: outputs, k: inputs, transposeB: true });
    const gram = matmul({ a: layer.a, b: layer.a, m: rank, n: rank, k: inputs, transposeB: true });
    const width = from + outputs + 2;
    const squares = new Float64Array(width).fill(1);
    for (let o = 0; o < outputs; o++) {
      squares[from + o] = layer.weight.subarray(o * inputs, (o + 1) * inputs).reduce((sum, w) => sum + w * w, 0);
    }
    const result = await runKernel(device, doraGains, {
      ...{ b: f32([outputs, rank], b), projected: f32([rank, outputs], projected), gram: f32([rank, rank], gram) },
      ...{ squares: f32([width], squares), magnitude: f32([outputs], magnitude) },
      ...{ gains: unset(width), inverse: unset(width), first: from, projectedFrom: 0, scale },
    });
    const own = (all: Float32Array) => all.subarray(from, from + outputs);
    expectWithin("gains", own(result("gains")), gains, (o) => 3e-5 * (1e-3 + Math.abs(gains[o] ?? 0)));
    const inverse = norms.map((norm) => (norm > 0 ? 1 / norm : 0));
    expectWithin("inverse", own(result("inverse")), inverse, (o) => 3e-5 * (inverse[o] ?? 0) + 1e-12);
    expect(Math.abs(own(result("gains"))[0] ?? 1)).toBe(0);
  });
});

describe("columns", () => {
  const [T, W] = [19, 11];

  it("are scaled in place, with bias and residual behind, in any format of activations", async () => {
    const [gains, bias, residual] = [numbers(W), numbers(W), numbers(T * W)];
    for (const format of ACTIVATION_FORMATS) {
      for (const [hasBias, hasResidual] of [
        [0, 0],
        [1, 0],
        [1, 1],
      ] as const) {
        const { array, values } = stored(format, [T, W], numbers(T * W));
        const args = { gains: f32([W], gains), bias: f32([W], bias), residual: f32([T * W], residual), y: array };
        const y = (await runKernel(device, scaleColumns, { ...args, hasBias, hasResidual }))("y");
        const wanted = values.map((value, i) => {
          const added = (hasBias ? (bias[i % W] ?? 0) : 0) + (hasResidual ? (residual[i] ?? 0) : 0);
          return value * (gains[i % W] ?? 0) + added;
        });
        const unit = format === "f16" ? 2 ** -10 : 2 ** -21;
        expectWithin(format, y, wanted, (i) => unit * (1 + Math.abs(wanted[i] ?? 0)));
      }
    }
  });

  it("of a range are scaled by gains less a shift into another range, or added there", async () => {
    const [X, Y, columns, from, xFrom, yFrom] = [9, 14, 6, 3, 2, 5];
    const [gains, x, before] = [numbers(W), numbers(T * X), numbers(T * Y)];
    for (const [shift, accumulate] of [
      [0, 0],
      [1, 1],
    ] as const) {
      const args = { gains: f32([W], gains), x: f32([T, X], x), y: f32([T, Y], before) };
      const place = { columns, first: from, xFrom, yFrom, shift, accumulate };
      const y = (await runKernel(device, scaledColumns, { ...args, ...place }))("y");
      const wanted = float64(before);
      for (let row = 0; row < T; row++) {
        for (let c = 0; c < columns; c++) {
          const value = ((gains[from + c] ?? 0) - shift) * (x[row * X + xFrom + c] ?? 0);
          const at = row * Y + yFrom + c;
          wanted[at] = (accumulate ? (before[at] ?? 0) : 0) + value;
        }
      }
      expectWithin(`shift ${shift}`, y, wanted, (i) => 2 ** -21 * (1 + Math.abs(wanted[i] ?? 0)));
    }
  });

  it("give the gradient of the magnitude in blocks of rows", async () => {
    const [X, columns, from, xFrom, blocks] = [8, 5, 4, 2, 3];
    const [inverse, dy, product] = [numbers(W), numbers(T * W), numbers(T * X)];
    const args = { inverse: f32([W], inverse), dy: f32([T, W], dy), product: f32([T, X], product) };
    const place = { columns, first: from, xFrom };
    const found = (await runKernel(device, magnitudePartials, { ...args, partials: unset(blocks, columns), ...place }))(
      "partials",
    );
    for (let c = 0; c < columns; c++) {
      let [sum, wanted] = [0, 0];
      for (let block = 0; block < blocks; block++) sum += found[block * columns + c] ?? 0;
      for (let row = 0; row < T; row++) wanted += (dy[row * W + from + c] ?? 0) * (product[row * X + xFrom + c] ?? 0);
      wanted *= inverse[from + c] ?? 0;
      expect(Math.abs(sum - wanted)).toBeLessThan(1e-5 * (1 + Math.abs(wanted)));
    }
  });
});
