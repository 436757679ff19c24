// targetHits: the only one.

struct Uniforms { N: u32, splits: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> partials: array<f32>;
@group(0) @binding(2) var<storage, read> targetLogits: array<f32>;
@group(0) @binding(3) var<storage, read_write> hits: array<f32>;

fn element(row: u32) {
  var highest = -3.0e38;
  for (var split = 0u; split < u.splits; split++) { highest = max(highest, partials[2u * (split * u.N + row)]); }
  hits[row] = select(0.0, 1.0, targetLogits[row] >= highest);
}

fn linearGroup(id: vec3u) -> u32 { return id.x + id.y * 32768u; }

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = linearGroup(group) * 64u + lane;
  if (i < u.N) { element(i); }
}
