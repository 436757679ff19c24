// swigluBackward: f32 in vectors of four.

struct Uniforms { T: u32, I: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> dy: array<vec4f>;
@group(0) @binding(2) var<storage, read> gateUp: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> dGateUp: array<vec4f>;

alias E = vec4f;
alias A = vec4f;
const LANES: u32 = 4u;
fn total(x: E) -> f32 { return (x.x + x.y) + (x.z + x.w); }

fn sigmoid(x: E) -> E {
  let e = exp(-abs(x));
  return select(e, E(1.0), x >= E()) / (1.0 + e);
}

fn element(row: u32, column: u32) {
  let width = u.I / LANES;
  let i = row * width + column;
  let at = 2u * row * width + column;
  let gate = E(gateUp[at]);
  let up = E(gateUp[at + width]);
  let s = sigmoid(gate);
  dGateUp[at] = dy[i] * up * s * (1.0 + gate * (1.0 - s));
  dGateUp[at + width] = dy[i] * gate * s;
}

@compute @workgroup_size(16, 4)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = (group.y + group.z * 32768u) * 4u + local.y;
  let column = group.x * 16u + local.x;
  if (row < u.T && column < u.I / LANES) { element(row, column); }
}
