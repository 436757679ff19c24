// squarePartials: f32 in vectors of four, subgroups of 8 on a software adapter.

enable subgroups;
struct Uniforms { n: u32, first: u32, skipped: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> sums: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> partials: array<f32>;

alias E = vec4f;
alias A = vec4f;
const LANES: u32 = 4u;
fn total(x: E) -> f32 { return (x.x + x.y) + (x.z + x.w); }

const GROUP: u32 = 8u;
fn reduceSum(value: f32, lane: u32) -> f32 { return subgroupAdd(value); }

const STEP: u32 = GROUP * 256u;
@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let own = group.x * GROUP + lane;
  var sum = sums[own];
  if (u.first != 0u) { sum = E(); }
  // The first element of x that is this invocation's in the whole array.
  for (var i = (own + STEP - u.skipped % STEP) % STEP; i < u.n / LANES; i += STEP) { sum += x[i] * x[i]; }
  sums[own] = sum;
  let here = reduceSum(total(sum), lane);
  if (lane == 0u) { partials[group.x] = here; }
}
