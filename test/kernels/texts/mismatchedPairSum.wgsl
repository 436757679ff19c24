// mismatchedPairSum: the only one.

struct Uniforms { m: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> policy: array<f32>;
@group(0) @binding(2) var<storage, read> reference: array<f32>;
@group(0) @binding(3) var<storage, read> pairValid: array<u32>;
@group(0) @binding(4) var<storage, read_write> pairSum: array<f32>;
@group(0) @binding(5) var<storage, read_write> metrics: array<f32>;

@compute @workgroup_size(1)
fn main() {
  var sum = 0.0;
  var count = 0.0;
  for (var i = 0u; i < u.m; i++) {
    if (pairValid[i] == 0u) { continue; }
    sum += policy[u.m + i] - reference[u.m + i];
    count += 1.0;
  }
  pairSum[0] += sum;
  pairSum[1] += count;
  metrics[4] += f32(u.m);
  metrics[5] += f32(u.m) - count;
}
