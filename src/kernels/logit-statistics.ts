/**
 * What is told of whole rows of logits beside the log-probability of a target: the entropy of softmax and the mean logit.
 *
 *   logits = hidden table^T                                            hidden [N, C], table [V, C] in any stored format
 *   entropy[n] = sum_v p[n, v] (logSumExp[n] - logits[n, v]),          p = exp(logits - logSumExp), in nats
 *   meanLogit[n] = sum_v logits[n, v] / V
 *
 * A pass of its own, after pass 1 of `log-softmax-gather` has given logSumExp, and not two more sums in that pass: only
 * those who ask pay for it, and the text that training runs is one and the same, so that no compiler can give training
 * other bits where metrics are wanted. The [tokens, vocabulary] matrix never exists here either.
 */
import { type Kernel, kernel, type StoredFormat } from "./kernel.ts";
import { productTile } from "./product-tile.ts";
import { operandBindings, type ProductVariant, tiledKernel } from "./product-variant.ts";
import { type AdapterFacts, elementwise, elementwiseGrid } from "./wgsl.ts";

type StatisticsKernel = Kernel<
  "a" | "b" | "logSumExp" | "partials",
  "M" | "N" | "K" | "aWidth" | "aFrom" | "splits" | "firstSplit" | "splitColumns"
>;

const cache = new Map<string, StatisticsKernel>();

/**
 * One window of the table: a = hidden [M, K], b = N rows of the table. Writes partials [splits, M, 2] = (sum of
 * p (logSumExp - logit), sum of logits) for its splits from `firstSplit` on, each of `splitColumns` tokens.
 */
export function logitStatistics(
  M: number,
  N: number,
  K: number,
  facts: AdapterFacts,
  format: StoredFormat = "f32",
): StatisticsKernel {
  return tiledKernel("NT", { M, N, K }, facts, { format }, cache, buildStatistics);
}

function buildStatistics(variant: ProductVariant): StatisticsKernel {
  const tile = productTile(variant);
  return kernel({
    name: "logitStatistics",
    read: { ...operandBindings(variant), logSumExp: "f32[M]" },
    write: { partials: "f32[splits, M, 2]" },
    uniforms: {
      M: "u32",
      N: "u32",
      K: "u32",
      aWidth: "u32",
      aFrom: "u32",
      splits: "u32",
      firstSplit: "u32",
      splitColumns: "u32",
    },
    enable: tile.enable,
    wgsl: /* wgsl */ `${tile.declarations}
${tile.acrossColumns}
struct Sums { entropy: f32, logits: f32 }

/// Adds four more logits of a row whose log-sum-exp is \`total\`; columns at and beyond \`end\` do not exist.
fn take(sums: Sums, logits: vec4f, column: u32, end: u32, total: f32) -> Sums {
  let inside = vec4u(column, column + 1u, column + 2u, column + 3u) < vec4u(end);
  let surprise = select(vec4f(), total - logits, inside); // -log p, in nats
  return Sums(
    sums.entropy + dot(exp(-surprise), surprise),
    sums.logits + dot(select(vec4f(), logits, inside), vec4f(1.0)),
  );
}

@compute @workgroup_size(${tile.groupSize})
fn main(${tile.parameters}) {
  // Rows first, so that a split's part of the table is read once into the caches.
  let firstRow = group.x * ${tile.rows}u;
  let start = group.y * u.splitColumns;
  let end = min(start + u.splitColumns, u.N);
  ${tile.setup}
  ${tile.sums
    .map(
      ({ row }, i) => `var sums${i} = Sums(0.0, 0.0);
  let total${i} = logSumExp[min(${row}, u.M - 1u)];`,
    )
    .join("\n  ")}
  for (var firstColumn = start; firstColumn < end; firstColumn += ${tile.columns}u) {
    ${tile.product}
    ${tile.sums.map(({ name }, i) => `sums${i} = take(sums${i}, ${name}, column, end, total${i});`).join("\n    ")}
  }
  let base = (u.firstSplit + group.y) * u.M;
  ${tile.sums
    .map(
      ({ row }, i) => `{
    let entropy = columnsSum(sums${i}.entropy, lane);
    let logits = columnsSum(sums${i}.logits, lane);
    if (${tile.leads} && ${row} < u.M) {
      partials[2u * (base + ${row})] = entropy;
      partials[2u * (base + ${row}) + 1u] = logits;
    }
  }`,
    )
    .join("\n  ")}
}`,
    grid: ({ M: rows = 0, N: columns = 0, splitColumns = 1 }) => [
      Math.ceil(rows / tile.rows),
      Math.ceil(columns / splitColumns),
    ],
    cost: ({ M: rows = 0, N: columns = 0, K: inner = 0 }) => ({
      flops: 2 * rows * columns * inner + 5 * rows * columns,
      bytes: 4 * (rows * inner + columns * inner),
    }),
  });
}

/** partials [splits, N, 2] -> entropies [N], meanLogits [N]; `V` tokens of the vocabulary. */
export const logitStatisticsCombine = kernel({
  name: "logitStatisticsCombine",
  read: { partials: "f32[splits, N, 2]" },
  write: { entropies: "f32[N]", meanLogits: "f32[N]" },
  uniforms: { N: "u32", splits: "u32", V: "u32" },
  wgsl: /* wgsl */ `
fn element(row: u32) {
  var entropy = 0.0;
  var logits = 0.0;
  for (var split = 0u; split < u.splits; split++) {
    let at = 2u * (split * u.N + row);
    entropy += partials[at];
    logits += partials[at + 1u];
  }
  entropies[row] = entropy;
  meanLogits[row] = logits / f32(u.V);
}
${elementwise("u.N")}`,
  grid: ({ N = 0 }) => elementwiseGrid(N),
  cost: ({ N = 0, splits = 0 }) => ({ flops: 2 * N * splits, bytes: 8 * N * splits }),
});
