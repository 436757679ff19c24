// rmsNormBackward: f32 in vectors of four, subgroups of 8 on a software adapter, 1 added to the weights.

enable subgroups;
struct Uniforms { T: u32, C: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> dy: array<vec4f>;
@group(0) @binding(2) var<storage, read> x: array<vec4f>;
@group(0) @binding(3) var<storage, read> weight: array<vec4f>;
@group(0) @binding(4) var<storage, read> stats: array<f32>;
@group(0) @binding(5) var<storage, read_write> dx: array<vec4f>;

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
  let mean = stats[2u * row];
  let inverse = stats[2u * row + 1u];
  var sum = E();
  var along = E();
  for (var c = lane; c < width; c += GROUP) {
    let g = dy[base + c] * (1.0 + weight[c]);
    sum += g;
    along += g * (x[base + c] - mean) * inverse;
  }
  let meanAlong = reduceSum(total(along), lane) / f32(u.C);
  let meanGradient = 0.0;
  for (var c = lane; c < width; c += GROUP) {
    let g = dy[base + c] * (1.0 + weight[c]);
    let xhat = (x[base + c] - mean) * inverse;
    dx[base + c] += inverse * (g - meanGradient - xhat * meanAlong);
  }
}
