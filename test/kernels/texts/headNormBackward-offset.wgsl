// headNormBackward: f32 in vectors of four, subgroups of 8 on a software adapter, 1 added to the weights.

enable subgroups;
struct Uniforms { T: u32, W: u32, D: u32, heads: u32, queryHeads: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> weight: array<vec4f>;
@group(0) @binding(2) var<storage, read> normed: array<vec4f>;
@group(0) @binding(3) var<storage, read> inverse: array<f32>;
@group(0) @binding(4) var<storage, read_write> dx: array<vec4f>;

alias E = vec4f;
alias A = vec4f;
const LANES: u32 = 4u;
fn total(x: E) -> f32 { return (x.x + x.y) + (x.z + x.w); }

fn linearGroup(id: vec3u) -> u32 { return id.x + id.y * 32768u; }

const GROUP: u32 = 8u;
fn reduceSum(value: f32, lane: u32) -> f32 { return subgroupAdd(value); }

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let index = linearGroup(group);
  if (index >= u.T * u.heads) { return; }
  let row = index / u.heads;
  let head = index - row * u.heads;
  let size = u.D / LANES;
  let at = row * (u.W / LANES) + head * size;
  let kept = index * size;
  let weightAt = select(size, 0u, head < u.queryHeads);
  var along = E();
  for (var d = lane; d < size; d += GROUP) { along += dx[at + d] * (1.0 + weight[weightAt + d]) * E(normed[kept + d]); }
  let meanAlong = reduceSum(total(along), lane) / f32(u.D);
  for (var d = lane; d < size; d += GROUP) {
    let g = dx[at + d] * (1.0 + weight[weightAt + d]);
    dx[at + d] = inverse[index] * (g - E(normed[kept + d]) * meanAlong);
  }
}
