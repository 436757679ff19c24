// adamw8bit: the only one.

struct Uniforms { n: u32, beta1: f32, beta2: f32, complement1: f32, complement2: f32, epsilon: f32, weightDecay: f32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> gradient: array<f32>;
@group(0) @binding(2) var<storage, read> state: array<f32>;
@group(0) @binding(3) var<storage, read> step: array<f32>;
@group(0) @binding(4) var<storage, read> table: array<f32>;
@group(0) @binding(5) var<storage, read_write> parameter: array<f32>;
@group(0) @binding(6) var<storage, read_write> first: array<u32>;
@group(0) @binding(7) var<storage, read_write> second: array<u32>;
@group(0) @binding(8) var<storage, read_write> scales: array<f32>;

fn linearGroup(id: vec3u) -> u32 { return id.x + id.y * 32768u; }

const GROUP: u32 = 64u;
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
  for (var half = (128u + (u.n >> 31u)); half > 0u; half /= 2u) {
    if (table[values + low + half] <= x) { low += half; }
  }
  let above = min(low + 1u, 255u);
  return select(low, above, x > 0.5 * (table[values + low] + table[values + above]));
}

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let block = linearGroup(group);
  if (block * 256u >= u.n || state[2] != 0.0) { return; }
  let word = block * GROUP + lane;
  let here = min(4u, max(u.n, 4u * word) - 4u * word);
  var m = vec4f();
  var v = vec4f();
  if (here > 0u) {
    m = decoded(first[word], 0u) * scales[2u * block];
    v = decoded(second[word], 256u) * scales[2u * block + 1u];
  }
  let learningRate = step[0];
  for (var j = 0u; j < here; j++) {
    let i = 4u * word + j;
    let g = gradient[i] * state[1];
    m[j] = u.beta1 * m[j] + u.complement1 * g;
    v[j] = u.beta2 * v[j] + u.complement2 * g * g;
    let direction = (m[j] / state[3])
    / (sqrt(v[j] / state[4]) + u.epsilon);
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
    for (var j = 0u; j < (4u + (u.n >> 31u)); j++) {
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
}
