// deltaBackwardKey: keys of 8 channels, values of 12, f32 in vectors of four, any GPU.

struct Uniforms { T: u32, W: u32, heads: u32, keyHeads: u32, first: u32, count: u32, branches: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> qkv: array<f32>;
@group(0) @binding(2) var<storage, read> factors: array<vec4f>;
@group(0) @binding(3) var<storage, read> segments: array<vec4u>;
@group(0) @binding(4) var<storage, read> dOut: array<vec4f>;
@group(0) @binding(5) var<storage, read> deltas: array<vec4f>;
@group(0) @binding(6) var<storage, read> dQkv: array<vec4f>;
@group(0) @binding(7) var<storage, read_write> dStates: array<vec4f>;
@group(0) @binding(8) var<storage, read_write> dHeads: array<f32>;

alias E = vec4f;
alias A = vec4f;
const LANES: u32 = 4u;
fn total(x: E) -> f32 { return (x.x + x.y) + (x.z + x.w); }

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let head = group.x / 1u;
  let column = (group.x % 1u) * 64u + lane;
  if (column >= 8u) { return; }
  let segment = segments[u.first + group.y];
  let start = segment.x;
  let end = segment.y;
  let queryFrom = head / (u.heads / u.keyHeads) * 8u;
  let keyFrom = queryFrom + u.keyHeads * 8u;
  let valueFrom = 2u * u.keyHeads * 8u + head * 12u;
  var x0_0 = E();
  var x1_0 = E();
  var x2_0 = E();
  if ((segment.w & 1u) != 0u) {
    for (var branch = 0u; branch < u.branches; branch++) {
      x0_0 += dStates[((segment.z * u.branches + branch) * u.heads + head) * 24u + 0u + column];
      x1_0 += dStates[((segment.z * u.branches + branch) * u.heads + head) * 24u + 8u + column];
      x2_0 += dStates[((segment.z * u.branches + branch) * u.heads + head) * 24u + 16u + column];
    }
  }
  for (var after = end; after > start; after--) {
    let t = after - 1u;
    let factor = factors[t * u.heads + head];
    let result = (t * u.heads + head) * 12u / LANES;
    let value = (t * u.W + valueFrom) / LANES;
    let query0 = factor.w * f32(qkv[t * u.W + queryFrom + column]);
    let key0 = factor.z * f32(qkv[t * u.W + keyFrom + column]);
    var sum0 = E();
    let given0 = dOut[result + 0u]; let delta0 = deltas[result + 0u]; let dValue0 = dQkv[value + 0u]; x0_0 += given0 * query0; sum0 += delta0 * x0_0; x0_0 = factor.x * (x0_0 - dValue0 * key0);
    let given1 = dOut[result + 1u]; let delta1 = deltas[result + 1u]; let dValue1 = dQkv[value + 1u]; x1_0 += given1 * query0; sum0 += delta1 * x1_0; x1_0 = factor.x * (x1_0 - dValue1 * key0);
    let given2 = dOut[result + 2u]; let delta2 = deltas[result + 2u]; let dValue2 = dQkv[value + 2u]; x2_0 += given2 * query0; sum0 += delta2 * x2_0; x2_0 = factor.x * (x2_0 - dValue2 * key0);
    let own = ((2u * t + 1u) * u.heads + head) * 8u;
    dHeads[own + column] += factor.y * total(sum0);
  }
  if ((segment.w & 2u) != 0u) {
    if (column < 8u) {
      dStates[((segment.z * u.branches + segment.w / 4u) * u.heads + head) * 24u + 0u + column] = x0_0;
      dStates[((segment.z * u.branches + segment.w / 4u) * u.heads + head) * 24u + 8u + column] = x1_0;
      dStates[((segment.z * u.branches + segment.w / 4u) * u.heads + head) * 24u + 16u + column] = x2_0;
    }
  }
}
