// addColumnSums: the only one.

struct Uniforms { G: u32, C: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> partials: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

fn element(c: u32) {
  var sum = 0.0;
  for (var block = 0u; block < u.G; block++) { sum += partials[block * u.C + c]; }
  out[c] += sum;
}

fn linearGroup(id: vec3u) -> u32 { return id.x + id.y * 32768u; }

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = linearGroup(group) * 64u + lane;
  if (i < u.C) { element(i); }
}
