// deltaBackwardGates: the only one.

struct Uniforms { T: u32, G: u32, heads: u32, aFrom: u32, bFrom: u32, first: u32, count: u32, branches: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> gates: array<f32>;
@group(0) @binding(2) var<storage, read> aLog: array<f32>;
@group(0) @binding(3) var<storage, read> dtBias: array<f32>;
@group(0) @binding(4) var<storage, read> terms: array<vec2f>;
@group(0) @binding(5) var<storage, read> segments: array<vec4u>;
@group(0) @binding(6) var<storage, read_write> dGates: array<f32>;
@group(0) @binding(7) var<storage, read_write> aLogTerms: array<f32>;
@group(0) @binding(8) var<storage, read_write> carries: array<f32>;

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

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let head = group.x * 32u + lane;
  if (head >= u.heads) { return; }
  let segment = segments[u.first + group.y];
  let rate = -exp(aLog[head]);
  var dDecay = 0.0;
  if ((segment.w & 1u) != 0u) {
    for (var branch = 0u; branch < u.branches; branch++) {
      dDecay += carries[(segment.z * u.branches + branch) * u.heads + head];
    }
  }
  let continues = (segment.w & 2u) != 0u;
  for (var after = segment.y; after > segment.x; after--) {
    let t = after - 1u;
    let term = terms[t * u.heads + head];
    // The first row of a sequence forgets nothing.
    dDecay = select(0.0, dDecay + term.x, continues || t > segment.x);
    let a = f32(gates[t * u.G + u.aFrom + head]) + dtBias[head];
    let b = f32(gates[t * u.G + u.bFrom + head]);
    dGates[t * u.G + u.aFrom + head] = dDecay * rate * sigmoid(a);
    dGates[t * u.G + u.bFrom + head] = term.y * sigmoid(-b);
    aLogTerms[t * u.heads + head] = dDecay * rate * softplus(a);
  }
  if (continues) { carries[(segment.z * u.branches + segment.w / 4u) * u.heads + head] = dDecay; }
}
