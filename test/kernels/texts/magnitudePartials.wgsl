// magnitudePartials: the only one.

struct Uniforms { T: u32, W: u32, X: u32, G: u32, columns: u32, first: u32, xFrom: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> inverse: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read> product: array<f32>;
@group(0) @binding(4) var<storage, read_write> partials: array<f32>;

fn element(block: u32, column: u32) {
  let rowsPerBlock = (u.T + u.G - 1u) / u.G;
  let first = block * rowsPerBlock;
  var sum = 0.0;
  for (var row = first; row < min(first + rowsPerBlock, u.T); row++) {
    sum += dy[row * u.W + u.first + column] * product[row * u.X + u.xFrom + column];
  }
  partials[block * u.columns + column] = inverse[u.first + column] * sum;
}

@compute @workgroup_size(16, 4)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = (group.y + group.z * 32768u) * 4u + local.y;
  let column = group.x * 16u + local.x;
  if (row < u.G && column < u.columns) { element(row, column); }
}
