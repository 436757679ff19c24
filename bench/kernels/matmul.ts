/** The matrix product in its three layouts. */
import { type MatmulLayout, matmul } from "../../src/kernels/matmul.ts";
import { type BenchmarkCase, expectClose } from "../case.ts";

const shapes: readonly { M: number; N: number; K: number; quick: boolean }[] = [
  { M: 512, N: 512, K: 512, quick: true },
  { M: 1024, N: 1024, K: 1024, quick: false },
  { M: 256, N: 50257, K: 64, quick: false },
  { M: 1024, N: 704, K: 256, quick: true },
];

export const matmulCases: readonly BenchmarkCase[] = shapes.flatMap(({ M, N, K, quick }) =>
  (["NN", "NT", "TN"] as const).map(
    (layout): BenchmarkCase => ({
      name: `matmul ${layout}`,
      shape: `${M} x ${N} x ${K}`,
      quick,
      record: (bench, program) => {
        const a = bench.normal(layout === "TN" ? [K, M] : [M, K]);
        const b = bench.normal(layout === "NT" ? [N, K] : [K, N]);
        const out = bench.zeros(M, N);
        program.dispatch(matmul(layout, { M, N, K }, bench.device.facts), {
          a: a.tensor,
          b: b.tensor,
          out,
          bias: bench.zeros(1),
          residual: bench.zeros(1, 4),
          aFrom: 0,
          outFrom: 0,
          scale: 1,
          hasBias: 0,
          hasResidual: 0,
          accumulate: 0,
        });
        return async () => {
          const found = await bench.device.download(out);
          for (let i = 0; i < 64; i++) {
            const [row, column] = [bench.below(M), bench.below(N)];
            const { sum, terms } = element(layout, { M, N, K }, a.values, b.values, row, column);
            expectClose(
              `out[${row}, ${column}]`,
              found[row * N + column] ?? Number.NaN,
              sum,
              4 * Math.sqrt(K) * 2 ** -24 * terms,
            );
          }
        };
      },
    }),
  ),
);

/** One element in float64, and the sum of the sizes of its terms. */
function element(
  layout: MatmulLayout,
  { M, N, K }: { M: number; N: number; K: number },
  a: Float32Array,
  b: Float32Array,
  row: number,
  column: number,
): { sum: number; terms: number } {
  let sum = 0;
  let terms = 0;
  for (let k = 0; k < K; k++) {
    const x = a[layout === "TN" ? k * M + row : row * K + k] ?? Number.NaN;
    const y = b[layout === "NT" ? column * K + k : k * N + column] ?? Number.NaN;
    sum += x * y;
    terms += Math.abs(x * y);
  }
  return { sum, terms };
}
