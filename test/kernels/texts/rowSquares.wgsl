// rowSquares: f32 in vectors of four.

struct Uniforms { R: u32, C: u32, N: u32, byColumn: u32, first: u32, firstGroupX: u32, firstGroupY: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> squares: array<f32>;
fn placeInGrid(group: vec3u) -> vec3u { return group + vec3u(u.firstGroupX, u.firstGroupY, 0u); }

fn element(i: u32) {
  let byColumn = u.byColumn != 0u;
  let count = select(u.C, u.R, byColumn);
  let step = select(1u, u.C, byColumn);
  var at = select(i * u.C, i, byColumn);
  var sum = 0.0;
  for (var j = 0u; j < count; j++) {
    let value = weight[at];
    sum += value * value;
    at += step;
  }
  squares[u.first + i] += sum;
}

fn linearGroup(id: vec3u) -> u32 { return id.x + id.y * 32768u; }

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = linearGroup(placeInGrid(group)) * 64u + lane;
  if (i < select(u.R, u.C, u.byColumn != 0u)) { element(i); }
}
