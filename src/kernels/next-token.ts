/**
 * The step from one generated token to the next without the host: the token that follows each row of logits, and the
 * rows of the next pass, which is about these tokens. Sampling from a part of the vocabulary is not here but in the
 * engine's `sample.ts`.
 *
 *   token[n] = the least j with the largest logits[n, j] + T g[j],   g[j] = -log(-log(1 - v[j])),   v[j] = (bits + 1/2) / 2^32
 *
 * At the temperature T = 0 that is the likeliest token. Above it g has the standard Gumbel distribution, and the token is
 * drawn with the probability softmax(logits / T) (Gumbel 1954). The bits are a function of the row's key, the token's
 * position in its sequence and j alone: Threefry-2x32 with 20 rounds (Salmon et al. 2011, "Parallel random numbers: as
 * easy as 1, 2, 3"), which needs no more than 32-bit additions, turns and exclusive ors.
 *
 * A row with a logit that is not finite has no token, NO_TOKEN.
 */
import { NO_ROW } from "./embedding.ts";
import { kernel } from "./kernel.ts";
import { COMPONENTS, inVectors, type Lanes, range } from "./wgsl.ts";

/** What stands for the token of a row whose logits are not all finite. */
export const NO_TOKEN = 0xffffffff;

/** Temperatures above it draw as it does: nothing of the logits is left then. f32 holds it times any g. */
export const HIGHEST_TEMPERATURE = 1e30;

/** Numbers of a row in `draws`: the two words of its key, the position of the token to come, T as f32 bits. */
export const DRAW_WORDS = 4;

/** Invocations that share a row. */
const ROW_GROUP = 128;

/** How far Threefry-2x32 turns a word in its rounds, over and over. */
export const THREEFRY_TURNS = [13, 15, 26, 6, 17, 29, 16, 24] as const;
/** What the third word of its key schedule is made with. */
export const THREEFRY_PARITY = 0x1bd11bda;

/** `threefry(key, counter)`: five times four rounds, after each of which two words of the key and its number are added. */
const THREEFRY = /* wgsl */ `
fn threefry(key: vec2u, counter: vec2u) -> vec2u {
  let third = key.x ^ key.y ^ ${THREEFRY_PARITY}u;
  var x = counter + key;
  ${range(5)
    .map((four) => {
      const words = ["key.x", "key.y", "third"];
      const [first, second] = [words[(four + 1) % 3], words[(four + 2) % 3]];
      const rounds = range(4).map((round) => {
        const turn = THREEFRY_TURNS[(4 * four + round) % 8] ?? 0;
        return `x.x += x.y; x.y = ((x.y << ${turn}u) | (x.y >> ${32 - turn}u)) ^ x.x;`;
      });
      return [...rounds, `x += vec2u(${first}, ${second} + ${four + 1}u);`].join("\n  ");
    })
    .join("\n  ")}
  return x;
}`;

/**
 * `noise(draw, i)`: g of an element's tokens. f32 keeps the smallest v, which decide what is drawn, to all their digits;
 * below 1/16 the series of log(1 - v) does too, where WGSL promises an absolute error alone.
 */
const noise = ({ count }: Lanes): string => /* wgsl */ `${THREEFRY}
fn noise(draw: vec4u, i: u32) -> E {
  ${
    count === 4
      ? "let words = vec4u(threefry(draw.xy, vec2u(2u * i, draw.z)), threefry(draw.xy, vec2u(2u * i + 1u, draw.z)));"
      : "let pair = threefry(draw.xy, vec2u(i / 2u, draw.z));\n  let words = select(pair.x, pair.y, (i & 1u) == 1u);"
  }
  let v = min((E(words) + 0.5) * ${2 ** -32}, E(${1 - 2 ** -24}));
  let series = v * (1.0 + v * (1.0 / 2.0 + v * (1.0 / 3.0 + v * (1.0 / 4.0 + v * (1.0 / 5.0 + v / 6.0)))));
  return -log(select(-log(1.0 - v), series, v < E(0.0625)));
}`;

const choice = (name: string, draws: boolean) =>
  inVectors(
    ({ V, firstToken }) => [V, firstToken],
    (lanes) =>
      kernel({
        name,
        read: { logits: `f32[N, V]${lanes.view}`, draws: `u32[N, ${DRAW_WORDS}] as vec4u` },
        write: { best: "f32[N]", tokens: "u32[N]" },
        uniforms: { N: "u32", V: "u32", firstToken: "u32" },
        wgsl: /* wgsl */ `${lanes.wgsl}${draws ? noise(lanes) : ""}
var<workgroup> groupBest: array<f32, ${ROW_GROUP}>;
var<workgroup> groupToken: array<u32, ${ROW_GROUP}>;
const NO_TOKEN: u32 = ${NO_TOKEN}u;
// By its bits: compilers may take it for granted that numbers are finite.
fn isFinite(x: f32) -> bool { return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u; }
@compute @workgroup_size(${ROW_GROUP})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = group.x;
  let width = u.V / LANES;
  let draw = draws[row];${draws ? "\n  let temperature = bitcast<f32>(draw.w);" : ""}
  var most = -3.4e38;
  var token = NO_TOKEN - 1u;
  var finite = true;
  for (var i = lane; i < width; i += ${ROW_GROUP}u) {
    let logit = logits[row * width + i];
    var value = logit;${draws ? "\n    if (temperature > 0.0) { value += temperature * noise(draw, i + u.firstToken / LANES); }" : ""}
    ${(lanes.count === 1 ? [""] : COMPONENTS.map((c) => `.${c}`))
      .map(
        (c, at) =>
          `if (value${c} > most) { most = value${c}; token = LANES * i + ${at}u; } finite &= isFinite(logit${c});`,
      )
      .join("\n    ")}
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
 * logits [N, V], the tokens from `firstToken` on, draws [N, 4] -> best [N], tokens [N]. A vocabulary in several windows
 * takes one dispatch for each, from the first on: the best so far is kept.
 */
export const nextToken = choice("nextToken", true);

/**
 * `nextToken` for rows whose temperatures are all 0, without the branch, of which software adapters compute both sides.
 */
export const likeliestToken = choice("likeliestToken", false);

/**
 * Makes the rows of the pass that was run [T] those of the next one, whose tokens are `chosen` [T]: each one position
 * further, and seeing one key more, or, within a sliding window of `window` positions, the same number; what is drawn
 * with them is a position further too. Ranges and rows of the cache are those of `Generator`; a row whose cache row is
 * NO_ROW is padding and stays.
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
    draws: `u32[T, ${DRAW_WORDS}]`,
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
  draws[${DRAW_WORDS}u * row + 2u] = position + 1u;
}`,
  grid: ({ T = 0 }) => [Math.ceil(T / 64)],
  cost: ({ T = 0 }) => ({ flops: 0, bytes: 56 * T }),
});
