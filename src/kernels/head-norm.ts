/**
 * RMSNorm over every query and key head of fused rows [q | k | v], as in Qwen3: each head is a vector of D numbers with
 * its own mean square; all query heads share one weight of D numbers, all key heads another. Or, as in OLMo 2, over all
 * query heads together and all key heads together ("width"): two vectors a row, each with a weight as wide as it is.
 *
 *   y = xhat weight,   xhat = x inverse,   inverse = 1 / sqrt(mean_d(x^2) + epsilon)
 *   dx = inverse (g - xhat mean_d(g xhat)),   g = dy weight,   dWeight = sum over rows and heads of dy xhat
 *
 * In place on the rows; xhat and inverse are kept for the backward pass, since x cannot be computed from y where a
 * weight is 0. The two weights are one vector, [query weight; key weight].
 */
import { kernel } from "./kernel.ts";
import { byOffset } from "./norm.ts";
import {
  type AdapterFacts,
  type Lanes,
  linearGrid,
  linearGroup,
  ofActivations,
  reduction,
  rowElements,
  rowElementsGrid,
} from "./wgsl.ts";

/** What one mean square is taken over: a head, or all heads of queries or of keys. */
type Span = "head" | "width";

/** The dimensions of a span's weights and of its inverses of a row, and WGSL: its length in numbers. */
const SPANS = {
  head: { weights: "2*D", inverses: "heads", spansOf: (heads: number) => heads, length: "u.D" },
  width: { weights: "heads*D", inverses: "2", spansOf: () => 2, length: "(size * LANES)" },
} as const;

/** WGSL: where the span of a workgroup lies. */
const PLACES = {
  head: /* wgsl */ `
  if (index >= u.T * u.heads) { return; }
  let row = index / u.heads;
  let head = index - row * u.heads;
  let size = u.D / LANES;
  let at = row * (u.W / LANES) + head * size;
  let kept = index * size;
  let weightAt = select(size, 0u, head < u.queryHeads);`,
  width: /* wgsl */ `
  if (index >= u.T * 2u) { return; }
  let row = index / 2u;
  let ofKeys = index - row * 2u == 1u;
  let all = u.heads * (u.D / LANES);
  let queries = u.queryHeads * (u.D / LANES);
  let size = select(queries, all - queries, ofKeys);
  let weightAt = select(0u, queries, ofKeys);
  let at = row * (u.W / LANES) + weightAt;
  let kept = row * all + weightAt;`,
};

/**
 * One workgroup per row and span. In scope: `index` (of the span among all rows'), `at` (its first element in the fused
 * rows), its `size` in elements, `kept` (its first in the kept ones), `weightAt` (its weight's first) and `lane`.
 */
function spanKernel(
  facts: AdapterFacts,
  lanes: Lanes,
  span: Span,
  body: string,
): { enable: readonly string[]; wgsl: string } {
  const reduce = reduction(facts);
  return {
    enable: reduce.enable,
    wgsl: /* wgsl */ `${lanes.wgsl}${linearGroup}${reduce.wgsl}
@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let index = linearGroup(group);${PLACES[span]}
${body}
}`,
  };
}

const UNIFORMS = { T: "u32", W: "u32", D: "u32", heads: "u32", queryHeads: "u32" } as const;

const forward = (span: Span) =>
  byOffset(
    (gain) => (facts) =>
      ofActivations(
        ({ D, W }) => [D, W],
        (lanes) =>
          kernel({
            name: `${span}NormForward`,
            read: { weight: `f32[${SPANS[span].weights}]${lanes.view}` },
            write: {
              x: lanes.activations("T, W"),
              normed: lanes.activations("T, heads*D"),
              inverse: `f32[T, ${SPANS[span].inverses}]`,
            },
            uniforms: { ...UNIFORMS, epsilon: "f32" },
            ...spanKernel(
              facts,
              lanes,
              span,
              /* wgsl */ `
  var squares = E();
  for (var d = lane; d < size; d += GROUP) { squares += E(x[at + d]) * E(x[at + d]); }
  let scale = inverseSqrt(reduceSum(total(squares), lane) / f32(${SPANS[span].length}) + u.epsilon);
  for (var d = lane; d < size; d += GROUP) {
    let xhat = E(x[at + d]) * scale;
    normed[kept + d] = A(xhat);
    x[at + d] = A(xhat * ${gain("weightAt + d")});
  }
  if (lane == 0u) { inverse[index] = scale; }`,
            ),
            grid: ({ T = 0, heads = 0 }) => linearGrid(T * SPANS[span].spansOf(heads)),
            cost: ({ T = 0, heads = 0, D = 0 }) => ({
              flops: 4 * T * heads * D,
              bytes: 3 * lanes.activationBytes * T * heads * D,
            }),
          }),
      ),
  );

/**
 * x [T, W]: its first `heads` heads of size D, the first `queryHeads` of them queries, are normed in place; weight
 * [2 D]
 * -> normed [T, heads D] = xhat, inverse [T, heads].
 */
export const headNormForward = forward("head");

/**
 * x [T, W] like `headNormForward`, normed over all query heads at once and over all key heads at once: weight [heads D]
 * -> normed [T, heads D] = xhat, inverse [T, 2].
 */
