// scaleColumns: f32 in vectors of four.

struct Uniforms { T: u32, W: u32, B: u32, S: u32, hasBias: u32, hasResidual: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> gains: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> residual: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

fn element(row: u32, column: u32) {
  let i = row * u.W + column;
  var value = gains[column] * y[i];
  if (u.hasBias != 0u) { value += bias[column]; }
  if (u.hasResidual != 0u) { value += residual[i]; }
  y[i] = value;
}

@compute @workgroup_size(16, 4)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = (group.y + group.z * 32768u) * 4u + local.y;
  let column = group.x * 16u + local.x;
  if (row < u.T && column < u.W) { element(row, column); }
}
