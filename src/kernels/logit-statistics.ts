/**
 * Metrics of whole rows of logits: the entropy of their softmax and the mean logit. Not the log-probability of a
 * target, which is `log-softmax-gather`.
 *
 *   logits = hidden table^T                                            hidden [N, C], table [V, C] in any stored format
 *   entropy[n] = sum_v p[n, v] (logSumExp[n] - logits[n, v]),          p = exp(logits - logSumExp), in nats
 *   meanLogit[n] = sum_v logits[n, v] / V
 *
 * A pass of its own after pass 1 of `log-softmax-gather`, which gives logSumExp, and not two more sums in that pass: a
 * run without these metrics does not pay for them, and training runs the same text with and without, so that asking for
 * metrics cannot change its bits. The [tokens, vocabulary] matrix never exists here either.
 */
import { type Kernel, kernel, type WeightFormat } from "./kernel.ts";
import { PASS_UNIFORMS, vocabularyGrid, vocabularyPass } from "./log-softmax-pass.ts";
import { operandBindings } from "./matmul-loads.ts";
import { matmulTile } from "./matmul-tile.ts";
import { type MatmulVariant, tiledKernel } from "./matmul-variant.ts";
import { cachesByCap, cappedLogits } from "./scale.ts";
import { type AdapterFacts, elementwise, elementwiseGrid } from "./wgsl.ts";

type StatisticsKernel = Kernel<"a" | "b" | "logSumExp" | "partials", keyof typeof PASS_UNIFORMS>;

const cache = cachesByCap<StatisticsKernel>();

/**
 * One window of the table: a = hidden [M, K], b = N rows of the table. Writes partials [splits, M, 2] = (sum of
 * p (logSumExp - logit), sum of logits) for its splits from `firstSplit` on, each of `splitColumns` tokens.
 */
export function logitStatistics(
  M: number,
  N: number,
  K: number,
  facts: AdapterFacts,
  format: WeightFormat = "f32",
  cap?: number,
): StatisticsKernel {
  return tiledKernel("NT", { M, N, K }, facts, { format }, cache(cap), (variant) => buildStatistics(variant, cap));
}

function buildStatistics(variant: MatmulVariant, cap: number | undefined): StatisticsKernel {
  const tile = matmulTile(variant);
  const { functions, parameter, logits } = cappedLogits(cap);
  return kernel({
    name: "logitStatistics",
    read: { ...operandBindings(variant), logSumExp: "f32[M]" },
    write: { partials: "f32[splits, M, 2]" },
    uniforms: PASS_UNIFORMS,
    enable: tile.enable,
    divisible: true,
    wgsl: /* wgsl */ `
struct Kept { entropy: f32, logits: f32 }
const NOTHING = Kept(0.0, 0.0);
${functions}
/// \`total\` is the row's log-sum-exp.
fn take(kept: Kept, ${parameter}: vec4f, column: u32, end: u32, total: f32) -> Kept {${logits}
  let inside = vec4u(column, column + 1u, column + 2u, column + 3u) < vec4u(end);
  let surprise = select(vec4f(), total - logits, inside); // -log p, in nats
  return Kept(
    kept.entropy + dot(exp(-surprise), surprise),
    kept.logits + dot(select(vec4f(), logits, inside), vec4f(1.0)),
  );
}
${vocabularyPass(tile, {
  givenType: "f32",
  given: "logSumExp[row]",
  reduce: "let entropy = columnsSum(kept.entropy, lane); let logits = columnsSum(kept.logits, lane);",
  store: "partials[2u * at] = entropy; partials[2u * at + 1u] = logits;",
})}`,
    grid: ({ M: rows = 0, N: columns = 0, splitColumns = 1 }) => vocabularyGrid(tile, rows, columns, splitColumns),
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
