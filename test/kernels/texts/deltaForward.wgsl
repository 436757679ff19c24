// deltaForward: keys of 8 channels, values of 12, f32 in vectors of four, any GPU.

struct Uniforms { T: u32, W: u32, heads: u32, keyHeads: u32, first: u32, count: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> qkv: array<vec4f>;
@group(0) @binding(2) var<storage, read> factors: array<vec4f>;
@group(0) @binding(3) var<storage, read> positions: array<u32>;
@group(0) @binding(4) var<storage, read> segments: array<vec4u>;
@group(0) @binding(5) var<storage, read_write> states: array<vec4f>;
@group(0) @binding(6) var<storage, read_write> out: array<f32>;
@group(0) @binding(7) var<storage, read_write> deltas: array<f32>;

alias E = vec4f;
alias A = vec4f;
const LANES: u32 = 4u;
fn total(x: E) -> f32 { return (x.x + x.y) + (x.z + x.w); }

fn number(i: u32) -> f32 { return E(qkv[i / 4u])[i % 4u]; }

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
  var continues = false;
  if ((segment.w & 2u) != 0u && start < end) { continues = (positions[start] & 2147483647u) != 0u; }
  var x0_0 = E();
  var x1_0 = E();
  if (continues) {
    for (var round = 0u; round < (1u + (u.T >> 31u)); round++) {
      let part0 = states[((segment.z) * u.heads + head) * 24u + min(round * 4u + 0u, 1u) * 12u + min(column, 11u)];
      let part1 = states[((segment.z) * u.heads + head) * 24u + min(round * 4u + 1u, 1u) * 12u + min(column, 11u)];
      let part2 = states[((segment.z) * u.heads + head) * 24u + min(round * 4u + 2u, 1u) * 12u + min(column, 11u)];
      let part3 = states[((segment.z) * u.heads + head) * 24u + min(round * 4u + 3u, 1u) * 12u + min(column, 11u)];
      x0_0 += select(E(), part0, round == 0u);
      x1_0 += select(E(), part1, round == 0u);
    }
  }
  for (var t = start; t < end; t++) {
    let factor = factors[t * u.heads + head];
    let query = (t * u.W + queryFrom) / LANES;
    let key = (t * u.W + keyFrom) / LANES;
    var read0 = E();
    let key0 = E(qkv[key + 0u]); read0 += key0 * x0_0;
    let key1 = E(qkv[key + 1u]); read0 += key1 * x1_0;
    let delta0 = number(t * u.W + valueFrom + min(column, 11u)) - factor.x * factor.z * total(read0);
    let step0 = factor.y * factor.z * delta0;
    var sum0 = E();
    let along0 = E(qkv[key + 0u]); let query0 = E(qkv[query + 0u]); x0_0 = factor.x * x0_0 + along0 * step0; sum0 += query0 * x0_0;
    let along1 = E(qkv[key + 1u]); let query1 = E(qkv[query + 1u]); x1_0 = factor.x * x1_0 + along1 * step0; sum0 += query1 * x1_0;
    let result = (t * u.heads + head) * 12u;
    if (column < 12u) { deltas[result + column] = delta0; out[result + column] = factor.w * total(sum0); }
  }
  if ((segment.w & 1u) != 0u) {
    if (column < 12u) {
      for (var round = 0u; round < (1u + (u.T >> 31u)); round++) {
        if (round * 4u + 0u < 2u) { states[((segment.z) * u.heads + head) * 24u + min(round * 4u + 0u, 1u) * 12u + min(column, 11u)] = x0_0; }
        if (round * 4u + 1u < 2u) { states[((segment.z) * u.heads + head) * 24u + min(round * 4u + 1u, 1u) * 12u + min(column, 11u)] = x1_0; }
      }
    }
  }
}
