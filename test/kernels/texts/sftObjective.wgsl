// sftObjective: the only one.

struct Uniforms { m: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> policy: array<f32>;
@group(0) @binding(2) var<storage, read> hits: array<f32>;
@group(0) @binding(3) var<storage, read> completionTokens: array<u32>;
@group(0) @binding(4) var<storage, read> step: array<f32>;
@group(0) @binding(5) var<storage, read_write> coefficients: array<f32>;
@group(0) @binding(6) var<storage, read_write> metrics: array<f32>;

@compute @workgroup_size(1)
fn main() {
  var logProb = 0.0;
  var tokens = 0.0;
  var hit = 0.0;
  for (var i = 0u; i < u.m; i++) {
    logProb += policy[i];
    tokens += f32(completionTokens[i]);
    hit += hits[i];
    coefficients[i] = -step[1];
  }
  metrics[0] += logProb;
  metrics[1] += tokens;
  metrics[2] += hit;
}
