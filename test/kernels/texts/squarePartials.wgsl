// squarePartials: f32 in vectors of four, subgroups of 8 on a software adapter.

enable subgroups;
struct Uniforms { n: u32, first: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> partials: array<f32>;

alias E = vec4f;
alias A = vec4f;
const LANES: u32 = 4u;
fn total(x: E) -> f32 { return (x.x + x.y) + (x.z + x.w); }

const GROUP: u32 = 8u;
fn reduceSum(value: f32, lane: u32) -> f32 { return subgroupAdd(value); }

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  var sum = E();
  for (var i = group.x * GROUP + lane; i < u.n / LANES; i += GROUP * 256u) { sum += x[i] * x[i]; }
  let here = reduceSum(total(sum), lane);
  if (lane == 0u) { partials[group.x] = select(partials[group.x], 0.0, u.first != 0u) + here; }
}
