/**
 * The language-model head, fused with log-softmax and gather: log-probabilities of given tokens without ever forming
 * the [tokens, vocabulary] matrix.
 *
 *   logits = hidden table^T                                  hidden [N, C], table [V, C] in any stored format;
 *                                                            with a soft cap (Gemma) each becomes cap tanh(logit / cap)
 *   logProb[n] = logits[n, target[n]] - logSumExp(logits[n])
 *   dLogits[n, v] = coefficient[n] (onehot(target[n])[v] - softmax(logits[n])[v])      by what is capped where there is one
 *   dHidden = dLogits table,  dTable += dLogits^T hidden
 *
 * Pass 1 runs over the vocabulary in splits, keeping a running maximum and sum per row in registers (the online
 * log-sum-exp of Milakov and Gimelshein, 2018); two numbers per row and split are written, then combined. Pass 2 is
 * given one coefficient per sequence, recomputes the logits of one window of the vocabulary at a time into dLogits of
 * that window, and two ordinary matmuls follow (`matmul`). The caller walks the windows.
 */
import { type Kernel, kernel, type WeightFormat } from "./kernel.ts";
import { PASS_UNIFORMS, vocabularyGrid, vocabularyPass } from "./log-softmax-pass.ts";
import { operandBindings } from "./matmul-loads.ts";
import { eachRow, matmulTile, tileGrid, tileOrigin } from "./matmul-tile.ts";
import { MATMUL_UNIFORMS, type MatmulVariant, tiledKernel } from "./matmul-variant.ts";
import { cachesByCap, cappedLogits } from "./scale.ts";
import { type AdapterFacts, elementwise, elementwiseGrid } from "./wgsl.ts";

/** Lower than any logit; finite, since WGSL compilers may assume that infinities do not occur. */
const LOWEST = "-3.0e38";

/** A head row that belongs to no sequence: its coefficient is zero. */
export const NO_SEQUENCE = 0xffffffff;

type ForwardKernel = Kernel<
  "a" | "b" | "targets" | "partials" | "targetLogits",
  keyof typeof PASS_UNIFORMS | "windowStart"
>;
type GradientKernel = Kernel<
  "a" | "b" | "targets" | "sequences" | "logSumExp" | "coefficients" | "dLogits",
  keyof typeof MATMUL_UNIFORMS | "S" | "windowStart"
>;

const forwardCache = cachesByCap<ForwardKernel>();
const gradientCache = cachesByCap<GradientKernel>();

/**
 * Pass 1 over one window of the table: a = hidden [M, K], b = table rows [windowStart, windowStart + N). Writes
 * partials [splits, M, 2] = (maximum, sum of exp(logit - maximum)) for its splits from `firstSplit` on, each of
 * `splitColumns` tokens, and the target's logit where the target lies in the window.
 *
 * @param vocabulary rows of the whole table, by which its tile is chosen
 */
export function logSoftmaxGatherForward(
  M: number,
  N: number,
  K: number,
  facts: AdapterFacts,
  format: WeightFormat = "f32",
  vocabulary = N,
  cap?: number,
): ForwardKernel {
  const operands = { format, whole: { M, N: vocabulary, K } };
  return tiledKernel("NT", { M, N, K }, facts, operands, forwardCache(cap), (variant) => buildForward(variant, cap));
}

