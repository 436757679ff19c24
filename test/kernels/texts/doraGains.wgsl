// doraGains: the only one.

struct Uniforms { O: u32, r: u32, W: u32, P: u32, first: u32, projectedFrom: u32, scale: f32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read> projected: array<f32>;
@group(0) @binding(3) var<storage, read> gram: array<f32>;
@group(0) @binding(4) var<storage, read> squares: array<f32>;
@group(0) @binding(5) var<storage, read> magnitude: array<f32>;
@group(0) @binding(6) var<storage, read_write> gains: array<f32>;
@group(0) @binding(7) var<storage, read_write> inverse: array<f32>;

fn element(o: u32) {
  var added = 0.0;
  for (var i = 0u; i < u.r; i++) {
    var along = 0.0;
    for (var j = 0u; j < u.r; j++) { along += gram[i * u.r + j] * b[o * u.r + j]; }
    added += b[o * u.r + i] * (2.0 * projected[i * u.P + u.projectedFrom + o] + u.scale * along);
  }
  let norm = sqrt(max(0.0, squares[u.first + o] + u.scale * added));
  let reciprocal = select(0.0, 1.0 / norm, norm > 0.0);
  inverse[u.first + o] = reciprocal;
  gains[u.first + o] = magnitude[o] * reciprocal;
}

fn linearGroup(id: vec3u) -> u32 { return id.x + id.y * 32768u; }

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = linearGroup(group) * 64u + lane;
  if (i < u.O) { element(i); }
}
