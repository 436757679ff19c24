// joinColumns: f32 in vectors of four.

struct Uniforms { R: u32, C: u32, O: u32, G: u32, columns: u32, first: u32, xFirst: u32, hasGains: u32, shift: f32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> gains: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

fn element(row: u32, c: u32) {
  let at = row * u.C + u.xFirst + c;
  var value = x[at];
  if (u.hasGains != 0u) { value *= gains[row] - u.shift; }
  out[row * u.O + u.first + c] = value;
}

@compute @workgroup_size(16, 4)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = (group.y + group.z * 32768u) * 4u + local.y;
  let column = group.x * 16u + local.x;
  if (row < u.R && column < u.columns) { element(row, column); }
}
