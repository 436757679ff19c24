// scatterRows: f32 in vectors of four.

struct Uniforms { N: u32, V: u32, C: u32, width: u32, xColumn: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> rows: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4f>;

alias E = vec4f;
alias A = vec4f;
const LANES: u32 = 4u;
fn total(x: E) -> f32 { return (x.x + x.y) + (x.z + x.w); }

fn element(n: u32, column: u32) {
  let row = rows[n];
  if (row < u.V) { y[row * (u.C / LANES) + column] = x[(n * u.width + u.xColumn) / LANES + column]; }
}

@compute @workgroup_size(16, 4)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = (group.y + group.z * 32768u) * 4u + local.y;
  let column = group.x * 16u + local.x;
  if (row < u.N && column < u.C / LANES) { element(row, column); }
}
