// rmsNormForward: f32 in vectors of four, subgroups of 8 on a software adapter, 1 added to the weights.

enable subgroups;
struct Uniforms { T: u32, C: u32, epsilon: f32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> weight: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> stats: array<f32>;

alias E = vec4f;
alias A = vec4f;
const LANES: u32 = 4u;
fn total(x: E) -> f32 { return (x.x + x.y) + (x.z + x.w); }

fn linearGroup(id: vec3u) -> u32 { return id.x + id.y * 32768u; }

const GROUP: u32 = 8u;
fn reduceSum(value: f32, lane: u32) -> f32 { return subgroupAdd(value); }

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = linearGroup(group);
  if (row >= u.T) { return; }
  let width = u.C / LANES;
  let base = row * width;
  var squares = E();
  for (var c = lane; c < width; c += GROUP) { squares += x[base + c] * x[base + c]; }
  let inverse = inverseSqrt(reduceSum(total(squares), lane) / f32(u.C) + u.epsilon);
  for (var c = lane; c < width; c += GROUP) { y[base + c] = A(x[base + c] * inverse * (1.0 + weight[c])); }
  if (lane == 0u) {
    stats[2u * row] = 0.0;
    stats[2u * row + 1u] = inverse;
  }
}
