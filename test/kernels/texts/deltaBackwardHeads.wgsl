// deltaBackwardHeads: f32 in vectors of four, subgroups of 8 on a software adapter.

enable subgroups;
struct Uniforms { T: u32, W: u32, heads: u32, keyHeads: u32, keySize: u32, valueSize: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> qkv: array<vec4f>;
@group(0) @binding(2) var<storage, read> factors: array<vec4f>;
@group(0) @binding(3) var<storage, read> dHeads: array<vec4f>;
@group(0) @binding(4) var<storage, read> deltas: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> dQkv: array<vec4f>;
@group(0) @binding(6) var<storage, read_write> terms: array<vec2f>;

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
  if (index >= u.T * u.keyHeads) { return; }
  let row = index / u.keyHeads;
  let head = index - row * u.keyHeads;
  let repeats = u.heads / u.keyHeads;
  let size = u.keySize / LANES;
  let query = row * (u.W / LANES) + head * size;
  let key = query + u.keyHeads * size;
  let values = u.valueSize / LANES;
  let factor = factors[row * u.heads + head * repeats];
  var queryAlong = 0.0;
  var keyAlong = E();
  for (var repeat = 0u; repeat < repeats; repeat++) {
    let own = head * repeats + repeat;
    let dQuery = (2u * row * u.heads + own) * size;
    let dKey = dQuery + u.heads * size;
    var along = E();
    for (var d = lane; d < size; d += GROUP) {
      along += E(qkv[query + d]) * dHeads[dQuery + d];
      keyAlong += E(qkv[key + d]) * dHeads[dKey + d];
    }
    let value = row * (u.W / LANES) + 2u * u.keyHeads * size + own * values;
    let delta = (row * u.heads + own) * values;
    var read = E();
    var written = E();
    for (var d = lane; d < values; d += GROUP) {
      read += dQkv[value + d] * E(qkv[value + d]);
      written += dQkv[value + d] * deltas[delta + d];
    }
    let ofQuery = factor.w * reduceSum(total(along), lane);
    let ofValue = reduceSum(total(read), lane);
    let ofDelta = reduceSum(total(written), lane);
    queryAlong += ofQuery;
    if (lane == 0u) { terms[row * u.heads + own] = vec2f(ofQuery - ofValue, ofDelta); }
  }
  // (qhat / q)^2 has the 1 / K of the queries' scale in it.
  let queryPull = factor.w * factor.w * f32(u.keySize) * queryAlong;
  let keyPull = factor.z * factor.z * factor.z * reduceSum(total(keyAlong), lane);
  for (var d = lane; d < size; d += GROUP) {
    var dQuery = E();
    var dKey = E();
    for (var repeat = 0u; repeat < repeats; repeat++) {
      let own = (2u * row * u.heads + head * repeats + repeat) * size + d;
      dQuery += dHeads[own];
      dKey += dHeads[own + u.heads * size];
    }
    dQkv[query + d] = factor.w * dQuery - queryPull * E(qkv[query + d]);
    dQkv[key + d] = factor.z * dKey - keyPull * E(qkv[key + d]);
  }
}
