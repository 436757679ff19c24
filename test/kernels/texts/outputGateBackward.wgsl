// outputGateBackward: f32 in vectors of four.

struct Uniforms { T: u32, F: u32, D: u32, heads: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> fused: array<vec4f>;
@group(0) @binding(2) var<storage, read> x: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> dOut: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> dFused: array<vec4f>;

alias E = vec4f;
alias A = vec4f;
const LANES: u32 = 4u;
fn total(x: E) -> f32 { return (x.x + x.y) + (x.z + x.w); }

fn sigmoid(x: E) -> E {
  let e = exp(-abs(x));
  return select(e, E(1.0), x >= E()) / (1.0 + e);
}

fn placeOf(row: u32, column: u32) -> u32 {
  let size = u.D / LANES;
  let queries = u.heads * size;
  return row * (u.F / LANES) + column + select(queries, column / size * size, column < queries);
}
fn gateOf(row: u32, column: u32) -> u32 {
  let size = u.D / LANES;
  return row * (u.F / LANES) + column + (column / size + 1u) * size;
}
fn element(row: u32, column: u32) {
  let i = row * u.heads * (u.D / LANES) + column;
  let at = gateOf(row, column);
  let gate = E(fused[at]);
  let dx = dOut[i] * sigmoid(gate);
  dFused[at] = dx * E(x[i]) * sigmoid(-gate);
  dOut[i] = dx;
}

@compute @workgroup_size(16, 4)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = (group.y + group.z * 32768u) * 4u + local.y;
  let column = group.x * 16u + local.x;
  if (row < u.T && column < u.heads * (u.D / LANES)) { element(row, column); }
}
