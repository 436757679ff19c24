// tokenSums: the only one.

struct Uniforms { m: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> ranges: array<u32>;
@group(0) @binding(2) var<storage, read> entropies: array<f32>;
@group(0) @binding(3) var<storage, read> logits: array<f32>;
@group(0) @binding(4) var<storage, read> desirable: array<u32>;
@group(0) @binding(5) var<storage, read_write> metrics: array<f32>;

@compute @workgroup_size(1)
fn main() {
  for (var i = 0u; i < u.m; i++) {
    let tokens = f32(ranges[2u * i + 1u] - ranges[2u * i]);
    metrics[19] += entropies[i];
    if (desirable[i] != 0u) {
      metrics[15] += tokens;
      metrics[17] += logits[i];
    } else {
      metrics[16] += tokens;
      metrics[18] += logits[i];
    }
  }
}