export const widthNormForward = forward("width");

const backward = (span: Span) =>
  byOffset(
    (gain) => (facts) =>
      ofActivations(
        ({ D, W }) => [D, W],
        (lanes) =>
          kernel({
            name: `${span}NormBackward`,
            read: {
              weight: `f32[${SPANS[span].weights}]${lanes.view}`,
              normed: lanes.activations("T, heads*D"),
              inverse: `f32[T, ${SPANS[span].inverses}]`,
            },
            write: { dx: `f32[T, W]${lanes.view}` },
            uniforms: UNIFORMS,
            ...spanKernel(
              facts,
              lanes,
              span,
              /* wgsl */ `
  var along = E();
  for (var d = lane; d < size; d += GROUP) { along += dx[at + d] * ${gain("weightAt + d")} * E(normed[kept + d]); }
  let meanAlong = reduceSum(total(along), lane) / f32(${SPANS[span].length});
  for (var d = lane; d < size; d += GROUP) {
    let g = dx[at + d] * ${gain("weightAt + d")};
    dx[at + d] = inverse[index] * (g - E(normed[kept + d]) * meanAlong);
  }`,
            ),
            grid: ({ T = 0, heads = 0 }) => linearGrid(T * SPANS[span].spansOf(heads)),
            cost: ({ T = 0, heads = 0, D = 0 }) => ({
              flops: 8 * T * heads * D,
              bytes: (8 + lanes.activationBytes) * T * heads * D,
            }),
          }),
      ),
  );

/** dx [T, W]: dy in its first `heads` heads becomes the gradient before the norm, in place; other columns stay. */
export const headNormBackward = backward("head");

/** dx [T, W] as in `headNormBackward`, for `widthNormForward`: weight [heads D], inverse [T, 2]. */
export const widthNormBackward = backward("width");

/**
 * dy [T, W], normed [T, heads D], `heads` given -> partials [G, 2 D]: per block of rows the sum of dy xhat over its
 * rows and heads, the gradient of both weights.
 */
export const headNormWeightPartials = ofActivations(
  ({ D, W }) => [D, W],
  (lanes) =>
    kernel({
      name: "headNormWeightPartials",
      read: { dy: `f32[T, W]${lanes.view}`, normed: lanes.activations("T, heads*D") },
      write: { partials: `f32[G, 2*D]${lanes.view}` },
      uniforms: { ...UNIFORMS, G: "u32" },
      wgsl: /* wgsl */ `${lanes.wgsl}
fn element(block: u32, c: u32) {
  let size = u.D / LANES;
  let width = u.W / LANES;
  let rowsPerBlock = (u.T + u.G - 1u) / u.G;
  let first = block * rowsPerBlock;
  let ofKeys = c >= size;
  let d = select(c, c - size, ofKeys);
  let firstHead = select(0u, u.queryHeads, ofKeys);
  let endHead = select(u.queryHeads, u.heads, ofKeys);
  var sum = E();
  for (var row = first; row < min(first + rowsPerBlock, u.T); row++) {
    for (var head = firstHead; head < endHead; head++) {
      sum += dy[row * width + head * size + d] * E(normed[(row * u.heads + head) * size + d]);
    }
  }
  partials[block * 2u * size + c] = sum;
}
${rowElements("u.G", "2u * (u.D / LANES)")}`,
      grid: ({ G = 0, D = 0 }) => rowElementsGrid(G, (2 * D) / lanes.count),
      cost: ({ T = 0, heads = 0, D = 0 }) => ({
        flops: 2 * T * heads * D,
        bytes: (4 + lanes.activationBytes) * T * heads * D,
      }),
    }),
);

/** dy [T, W], normed [T, heads D], `heads` given -> partials [G, heads D], the same for `widthNormForward`. */
export const widthNormWeightPartials = ofActivations(
  ({ D, W }) => [D, W],
  (lanes) =>
    kernel({
      name: "widthNormWeightPartials",
      read: { dy: `f32[T, W]${lanes.view}`, normed: lanes.activations("T, heads*D") },
      write: { partials: `f32[G, heads*D]${lanes.view}` },
      uniforms: { ...UNIFORMS, G: "u32" },
      wgsl: /* wgsl */ `${lanes.wgsl}
fn element(block: u32, c: u32) {
  let all = u.heads * (u.D / LANES);
  let rowsPerBlock = (u.T + u.G - 1u) / u.G;
  let first = block * rowsPerBlock;
  var sum = E();
  for (var row = first; row < min(first + rowsPerBlock, u.T); row++) {
    sum += dy[row * (u.W / LANES) + c] * E(normed[row * all + c]);
  }
  partials[block * all + c] = sum;
}
${rowElements("u.G", "u.heads * (u.D / LANES)")}`,
      grid: ({ G = 0, heads = 0, D = 0 }) => rowElementsGrid(G, (heads * D) / lanes.count),
      cost: ({ T = 0, heads = 0, D = 0 }) => ({
        flops: 2 * T * heads * D,
        bytes: (4 + lanes.activationBytes) * T * heads * D,
      }),
    }),
);
