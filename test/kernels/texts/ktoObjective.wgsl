// ktoObjective: the only one.

struct Uniforms { m: u32, beta: f32, desirableWeight: f32, undesirableWeight: f32, clamped: u32, wholeUpdate: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> policy: array<f32>;
@group(0) @binding(2) var<storage, read> reference: array<f32>;
@group(0) @binding(3) var<storage, read> desirable: array<u32>;
@group(0) @binding(4) var<storage, read> pairSum: array<f32>;
@group(0) @binding(5) var<storage, read> step: array<f32>;
@group(0) @binding(6) var<storage, read_write> coefficients: array<f32>;
@group(0) @binding(7) var<storage, read_write> metrics: array<f32>;

fn sigmoid(x: f32) -> f32 {
  let e = exp(-abs(x));
  return select(e, f32(1.0), x >= f32()) / (1.0 + e);
}

@compute @workgroup_size(1)
fn main() {
  let measured = pairSum[1] > 0.0;
  let mean = select(0.0, pairSum[0] / pairSum[1], measured);
  // max(0, NaN) may be 0: a pair that overflowed must not turn into a reference point.
  let z0 = select(mean, 0.0, u.clamped != 0u && mean < 0.0);
  let known = select(0.0, 1.0, measured || u.clamped != 0u);
  let rows = select(f32(u.m), step[2], u.wholeUpdate != 0u);
  let share = 1.0 / rows;
  let part = f32(u.m) / rows;
  var loss = 0.0;
  for (var i = 0u; i < u.m; i++) {
    let reward = policy[i] - reference[i];
    let good = desirable[i] != 0u;
    let sign = select(-1.0, 1.0, good);
    let weight = select(u.undesirableWeight, u.desirableWeight, good);
    let gain = known * sign * (reward - z0);
    let utility = u.beta * gain;
    let slope = sigmoid(utility) * sigmoid(-utility);
    loss += weight * sigmoid(-utility) * share;
    coefficients[i] = -known * sign * weight * u.beta * slope * share * step[1];
    if (good) {
      metrics[6] += 1.0;
      metrics[8] += u.beta * reward;
      metrics[10] += policy[i];
    } else {
      metrics[7] += 1.0;
      metrics[9] += u.beta * reward;
      metrics[11] += policy[i];
    }
    if (gain > 0.0) { metrics[12] += 1.0; }
    if (slope < 0.01) { metrics[13] += 1.0; }
  }
  metrics[0] += loss;
  metrics[1] += part;
  metrics[2] += part * z0;
  metrics[3] += part * mean;
  if (measured) { metrics[14] += part; }
}