function buildForward(variant: MatmulVariant, cap: number | undefined): ForwardKernel {
  const tile = matmulTile(variant);
  const { functions, parameter, logits } = cappedLogits(cap);
  return kernel({
    name: "logSoftmaxGatherForward",
    read: { ...operandBindings(variant), targets: "u32[M]" },
    write: { partials: "f32[splits, M, 2]", targetLogits: "f32[M]" },
    uniforms: { ...PASS_UNIFORMS, windowStart: "u32" },
    enable: tile.enable,
    divisible: true,
    wgsl: /* wgsl */ `
/// Of the columns so far: the highest logit, the sum of exp(logit - highest), and the target's logit if it is one of them.
struct Kept { highest: f32, sum: f32, goal: f32 }
const NOTHING = Kept(${LOWEST}, 0.0, 0.0);
${functions}
fn take(kept: Kept, ${parameter}: vec4f, column: u32, end: u32, goal: u32) -> Kept {${logits}
  let columns = vec4u(column, column + 1u, column + 2u, column + 3u);
  let inside = columns < vec4u(end);
  let x = select(vec4f(${LOWEST}), logits, inside);
  let highest = max(kept.highest, max(max(x.x, x.y), max(x.z, x.w)));
  let terms = select(vec4f(), exp(x - highest), inside);
  let hits = select(vec4f(), logits, columns == vec4u(goal)); // no branch, which compiles slowly here
  return Kept(
    highest,
    kept.sum * exp(kept.highest - highest) + dot(terms, vec4f(1.0)),
    kept.goal + dot(hits, vec4f(1.0)),
  );
}
${vocabularyPass(tile, {
  givenType: "u32",
  given: "targets[row] - u.windowStart",
  reduce: /* wgsl */ `let highest = columnsMax(kept.highest, lane);
    let sum = columnsSum(kept.sum * exp(kept.highest - highest), lane);
    let goal = columnsSum(kept.goal, lane);`,
  store: /* wgsl */ `partials[2u * at] = highest;
      partials[2u * at + 1u] = sum;
      if (given >= start && given < end) { targetLogits[row] = goal; }`,
})}`,
    grid: ({ M: rows = 0, N: columns = 0, splitColumns = 1 }) => vocabularyGrid(tile, rows, columns, splitColumns),
    cost: ({ M: rows = 0, N: columns = 0, K: inner = 0 }) => ({
      flops: 2 * rows * columns * inner + 6 * rows * columns,
      bytes: 4 * (rows * inner + columns * inner),
    }),
  });
}

/**
 * Tokens per split of pass 1: a multiple of every tile's width, enough splits to fill a device, few to combine. At most
 * `bindableRows`, the table rows that one binding holds, where that leaves a whole step.
 */
export function tokensPerSplit(vocabularySize: number, bindableRows: number = Number.POSITIVE_INFINITY): number {
  const step = 256;
  const wanted = Math.ceil(vocabularySize / 16 / step);
  return Math.max(1, Math.min(wanted, Math.floor(bindableRows / step))) * step;
}

/** partials [splits, N, 2], targetLogits [N] -> logProbs [N], logSumExp [N]. */
export const logSoftmaxGatherCombine = kernel({
  name: "logSoftmaxGatherCombine",
  read: { partials: "f32[splits, N, 2]", targetLogits: "f32[N]" },
  write: { logProbs: "f32[N]", logSumExp: "f32[N]" },
  uniforms: { N: "u32", splits: "u32" },
  wgsl: /* wgsl */ `
fn element(row: u32) {
  var highest = ${LOWEST};
  for (var split = 0u; split < u.splits; split++) { highest = max(highest, partials[2u * (split * u.N + row)]); }
  var sum = 0.0;
  for (var split = 0u; split < u.splits; split++) {
    let at = 2u * (split * u.N + row);
    sum += partials[at + 1u] * exp(partials[at] - highest);
  }
  let total = highest + log(sum);
  logSumExp[row] = total;
  logProbs[row] = targetLogits[row] - total;
}
${elementwise("u.N")}`,
  grid: ({ N = 0 }) => elementwiseGrid(N),
  cost: ({ N = 0, splits = 0 }) => ({ flops: 4 * N * splits, bytes: 8 * N * splits }),
});

/** hits [N]: 1 where no token has a higher logit than the target, which a tie does not hinder; else 0. After pass 1. */
export const targetHits = kernel({
  name: "targetHits",
  read: { partials: "f32[splits, N, 2]", targetLogits: "f32[N]" },
  write: { hits: "f32[N]" },
  uniforms: { N: "u32", splits: "u32" },
  wgsl: /* wgsl */ `
fn element(row: u32) {
  var highest = ${LOWEST};
  for (var split = 0u; split < u.splits; split++) { highest = max(highest, partials[2u * (split * u.N + row)]); }
  hits[row] = select(0.0, 1.0, targetLogits[row] >= highest);
}
${elementwise("u.N")}`,
  grid: ({ N = 0 }) => elementwiseGrid(N),
  cost: ({ N = 0, splits = 0 }) => ({ flops: N * splits, bytes: 4 * N * splits }),
});

