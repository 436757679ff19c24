// deltaBackwardQueryKey: keys of 8 channels, values of 12, f32 in vectors of four, any GPU.

struct Uniforms { T: u32, W: u32, heads: u32, keyHeads: u32, first: u32, count: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> qkv: array<f32>;
@group(0) @binding(2) var<storage, read> factors: array<vec4f>;
@group(0) @binding(3) var<storage, read> segments: array<vec4u>;
@group(0) @binding(4) var<storage, read> dOut: array<vec4f>;
@group(0) @binding(5) var<storage, read> deltas: array<vec4f>;
@group(0) @binding(6) var<storage, read> dQkv: array<vec4f>;
@group(0) @binding(7) var<storage, read_write> states: array<vec4f>;
@group(0) @binding(8) var<storage, read_write> dHeads: array<f32>;

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
  var x2_0 = E();
  if ((segment.w & 2u) != 0u) {
    for (var round = 0u; round < (1u + (u.T >> 31u)); round++) {
      let part0 = states[((segment.z) * u.heads + head) * 24u + min(round * 4u + 0u, 2u) * 8u + min(column, 7u)];
      let part1 = states[((segment.z) * u.heads + head) * 24u + min(round * 4u + 1u, 2u) * 8u + min(column, 7u)];
      let part2 = states[((segment.z) * u.heads + head) * 24u + min(round * 4u + 2u, 2u) * 8u + min(column, 7u)];
      let part3 = states[((segment.z) * u.heads + head) * 24u + min(round * 4u + 3u, 2u) * 8u + min(column, 7u)];
      x0_0 += select(E(), part0, round == 0u);
      x1_0 += select(E(), part1, round == 0u);
      x2_0 += select(E(), part2, round == 0u);
    }
  }
  for (var t = start; t < end; t++) {
    let factor = factors[t * u.heads + head];
    let result = (t * u.heads + head) * 12u / LANES;
    let value = (t * u.W + valueFrom) / LANES;
    let step0 = factor.y * factor.z * f32(qkv[t * u.W + keyFrom + min(column, 7u)]);
    var read0 = E();
    var sum0 = E();
    let given0 = E(dOut[result + 0u]); let delta0 = E(deltas[result + 0u]); let dValue0 = E(dQkv[value + 0u]); x0_0 = factor.x * x0_0; read0 += dValue0 * x0_0; x0_0 += delta0 * step0; sum0 += given0 * x0_0;
    let given1 = E(dOut[result + 1u]); let delta1 = E(deltas[result + 1u]); let dValue1 = E(dQkv[value + 1u]); x1_0 = factor.x * x1_0; read0 += dValue1 * x1_0; x1_0 += delta1 * step0; sum0 += given1 * x1_0;
    let given2 = E(dOut[result + 2u]); let delta2 = E(deltas[result + 2u]); let dValue2 = E(dQkv[value + 2u]); x2_0 = factor.x * x2_0; read0 += dValue2 * x2_0; x2_0 += delta2 * step0; sum0 += given2 * x2_0;
    let own = (2u * t * u.heads + head) * 8u;
    if (column < 8u) { dHeads[own + column] = total(sum0); dHeads[own + u.heads * 8u + column] = -total(read0); }
  }
  if ((segment.w & 1u) != 0u) {
    if (column < 8u) {
      for (var round = 0u; round < (1u + (u.T >> 31u)); round++) {
        if (round * 4u + 0u < 3u) { states[((segment.z) * u.heads + head) * 24u + min(round * 4u + 0u, 2u) * 8u + min(column, 7u)] = x0_0; }
        if (round * 4u + 1u < 3u) { states[((segment.z) * u.heads + head) * 24u + min(round * 4u + 1u, 2u) * 8u + min(column, 7u)] = x1_0; }
        if (round * 4u + 2u < 3u) { states[((segment.z) * u.heads + head) * 24u + min(round * 4u + 2u, 2u) * 8u + min(column, 7u)] = x2_0; }
      }
    }
  }
}
