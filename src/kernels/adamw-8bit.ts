/**
 * AdamW (`adamw.ts`) over one parameter whose moments are kept as codes of eight bits, two bytes a parameter instead of
 * eight (Dettmers et al. 2022): in blocks of 256 a moment is table[code] times the block's largest magnitude. The update
 * uses the moments before they are rounded to the nearest code; a second moment above 0 never becomes 0.
 */
import { STEP_NUMBERS } from "./adamw.ts";
import { MOMENT_BLOCK } from "./dynamic-map.ts";
import { kernel } from "./kernel.ts";
import { OPTIMIZER_STATE } from "./reduce.ts";
import { linearGrid, linearGroup, unknownCount } from "./wgsl.ts";

/** Invocations of a workgroup, which takes one block: each four moments, which share a word of codes. */
const GROUP = MOMENT_BLOCK / 4;

/**
 * parameter [n], gradient [n]; first, second [ceil(n / 4)] four codes a word, the lowest byte first; scales
 * [ceil(n / 256), 2] of both moments; table [512]: the values of the first moment's codes, then of the second's. Memory
 * of zeros holds moments of 0, since its scales are 0.
 */
export const adamw8bit = kernel({
  name: "adamw8bit",
  read: {
    gradient: "f32[n]",
    state: `f32[${OPTIMIZER_STATE.size}]`,
    step: `f32[${STEP_NUMBERS.size}]`,
    table: "f32[512]",
  },
  write: { parameter: "f32[n]", first: "u32[w]", second: "u32[w]", scales: "f32[b, 2]" },
  uniforms: {
    n: "u32",
    beta1: "f32",
    beta2: "f32",
    complement1: "f32",
    complement2: "f32",
    epsilon: "f32",
    weightDecay: "f32",
  },
  wgsl: /* wgsl */ `${linearGroup}
const GROUP: u32 = ${GROUP}u;
var<workgroup> largest: array<vec2f, GROUP>;

fn decoded(codes: u32, values: u32) -> vec4f {
  return vec4f(
    table[values + (codes & 255u)],
    table[values + ((codes >> 8u) & 255u)],
    table[values + ((codes >> 16u) & 255u)],
    table[values + (codes >> 24u)],
  );
}

// The code whose value is nearest to x, of the ascending 256 that begin at this place.
fn nearest(x: f32, values: u32) -> u32 {
  var low = 0u;
  for (var half = ${unknownCount(128, "u.n")}; half > 0u; half /= 2u) {
    if (table[values + low + half] <= x) { low += half; }
  }
  let above = min(low + 1u, 255u);
  return select(low, above, x > 0.5 * (table[values + low] + table[values + above]));
}

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let block = linearGroup(group);
  if (block * ${MOMENT_BLOCK}u >= u.n || state[${OPTIMIZER_STATE.skipped}] != 0.0) { return; }
  let word = block * GROUP + lane;
  let here = min(4u, max(u.n, 4u * word) - 4u * word);
  var m = vec4f();
  var v = vec4f();
  if (here > 0u) {
    m = decoded(first[word], 0u) * scales[2u * block];
    v = decoded(second[word], 256u) * scales[2u * block + 1u];
  }
  let learningRate = step[${STEP_NUMBERS.learningRate}];
  for (var j = 0u; j < here; j++) {
    let i = 4u * word + j;
    let g = gradient[i] * state[${OPTIMIZER_STATE.clipScale}];
    m[j] = u.beta1 * m[j] + u.complement1 * g;
    v[j] = u.beta2 * v[j] + u.complement2 * g * g;
    let direction = (m[j] / state[${OPTIMIZER_STATE.correction1}])
      / (sqrt(v[j] / state[${OPTIMIZER_STATE.correction2}]) + u.epsilon);
    parameter[i] = parameter[i] * (1.0 - learningRate * u.weightDecay) - learningRate * direction;
  }
  // Codes beyond the last parameter stand for nothing.
  for (var j = here; j < 4u; j++) {
    m[j] = 0.0;
    v[j] = 0.0;
  }
  let magnitudes = abs(m);
  largest[lane] = vec2f(
    max(max(magnitudes.x, magnitudes.y), max(magnitudes.z, magnitudes.w)),
    max(max(v.x, v.y), max(v.z, v.w)),
  );
  workgroupBarrier();
  for (var stride = GROUP / 2u; stride > 0u; stride /= 2u) {
    if (lane < stride) { largest[lane] = max(largest[lane], largest[lane + stride]); }
    workgroupBarrier();
  }
  let scale = largest[0];
  if (here > 0u) {
    var codes = vec2u();
    for (var j = 0u; j < ${unknownCount(4, "u.n")}; j++) {
      let x = select(0.0, m[j] / scale.x, scale.x > 0.0);
      let y = select(0.0, v[j] / scale.y, scale.y > 0.0);
      let least = select(0u, 1u, v[j] > 0.0);
      codes |= vec2u(nearest(x, 0u), max(least, nearest(y, 256u))) << vec2u(8u * j);
    }
    first[word] = codes.x;
    second[word] = codes.y;
  }
  if (lane == 0u) {
    scales[2u * block] = scale.x;
    scales[2u * block + 1u] = scale.y;
  }
}`,
  grid: ({ n = 0 }) => linearGrid(Math.ceil(n / MOMENT_BLOCK)),
  cost: ({ n = 0 }) => ({ flops: 60 * n, bytes: 16 * n }),
});
