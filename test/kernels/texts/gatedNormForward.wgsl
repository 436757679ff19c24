// gatedNormForward: f32 in vectors of four, subgroups of 8 on a software adapter.

enable subgroups;
struct Uniforms { T: u32, G: u32, D: u32, heads: u32, zFrom: u32, epsilon: f32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> weight: array<vec4f>;
@group(0) @binding(2) var<storage, read> x: array<vec4f>;
@group(0) @binding(3) var<storage, read> gates: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> inverse: array<f32>;

alias E = vec4f;
alias A = vec4f;
const LANES: u32 = 4u;
fn total(x: E) -> f32 { return (x.x + x.y) + (x.z + x.w); }

fn sigmoid(x: E) -> E {
  let e = exp(-abs(x));
  return select(e, E(1.0), x >= E()) / (1.0 + e);
}

fn linearGroup(id: vec3u) -> u32 { return id.x + id.y * 32768u; }

const GROUP: u32 = 8u;
fn reduceSum(value: f32, lane: u32) -> f32 { return subgroupAdd(value); }

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let index = linearGroup(group);
  if (index >= u.T * u.heads) { return; }
  let row = index / u.heads;
  let size = u.D / LANES;
  let at = index * size;
  let gateAt = (row * u.G + u.zFrom) / LANES + (index - row * u.heads) * size;
  var squares = E();
  for (var d = lane; d < size; d += GROUP) { squares += x[at + d] * x[at + d]; }
  let scale = inverseSqrt(reduceSum(total(squares), lane) / f32(u.D) + u.epsilon);
  for (var d = lane; d < size; d += GROUP) {
    let z = E(gates[gateAt + d]);
    y[at + d] = A(x[at + d] * scale * weight[d] * z * sigmoid(z));
  }
  if (lane == 0u) { inverse[index] = scale; }
}
