// partialRope: f32 in vectors of four.

struct Uniforms { T: u32, W: u32, P: u32, heads: u32, halfSize: u32, headSize: u32, regimes: u32, direction: f32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> positions: array<u32>;
@group(0) @binding(2) var<storage, read> table: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> x: array<vec4f>;

alias E = vec4f;
alias A = vec4f;
const LANES: u32 = 4u;
fn total(x: E) -> f32 { return (x.x + x.y) + (x.z + x.w); }

fn element(row: u32, column: u32) {
  let half = u.halfSize / LANES;
  let head = column / half;
  let pair = column - head * half;
  let rows = u.P / u.regimes;
  let position = positions[row];
  let entry = (min(position & 2147483647u, rows - 1u) + (position >> 31u) * (u.P - rows)) * 2u * half + pair;
  let cosine = table[entry];
  let sine = table[entry + half] * u.direction;
  let at = row * (u.W / LANES) + head * (u.headSize / LANES) + pair;
  let x1 = E(x[at]);
  let x2 = E(x[at + half]);
  x[at] = A(x1 * cosine - x2 * sine);
  x[at + half] = A(x2 * cosine + x1 * sine);
}

@compute @workgroup_size(16, 4)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = (group.y + group.z * 32768u) * 4u + local.y;
  let column = group.x * 16u + local.x;
  if (row < u.T && column < u.heads * (u.halfSize / LANES)) { element(row, column); }
}
