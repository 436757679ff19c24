/**
 * The step from one generated token to the next without the host: the likeliest token of each row of logits, and the
 * rows of the next pass, which is about these tokens. Sampling from probabilities is not here but in the engine's
 * `sample.ts`.
 *
 *   best[n] = max over j of logits[n, j],   token[n] = the least j with that logit
 *
 * A row with a logit that is not finite has no likeliest token, NO_TOKEN.
 */
import { NO_ROW } from "./embedding.ts";
import { kernel } from "./kernel.ts";
import { inVectors } from "./wgsl.ts";

/** What stands for the token of a row whose logits are not all finite. */
export const NO_TOKEN = 0xffffffff;

/** Invocations that share a row. */
const ROW_GROUP = 128;

/**
 * logits [N, V], the tokens from `firstToken` on -> best [N], tokens [N]. A vocabulary in several windows takes one
 * dispatch for each, from the first on: the best so far is kept.
 */
export const likeliestToken = inVectors(
  ({ V }) => [V],
  (lanes) =>
    kernel({
      name: "likeliestToken",
      read: { logits: `f32[N, V]${lanes.view}` },
      write: { best: "f32[N]", tokens: "u32[N]" },
      uniforms: { N: "u32", V: "u32", firstToken: "u32" },
      wgsl: /* wgsl */ `${lanes.wgsl}
var<workgroup> groupBest: array<f32, ${ROW_GROUP}>;
var<workgroup> groupToken: array<u32, ${ROW_GROUP}>;
const NO_TOKEN: u32 = ${NO_TOKEN}u;
// By its bits: compilers may take it for granted that numbers are finite.
fn isFinite(x: f32) -> bool { return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u; }
@compute @workgroup_size(${ROW_GROUP})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = group.x;
  let width = u.V / LANES;
  var most = -3.4e38;
  var token = NO_TOKEN - 1u;
  var finite = true;
  for (var i = lane; i < width; i += ${ROW_GROUP}u) {
    let logit = logits[row * width + i];
    ${
      lanes.count === 1
        ? "if (logit > most) { most = logit; token = i; } finite &= isFinite(logit);"
        : ["x", "y", "z", "w"]
            .map(
              (c, at) =>
                `if (logit.${c} > most) { most = logit.${c}; token = 4u * i + ${at}u; } finite &= isFinite(logit.${c});`,
            )
            .join("\n    ")
    }
  }
  groupBest[lane] = most;
  groupToken[lane] = select(NO_TOKEN, token, finite);
  workgroupBarrier();
  for (var half = ${ROW_GROUP / 2}u; half > 0u; half /= 2u) {
    if (lane < half) {
      let own = groupToken[lane];
      let other = groupToken[lane + half];
      let wins = groupBest[lane + half] > groupBest[lane] || (groupBest[lane + half] == groupBest[lane] && other < own);
      if (own != NO_TOKEN && (other == NO_TOKEN || wins)) {
        groupBest[lane] = groupBest[lane + half];
        groupToken[lane] = other;
      }
    }
    workgroupBarrier();
  }
  if (lane == 0u) {
    let found = groupToken[0];
    let before = u.firstToken > 0u;
    if (!before || (tokens[row] != NO_TOKEN && (found == NO_TOKEN || groupBest[0] > best[row]))) {
      best[row] = groupBest[0];
      tokens[row] = select(found + u.firstToken, NO_TOKEN, found == NO_TOKEN);
    }
  }
}`,
      grid: ({ N = 0 }) => [N],
      cost: ({ N = 0, V = 0 }) => ({ flops: N * V, bytes: 4 * N * V }),
    }),
);

/**
 * Makes the rows of the pass that was run [T] those of the next one, whose tokens are `chosen` [T]: each one position
 * further, and seeing one key more, or, within a sliding window of `window` positions, the same number. Ranges and rows
 * of the cache are those of `Generator`; a row whose cache row is NO_ROW is padding and stays.
 */
export const nextRows = kernel({
  name: "nextRows",
  read: { chosen: "u32[T]" },
  write: {
    tokens: "u32[T]",
    positions: "u32[T]",
    ranges: "u32[T, 4]",
    windowRanges: "u32[T, 4]",
    cacheRows: "u32[T]",
  },
  uniforms: { T: "u32", window: "u32" },
  wgsl: /* wgsl */ `
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let row = id.x;
  if (row >= u.T || cacheRows[row] == ${NO_ROW}u) { return; }
  let position = positions[row] + 1u;
  let own = cacheRows[row] + 1u;
  tokens[row] = chosen[row];
  positions[row] = position;
  cacheRows[row] = own;
  ranges[4u * row + 3u] = own + 1u;
  windowRanges[4u * row + 2u] = own - min(position, u.window - 1u);
  windowRanges[4u * row + 3u] = own + 1u;
}`,
  grid: ({ T = 0 }) => [Math.ceil(T / 64)],
  cost: ({ T = 0 }) => ({ flops: 0, bytes: 48 * T }),
});
