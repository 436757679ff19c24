/** The matmul in its three layouts. */
import { recordMatmul } from "../../src/engine/model/matmul.ts";
import { Random } from "../../src/engine/random.ts";
import type { MatmulLayout } from "../../src/kernels/matmul-variant.ts";
import { type BenchmarkCase, expectClose, normals } from "../measure/case.ts";
import type { MatmulWork } from "../measure/peer-work.ts";

const ALL = ["NN", "NT", "TN"] as const;
/** The last ones are generation's: a token of one sequence and of sixteen, by weights that fit no cache. */
const shapes: readonly (Omit<MatmulWork, "layout"> & { layouts: readonly MatmulLayout[]; quick: boolean })[] = [
  { layouts: ALL, M: 512, N: 512, K: 512, quick: true },
  { layouts: ALL, M: 1024, N: 1024, K: 1024, quick: false },
  { layouts: ALL, M: 256, N: 50257, K: 64, quick: false },
  { layouts: ALL, M: 1024, N: 704, K: 256, quick: true },
  { layouts: ["NT"], M: 1, N: 16384, K: 1024, quick: false },
  { layouts: ["NT"], M: 16, N: 16384, K: 1024, quick: false },
];

/** Weights that are quantised: a linear layer, its input's gradient, and a token of one sequence. */
const quantizedShapes: readonly MatmulWork[] = [
  { layout: "NT", M: 512, N: 512, K: 512 },
  { layout: "NN", M: 512, N: 512, K: 512 },
  { layout: "NT", M: 1, N: 16384, K: 1024 },
];

const quantizedCases = (["nf4", "int8"] as const).flatMap((format) =>
  quantizedShapes.map((shape): BenchmarkCase => {
    const { layout, M, N, K } = shape;
    return {
      name: `matmul ${layout}, weights in ${format}`,
      shape: `${M} x ${N} x ${K}`,
      quick: false,
      record: (bench, program) => {
        const { a, b, aShape, bShape, checkAgainst } = matmulInputs(shape);
        const weights = bench.quantized(bShape, format, b);
        const out = bench.zeros(M, N);
        recordMatmul(program, layout, bench.of(aShape, a), weights.tensor, out);
        return async () => checkAgainst(weights.values)(await bench.device.download(out));
      },
    };
  }),
);

const plainCases = shapes.flatMap(({ layouts, M, N, K, quick }) =>
  layouts.map((layout): BenchmarkCase => {
    const shape = { layout, M, N, K };
    return {
      name: `matmul ${layout}`,
      shape: `${M} x ${N} x ${K}`,
      quick,
      peerWork: { kind: "matmul", ...shape },
      record: (bench, program) => {
        const { a, b, aShape, bShape, check } = matmulInputs(shape);
        const out = bench.zeros(M, N);
        recordMatmul(program, layout, bench.of(aShape, a), bench.of(bShape, b), out);
        return async () => check(await bench.device.download(out));
      },
    };
  }),
);

/** Large enough for a large GPU, in f32 and with operands that matrices may round to f16: see docs/gpu-report.md. */
const LARGE = 4096;
const largeCases = ALL.flatMap((layout) =>
  (["f32", "f16"] as const).map((products): BenchmarkCase => {
    const shape = { layout, M: LARGE, N: LARGE, K: LARGE };
    return {
      name: `matmul ${layout}${products === "f16" ? ", operands in f16" : ""}`,
      shape: `${LARGE} x ${LARGE} x ${LARGE}`,
      quick: false,
      hardwareOnly: true,
      products,
      ...(products === "f32" && { peerWork: { kind: "matmul", ...shape } }),
      record: (bench, program) => {
        const { a, b, aShape, bShape, check } = matmulInputs(shape, products === "f16" ? 2 ** -10 : 0);
        const out = bench.zeros(LARGE, LARGE);
        recordMatmul(program, layout, bench.of(aShape, a), bench.of(bShape, b), out);
        return async () => check(await bench.device.download(out));
      },
    };
  }),
);

export const matmulCases: readonly BenchmarkCase[] = [...plainCases, ...largeCases, ...quantizedCases];

/**
 * Operands of a matmul in its layout, and a check of 64 elements of the result in float64.
 *
 * @param rounding relative, of each operand; default none
 */
export function matmulInputs({ layout, M, N, K }: MatmulWork, rounding = 0) {
  const random = new Random(1);
  const a = normals(random, M * K);
  const b = normals(random, K * N);
  const checkAgainst = (weights: Float32Array) => (out: ArrayLike<number>) => {
    for (let i = 0; i < 64; i++) {
      const [row, column] = [random.below(M), random.below(N)];
      let sum = 0;
      let terms = 0;
      for (let k = 0; k < K; k++) {
        const x = a[layout === "TN" ? k * M + row : row * K + k] ?? Number.NaN;
        const y = weights[layout === "NT" ? column * K + k : k * N + column] ?? Number.NaN;
        sum += x * y;
        terms += Math.abs(x * y);
      }
      expectClose(
        `out[${row}, ${column}]`,
        out[row * N + column],
        sum,
        (4 * Math.sqrt(K) * 2 ** -24 + rounding) * terms,
      );
    }
  };
  const aShape = layout === "TN" ? ([K, M] as const) : ([M, K] as const);
  const bShape = layout === "NT" ? ([N, K] as const) : ([K, N] as const);
  return { a, b, aShape, bShape, check: checkAgainst(b), checkAgainst };
}
