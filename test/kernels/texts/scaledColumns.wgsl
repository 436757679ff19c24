// scaledColumns: f32 in vectors of four.

struct Uniforms { T: u32, X: u32, Y: u32, G: u32, columns: u32, first: u32, xFrom: u32, yFrom: u32, shift: f32, accumulate: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> gains: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

fn element(row: u32, column: u32) {
  let i = row * u.Y + u.yFrom + column;
  var value = (gains[u.first + column] - u.shift) * x[row * u.X + u.xFrom + column];
  if (u.accumulate != 0u) { value += y[i]; }
  y[i] = value;
}

@compute @workgroup_size(16, 4)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = (group.y + group.z * 32768u) * 4u + local.y;
  let column = group.x * 16u + local.x;
  if (row < u.T && column < u.columns) { element(row, column); }
}
