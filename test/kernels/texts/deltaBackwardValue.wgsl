// deltaBackwardValue: keys of 8 channels, values of 12, f32 in vectors of four, any GPU.

struct Uniforms { T: u32, W: u32, heads: u32, keyHeads: u32, first: u32, count: u32, branches: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> qkv: array<vec4f>;
@group(0) @binding(2) var<storage, read> factors: array<vec4f>;
@group(0) @binding(3) var<storage, read> segments: array<vec4u>;
@group(0) @binding(4) var<storage, read> dOut: array<f32>;
@group(0) @binding(5) var<storage, read_write> dQkv: array<f32>;
@group(0) @binding(6) var<storage, read_write> dStates: array<vec4f>;

alias E = vec4f;
alias A = vec4f;
const LANES: u32 = 4u;
fn total(x: E) -> f32 { return (x.x + x.y) + (x.z + x.w); }

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let head = group.x / 1u;
  let column = (group.x % 1u) * 32u + lane;
  let segment = segments[u.first + group.y];
  let start = segment.x;
  let end = segment.y;
  let queryFrom = head / (u.heads / u.keyHeads) * 8u;
  let keyFrom = queryFrom + u.keyHeads * 8u;
  let valueFrom = 2u * u.keyHeads * 8u + head * 12u;
  var x0_0 = E();
  var x1_0 = E();
  if ((segment.w & 1u) != 0u) {
    for (var branch = 0u; branch < u.branches; branch++) {
      for (var round = 0u; round < (1u + (u.T >> 31u)); round++) {
        let part0 = dStates[((segment.z * u.branches + branch) * u.heads + head) * 24u + min(round * 4u + 0u, 1u) * 12u + min(column, 11u)];
        let part1 = dStates[((segment.z * u.branches + branch) * u.heads + head) * 24u + min(round * 4u + 1u, 1u) * 12u + min(column, 11u)];
        let part2 = dStates[((segment.z * u.branches + branch) * u.heads + head) * 24u + min(round * 4u + 2u, 1u) * 12u + min(column, 11u)];
        let part3 = dStates[((segment.z * u.branches + branch) * u.heads + head) * 24u + min(round * 4u + 3u, 1u) * 12u + min(column, 11u)];
        x0_0 += select(E(), part0, round == 0u);
        x1_0 += select(E(), part1, round == 0u);
      }
    }
  }
  for (var after = end; after > start; after--) {
    let t = after - 1u;
    let factor = factors[t * u.heads + head];
    let query = (t * u.W + queryFrom) / LANES;
    let key = (t * u.W + keyFrom) / LANES;
    let result = (t * u.heads + head) * 12u;
    let given0 = factor.w * dOut[result + min(column, 11u)]; var along0 = E();
    let query0 = E(qkv[query + 0u]); let key0 = E(qkv[key + 0u]); x0_0 += query0 * given0; along0 += key0 * x0_0;
    let query1 = E(qkv[query + 1u]); let key1 = E(qkv[key + 1u]); x1_0 += query1 * given0; along0 += key1 * x1_0;
    let dValue0 = factor.y * factor.z * total(along0); let step0 = factor.z * dValue0;
    if (column < 12u) { dQkv[t * u.W + valueFrom + column] = dValue0; }
    let back0 = E(qkv[key + 0u]); x0_0 = factor.x * (x0_0 - back0 * step0);
    let back1 = E(qkv[key + 1u]); x1_0 = factor.x * (x1_0 - back1 * step0);
  }
  if ((segment.w & 2u) != 0u) {
    if (column < 12u) {
      for (var round = 0u; round < (1u + (u.T >> 31u)); round++) {
        if (round * 4u + 0u < 2u) { dStates[((segment.z * u.branches + segment.w / 4u) * u.heads + head) * 24u + min(round * 4u + 0u, 1u) * 12u + min(column, 11u)] = x0_0; }
        if (round * 4u + 1u < 2u) { dStates[((segment.z * u.branches + segment.w / 4u) * u.heads + head) * 24u + min(round * 4u + 1u, 1u) * 12u + min(column, 11u)] = x1_0; }
      }
    }
  }
}
