// adamw: f32 in vectors of four.

struct Uniforms { n: u32, beta1: f32, beta2: f32, complement1: f32, complement2: f32, epsilon: f32, weightDecay: f32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> gradient: array<vec4f>;
@group(0) @binding(2) var<storage, read> state: array<f32>;
@group(0) @binding(3) var<storage, read> step: array<f32>;
@group(0) @binding(4) var<storage, read_write> parameter: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> first: array<vec4f>;
@group(0) @binding(6) var<storage, read_write> second: array<vec4f>;

alias E = vec4f;
alias A = vec4f;
const LANES: u32 = 4u;
fn total(x: E) -> f32 { return (x.x + x.y) + (x.z + x.w); }

fn element(i: u32) {
  if (state[2] != 0.0) { return; }
  let learningRate = step[0];
  let g = gradient[i] * state[1];
  let m = u.beta1 * first[i] + u.complement1 * g;
  let v = u.beta2 * second[i] + u.complement2 * g * g;
  first[i] = m;
  second[i] = v;
  let direction = (m / state[3])
  / (sqrt(v / state[4]) + u.epsilon);
  parameter[i] = parameter[i] * (1.0 - learningRate * u.weightDecay) - learningRate * direction;
}

fn linearGroup(id: vec3u) -> u32 { return id.x + id.y * 32768u; }

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = linearGroup(group) * 64u + lane;
  if (i < u.n / LANES) { element(i); }
}
