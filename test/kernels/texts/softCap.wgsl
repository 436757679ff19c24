// softCap: f32 in vectors of four.

struct Uniforms { N: u32, C: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read_write> x: array<vec4f>;

alias E = vec4f;
alias A = vec4f;
const LANES: u32 = 4u;
fn total(x: E) -> f32 { return (x.x + x.y) + (x.z + x.w); }

const CAP: f32 = 50;
fn softCapped(x: E) -> E { return CAP * tanh(clamp(x / CAP, E(-9.01), E(9.01))); }
fn softCapSlope(y: E) -> E { return 1.0 - (y / CAP) * (y / CAP); }

fn element(row: u32, column: u32) {
  let i = row * (u.C / LANES) + column;
  x[i] = softCapped(x[i]);
}

@compute @workgroup_size(16, 4)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = (group.y + group.z * 32768u) * 4u + local.y;
  let column = group.x * 16u + local.x;
  if (row < u.N && column < u.C / LANES) { element(row, column); }
}
