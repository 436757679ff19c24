// logSoftmaxGatherCombine: the only one.

struct Uniforms { N: u32, splits: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> partials: array<f32>;
@group(0) @binding(2) var<storage, read> targetLogits: array<f32>;
@group(0) @binding(3) var<storage, read_write> logProbs: array<f32>;
@group(0) @binding(4) var<storage, read_write> logSumExp: array<f32>;

fn element(row: u32) {
  var highest = -3.0e38;
  for (var split = 0u; split < u.splits; split++) { highest = max(highest, partials[2u * (split * u.N + row)]); }
  var sum = 0.0;
  for (var split = 0u; split < u.splits; split++) {
    let at = 2u * (split * u.N + row);
    sum += partials[at + 1u] * exp(partials[at] - highest);
  }
  let total = highest + log(sum);
  logSumExp[row] = total;
  logProbs[row] = targetLogits[row] - total;
}

fn linearGroup(id: vec3u) -> u32 { return id.x + id.y * 32768u; }

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = linearGroup(group) * 64u + lane;
  if (i < u.N) { element(i); }
}
