// deltaFactors: f32 in vectors of four, subgroups of 8 on a software adapter.

enable subgroups;
struct Uniforms { T: u32, W: u32, G: u32, heads: u32, keyHeads: u32, keySize: u32, aFrom: u32, bFrom: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> qkv: array<vec4f>;
@group(0) @binding(2) var<storage, read> gates: array<f32>;
@group(0) @binding(3) var<storage, read> aLog: array<f32>;
@group(0) @binding(4) var<storage, read> dtBias: array<f32>;
@group(0) @binding(5) var<storage, read_write> factors: array<vec4f>;

alias E = vec4f;
alias A = vec4f;
const LANES: u32 = 4u;
fn total(x: E) -> f32 { return (x.x + x.y) + (x.z + x.w); }

fn sigmoid(x: f32) -> f32 {
  let e = exp(-abs(x));
  return select(e, f32(1.0), x >= f32()) / (1.0 + e);
}

fn softplus(x: f32) -> f32 {
  let y = exp(-abs(x));
  let s = y / (2.0 + y);
  let p = s * s;
  let series = 1.0 + p * (1.0 / 3.0 + p * (1.0 / 5.0 + p * (1.0 / 7.0 + p * (1.0 / 9.0 + p * (1.0 / 11.0 + p / 13.0)))));
  return max(x, 0.0) + 2.0 * s * series;
}

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
  var queries = E();
  var keys = E();
  for (var d = lane; d < size; d += GROUP) {
    let q = E(qkv[query + d]);
    let k = E(qkv[key + d]);
    queries += q * q;
    keys += k * k;
  }
  let queryFactor = inverseSqrt((reduceSum(total(queries), lane) + 0.000001) * f32(u.keySize));
  let keyFactor = inverseSqrt(reduceSum(total(keys), lane) + 0.000001);
  for (var repeat = lane; repeat < repeats; repeat += GROUP) {
    let own = head * repeats + repeat;
    let a = f32(gates[row * u.G + u.aFrom + own]);
    let b = f32(gates[row * u.G + u.bFrom + own]);
    let decay = exp(-exp(aLog[own]) * softplus(a + dtBias[own]));
    factors[row * u.heads + own] = vec4f(decay, sigmoid(b), keyFactor, queryFactor);
  }
}
