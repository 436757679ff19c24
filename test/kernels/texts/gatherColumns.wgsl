// gatherColumns: the only one.

struct Uniforms { N: u32, R: u32, V: u32, C: u32, firstRow: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> table: array<f32>;
@group(0) @binding(2) var<storage, read> columns: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

fn element(n: u32, k: u32) {
  let column = columns[n];
  y[n * u.C + u.firstRow + k] = select(0.0, table[k * u.V + min(column, u.V - 1u)], column < u.V);
}

@compute @workgroup_size(16, 4)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = (group.y + group.z * 32768u) * 4u + local.y;
  let column = group.x * 16u + local.x;
  if (row < u.N && column < u.R) { element(row, column); }
}
