// sftTokenSums: the only one.

struct Uniforms { m: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> completionTokens: array<u32>;
@group(0) @binding(2) var<storage, read> entropies: array<f32>;
@group(0) @binding(3) var<storage, read_write> metrics: array<f32>;

@compute @workgroup_size(1)
fn main() {
  for (var i = 0u; i < u.m; i++) {
    metrics[3] += f32(completionTokens[i]);
    metrics[4] += entropies[i];
  }
}
