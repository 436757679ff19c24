// scaleByPosition: f32 in vectors of four.

struct Uniforms { T: u32, W: u32, P: u32, columns: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> positions: array<u32>;
@group(0) @binding(2) var<storage, read> factors: array<f32>;
@group(0) @binding(3) var<storage, read_write> x: array<vec4f>;

alias E = vec4f;
alias A = vec4f;
const LANES: u32 = 4u;
fn total(x: E) -> f32 { return (x.x + x.y) + (x.z + x.w); }

fn element(row: u32, column: u32) {
  let i = row * (u.W / LANES) + column;
  x[i] = A(factors[min(positions[row], u.P - 1u)] * E(x[i]));
}

@compute @workgroup_size(16, 4)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = (group.y + group.z * 32768u) * 4u + local.y;
  let column = group.x * 16u + local.x;
  if (row < u.T && column < u.columns / LANES) { element(row, column); }
}