/** sums [S] = per sequence the sum of logProbs over its head rows [ranges[s].x, ranges[s].y). */
export const sequenceSums = kernel({
  name: "sequenceSums",
  read: { logProbs: "f32[N]", ranges: "u32[S, 2]" },
  write: { sums: "f32[S]" },
  uniforms: { S: "u32", N: "u32" },
  wgsl: /* wgsl */ `
// Neumaier's compensated sum: a sequence of a thousand tokens loses no digits that its terms have.
fn element(sequence: u32) {
  var sum = 0.0;
  var lost = 0.0;
  for (var n = ranges[2u * sequence]; n < ranges[2u * sequence + 1u]; n++) {
    let term = logProbs[n];
    let next = sum + term;
    lost += select((term - next) + sum, (sum - next) + term, abs(sum) >= abs(term));
    sum = next;
  }
  sums[sequence] = sum + lost;
}
${elementwise("u.S")}`,
  grid: ({ S = 0 }) => elementwiseGrid(S),
  cost: ({ N = 0 }) => ({ flops: 4 * N, bytes: 4 * N }),
});

/**
 * Pass 2 over one window: dLogits [M, N] = coefficients[sequences[row]] (onehot - softmax) for the table rows from
 * `windowStart`; rows with NO_SEQUENCE give zeros.
 */
export function logSoftmaxGatherGradient(
  M: number,
  N: number,
  K: number,
  facts: AdapterFacts,
  format: WeightFormat = "f32",
  cap?: number,
): GradientKernel {
  return tiledKernel("NT", { M, N, K }, facts, { format }, gradientCache(cap), (variant) =>
    buildGradient(variant, cap),
  );
}

function buildGradient(variant: MatmulVariant, cap: number | undefined): GradientKernel {
  const tile = matmulTile(variant);
  const { functions, parameter, logits } = cappedLogits(cap);
  const store = variant.vectorStores
    ? "if (column < u.N) { dLogits[(row * u.N + column) / 4u] = value; }"
    : `for (var c = 0u; c < 4u; c++) {
    if (column + c < u.N) { dLogits[row * u.N + column + c] = value[c]; }
  }`;
  return kernel({
    name: "logSoftmaxGatherGradient",
    read: {
      ...operandBindings(variant),
      targets: "u32[M]",
      sequences: "u32[M]",
      logSumExp: "f32[M]",
      coefficients: "f32[S]",
    },
    write: { dLogits: `f32[M, N]${variant.vectorStores ? " as vec4f" : ""}` },
    uniforms: { ...MATMUL_UNIFORMS, S: "u32", windowStart: "u32" },
    enable: tile.enable,
    divisible: true,
    wgsl: /* wgsl */ `${tile.declarations}${functions}
fn store(row: u32, column: u32, ${parameter}: vec4f) {${logits}
  var coefficient = 0.0;
  if (sequences[row] < u.S) { coefficient = coefficients[sequences[row]]; }
  let goal = targets[row] - u.windowStart;
  let hit = vec4u(column, column + 1u, column + 2u, column + 3u) == vec4u(goal);
  let value = coefficient * (select(vec4f(), vec4f(1.0), hit) - exp(logits - logSumExp[row]))${cap === undefined ? "" : " * softCapSlope(logits)"};
  ${store}
}

@compute @workgroup_size(${tile.groupSize})
fn main(${tile.parameters}) {${tileOrigin(variant, tile)}
  ${tile.setup}
  ${tile.matmul}
  ${eachRow(tile, "store(row, column, value);")}
}`,
    grid: ({ M: rows = 0, N: columns = 0 }) => tileGrid(variant, tile, rows, columns),
    cost: ({ M: rows = 0, N: columns = 0, K: inner = 0 }) => ({
      flops: 2 * rows * columns * inner + 4 * rows * columns,
      bytes: 4 * (rows * inner + columns * inner + rows * columns),
    }),
  });
}

/** Device bytes that pass 2 may take for the dLogits of one window. */
const WINDOW_BYTES = 32 * 2 ** 20;

/**
 * Tokens per window of pass 2 for `rows` head rows: at most a twelfth of the vocabulary (but at least 128 tokens, since
 * a window costs three dispatches), within the scratch budget and the adapter's largest binding.
 */
export function windowColumns(
  rows: number,
  vocabularySize: number,
  hiddenSize: number,
  maxBindingBytes: number,
): number {
  const bytesPerColumn = 4 * Math.max(rows, hiddenSize);
  const budget = Math.floor(Math.min(WINDOW_BYTES, maxBindingBytes) / bytesPerColumn);
  const wanted = Math.min(budget, Math.max(128, Math.ceil(vocabularySize / 12)));
  // Whole steps of 128 rows: so a window of any width starts aligned, also where numbers take 2 bytes.
  const step = wanted < 128 ? 64 : 128;
  return Math.min(vocabularySize, Math.max(64, Math.floor(wanted / step) * step));
}
