// gegluForward: f32 in vectors of four.

struct Uniforms { T: u32, I: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> gateUp: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4f>;

alias E = vec4f;
alias A = vec4f;
const LANES: u32 = 4u;
fn total(x: E) -> f32 { return (x.x + x.y) + (x.z + x.w); }

fn safeTanh(x: E) -> E { return tanh(clamp(x, E(-9.01), E(9.01))); }

const ROOT_2_OVER_PI: f32 = 0.7978845608028654;
const CUBIC: f32 = 0.044715;

fn geluTanh(x: E) -> E { return safeTanh(ROOT_2_OVER_PI * (x + CUBIC * x * x * x)); }

fn element(row: u32, column: u32) {
  let width = u.I / LANES;
  let i = row * width + column;
  let at = 2u * row * width + column;
  let gate = E(gateUp[at]);
  y[i] = A(0.5 * gate * (1.0 + geluTanh(gate)) * E(gateUp[at + width]));
}

@compute @workgroup_size(16, 4)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = (group.y + group.z * 32768u) * 4u + local.y;
  let column = group.x * 16u + local.x;
  if (row < u.T && column < u.I / LANES) { element(row, column); }
}
