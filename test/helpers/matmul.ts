/**
 * One product on the device against its float64 twin, within what f32 sums allow, or operands that are rounded to f16.
 */
import { expect } from "vitest";
import * as twin from "../../src/kernels/float64/matmul.ts";
import type { ActivationFormat, WeightFormat } from "../../src/kernels/kernel.ts";
import { type MatmulLayout, type MatmulShape, matmul } from "../../src/kernels/matmul.ts";
import type { ProductFormat, TileName } from "../../src/kernels/matmul-variant.ts";
import type { AdapterFacts } from "../../src/kernels/wgsl.ts";
import { EPSILON, expectWithin, float64, normals, seeded, storedBound } from "./compare.ts";
import { sharedDevice } from "./device.ts";
import { candidate, f32, runKernel, stored, unset } from "./gpu.ts";

const device = await sharedDevice();

export interface MatmulCase extends MatmulShape {
  readonly hasBias: boolean;
  readonly hasResidual: boolean;
  readonly accumulate: boolean;
  readonly seed: number;
  /** How B is stored; default f32. */
  readonly format?: WeightFormat;
  /** How A and the result are stored; default f32. */
  readonly aFormat?: ActivationFormat;
  readonly outFormat?: ActivationFormat;
  readonly scale?: number;
  /** What the operands may be rounded to; default f32. */
  readonly products?: ProductFormat;
  /** Factors on the numbers of A and B; default 1. */
  readonly sizes?: { readonly a: number; readonly b: number };
  /** Columns of a and out on each side of the range that A and the result are; default none. */
  readonly margin?: { readonly a: number; readonly out: number };
}

/** Half a unit in the last place of f16, relative: what rounding an operand to it costs. */
const HALF = 2 ** -11;

/**
 * Runs a product, by one tile alone if one is named, and compares it; what lies beside a range of columns stays.
 * Returns the largest error as a share of the sum of absolute terms.
 */
export async function checkMatmul(
  layout: MatmulLayout,
  facts: AdapterFacts,
  one: MatmulCase,
  tile?: TileName,
): Promise<number> {
  const {
    M,
    N,
    K,
    hasBias,
    hasResidual,
    accumulate,
    format = "f32",
    aFormat = "f32",
    outFormat = "f32",
    scale = 1,
    products = "f32",
    sizes = { a: 1, b: 1 },
  } = one;
  const { a: aFrom, out: outFrom } = one.margin ?? { a: 0, out: 0 };
  const random = seeded(one.seed);
  const a = stored(aFormat, [M * K], normals(random, M * K, sizes.a)).values;
  const b = stored(format, layout === "NT" ? [N, K] : [K, N], normals(random, K * N, sizes.b));
  const bias = normals(random, N);
  const residual = normals(random, M * N);
  const before = stored(outFormat, [M * N], normals(random, M * N)).values;
  const [aRows, aColumns] = layout === "TN" ? [K, M] : [M, K];
  const [aWidth, outWidth] = [aColumns + 2 * aFrom, N + 2 * outFrom];
  const wide = within(a, aRows, aColumns, aFrom);
  const outBefore = within(accumulate ? before : new Float64Array(M * N).fill(Number.NaN), M, N, outFrom);
  const operands = { format, aFormat, outFormat, aWidth, aFrom, outWidth, outFrom, products };
  const kernel = matmul(layout, one, facts, operands);
  const result = await runKernel(
    device,
    candidate(kernel, tile),
    {
      a: stored(aFormat, [aRows, aWidth], wide).array,
      b: b.array,
      // NaN in whatever the flags turn off: it must not be read.
      bias: hasBias ? f32([N], bias) : unset(4),
      residual: hasResidual ? f32([M, N], residual) : unset(1, 4),
      out: stored(outFormat, [M, outWidth], outBefore).array,
      M,
      N,
      K,
      aFrom,
      outFrom,
      scale,
      hasBias: Number(hasBias),
      hasResidual: Number(hasResidual),
      accumulate: Number(accumulate),
    },
    facts,
  );
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
    a: a.map((value) => scale * value),
    b: b.values,
    m: M,
    n: N,
    k: K,
    transposeA: layout === "TN",
    transposeB: layout === "NT",
    bias: hasBias ? float64(bias) : undefined,
  };
  const absolute = twin.matmulAbsolute({ ...inputs, residual: addedAbsolute });
  // c = 4: with K = 1 one product and three additions round once each; for larger K the K roundings of partial sums,
  // none of which exceeds the sum of absolute terms, add up like a random walk, and 4 sqrt(K) is four deviations.
  const out = result("out");
  const own = out.filter((_, i) => inRange(i % outWidth, N, outFrom));
  // The columns beside the range are another part's: they hold what they held.
  expect([...out].filter((_, i) => !inRange(i % outWidth, N, outFrom))).toEqual(
    [...outBefore].filter((_, i) => !inRange(i % outWidth, N, outFrom)),
  );
  const rounded = products === "f16" ? 2 * HALF : 0;
  const exact = twin.matmul({ ...inputs, residual: added });
  expectWithin(
    `matmul${layout} ${M}x${N}x${K} ${aFormat} ${format} ${outFormat}`,
    own,
    exact,
    absolute.map((terms, i) => {
      const bound = (4 * Math.sqrt(K) * EPSILON + rounded) * terms;
      return storedBound(outFormat, exact[i] ?? Number.NaN, bound);
    }),
  );
  return absolute.reduce(
    (worst, terms, i) => Math.max(worst, Math.abs((own[i] ?? Number.NaN) - (exact[i] ?? Number.NaN)) / terms),
    0,
  );
}

const inRange = (column: number, columns: number, from: number) => column >= from && column < from + columns;

/** A matrix as the middle columns of a wider one, full of 7 elsewhere: read or written, they would show. */
function within(matrix: Float64Array, rows: number, columns: number, margin: number): Float64Array {
  const width = columns + 2 * margin;
  const wide = new Float64Array(rows * width).fill(7);
  for (let row = 0; row < rows; row++)
    wide.set(matrix.subarray(row * columns, (row + 1) * columns), row * width + margin);
  return wide;
}
