// gatedNormBackward: f32 in vectors of four, subgroups of 8 on a software adapter.

enable subgroups;
struct Uniforms { T: u32, G: u32, D: u32, heads: u32, zFrom: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> weight: array<vec4f>;
@group(0) @binding(2) var<storage, read> dy: array<vec4f>;
@group(0) @binding(3) var<storage, read> x: array<vec4f>;
@group(0) @binding(4) var<storage, read> gates: array<vec4f>;
@group(0) @binding(5) var<storage, read> inverse: array<f32>;
@group(0) @binding(6) var<storage, read_write> dx: array<vec4f>;
@group(0) @binding(7) var<storage, read_write> dGates: array<vec4f>;

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
  let scale = inverse[index];
  var along = E();
  for (var d = lane; d < size; d += GROUP) {
    let z = E(gates[gateAt + d]);
    let s = sigmoid(z);
    let xhat = x[at + d] * scale;
    let g = dy[at + d] * weight[d];
    along += g * z * s * xhat;
    dGates[gateAt + d] = g * xhat * s * (1.0 + z * (1.0 - s));
  }
  let meanAlong = reduceSum(total(along), lane) / f32(u.D);
  for (var d = lane; d < size; d += GROUP) {
    let z = E(gates[gateAt + d]);
    let g = dy[at + d] * weight[d] * z * sigmoid(z);
    dx[at + d] = scale * (g - x[at + d] * scale * meanAlong);
  }
}
