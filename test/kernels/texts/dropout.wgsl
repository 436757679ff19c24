// dropout: f32 in vectors of four.

struct Uniforms { T: u32, C: u32, stream: u32, threshold: u32, keptScale: f32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> keys: array<u32>;
@group(0) @binding(3) var<storage, read> state: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

fn hash(key: u32, column: u32) -> u32 {
  var v = vec4u(key, column + u.stream * 0x9e3779b9u, state[0], state[1]);
  v = v * 1664525u + 1013904223u;
  v.x += v.y * v.w;
  v.y += v.z * v.x;
  v.z += v.x * v.y;
  v.w += v.y * v.z;
  v ^= v >> vec4u(16u);
  v.x += v.y * v.w;
  return v.x;
}

fn kept(row: u32, column: u32) -> f32 {
  return select(0.0, f32(x[row * u.C + column]) * u.keptScale, hash(keys[row], column) >= u.threshold);
}

fn element(row: u32, column: u32) {
  y[row * u.C + column] = kept(row, column);
}

@compute @workgroup_size(16, 4)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = (group.y + group.z * 32768u) * 4u + local.y;
  let column = group.x * 16u + local.x;
  if (row < u.T && column < u.C) { element(row, column); }
}
