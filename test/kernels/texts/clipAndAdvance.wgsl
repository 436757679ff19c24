// clipAndAdvance: the only one.

struct Uniforms { maxNorm: f32, beta1: f32, beta2: f32, complement1: f32, complement2: f32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> partials: array<f32>;
@group(0) @binding(2) var<storage, read_write> state: array<f32>;

@compute @workgroup_size(1)
fn main() {
  var sum = 0.0;
  for (var i = 0u; i < 256u; i++) { sum += partials[i]; }
  let finite = (bitcast<u32>(sum) & 0x7f800000u) != 0x7f800000u;
  let norm = sqrt(sum);
  state[0] = norm;
  state[2] = select(1.0, 0.0, finite);
  if (!finite) {
    state[1] = 0.0;
    state[6] += 1.0;
    state[7] += 1.0;
    return;
  }
  state[7] = 0.0;
  state[1] = select(1.0, min(1.0, u.maxNorm / (norm + 1e-6)), u.maxNorm > 0.0);
  state[3] = state[3] * u.beta1 + u.complement1;
  state[4] = state[4] * u.beta2 + u.complement2;
  state[5] += 1.0;
}
