// logitStatisticsCombine: the only one.

struct Uniforms { N: u32, splits: u32, V: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> partials: array<f32>;
@group(0) @binding(2) var<storage, read_write> entropies: array<f32>;
@group(0) @binding(3) var<storage, read_write> meanLogits: array<f32>;

fn element(row: u32) {
  var entropy = 0.0;
  var logits = 0.0;
  for (var split = 0u; split < u.splits; split++) {
    let at = 2u * (split * u.N + row);
    entropy += partials[at];
    logits += partials[at + 1u];
  }
  entropies[row] = entropy;
  meanLogits[row] = logits / f32(u.V);
}

fn linearGroup(id: vec3u) -> u32 { return id.x + id.y * 32768u; }

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = linearGroup(group) * 64u + lane;
  if (i < u.N) { element(i); }
}
