// shortConvolutionBackwardOutput: 4 taps, silu around, f32 in vectors of four.

struct Uniforms { T: u32, C: u32, W: u32, hasBias: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<vec4f>;
@group(0) @binding(4) var<storage, read> ranges: array<vec4u>;
@group(0) @binding(5) var<storage, read> positions: array<u32>;
@group(0) @binding(6) var<storage, read_write> dOut: array<vec4f>;
@group(0) @binding(7) var<storage, read_write> dx: array<vec4f>;

alias E = vec4f;
alias A = vec4f;
const LANES: u32 = 4u;
fn total(x: E) -> f32 { return (x.x + x.y) + (x.z + x.w); }

fn sigmoid(x: E) -> E {
  let e = exp(-abs(x));
  return select(e, E(1.0), x >= E()) / (1.0 + e);
}

fn input(row: u32, c: u32) -> E { return E(x[row * (u.W / LANES) + c]); }
fn element(block: u32, c: u32) {
  let tap0 = E(weight[(4u * c + 0u) * 4u + 3u], weight[(4u * c + 1u) * 4u + 3u], weight[(4u * c + 2u) * 4u + 3u], weight[(4u * c + 3u) * 4u + 3u]);
  let tap1 = E(weight[(4u * c + 0u) * 4u + 2u], weight[(4u * c + 1u) * 4u + 2u], weight[(4u * c + 2u) * 4u + 2u], weight[(4u * c + 3u) * 4u + 2u]);
  let tap2 = E(weight[(4u * c + 0u) * 4u + 1u], weight[(4u * c + 1u) * 4u + 1u], weight[(4u * c + 2u) * 4u + 1u], weight[(4u * c + 3u) * 4u + 1u]);
  let tap3 = E(weight[(4u * c + 0u) * 4u + 0u], weight[(4u * c + 1u) * 4u + 0u], weight[(4u * c + 2u) * 4u + 0u], weight[(4u * c + 3u) * 4u + 0u]);
  for (var row = block * 8u; row < min((block + 1u) * 8u, u.T); row++) {
    let prefixEnd = ranges[row].y;
    let inBranch = row - ranges[row].z;
    let position = positions[row] & 0x7fffffffu;
    var z = tap0 * input(row, c);
    if (u.hasBias != 0u) { z += bias[c]; }
    if (inBranch >= 1u) { z += tap1 * input(row - 1u, c); }
    else if (position >= 1u) { z += tap1 * input(prefixEnd + inBranch - 1u, c); }
    if (inBranch >= 2u) { z += tap2 * input(row - 2u, c); }
    else if (position >= 2u) { z += tap2 * input(prefixEnd + inBranch - 2u, c); }
    if (inBranch >= 3u) { z += tap3 * input(row - 3u, c); }
    else if (position >= 3u) { z += tap3 * input(prefixEnd + inBranch - 3u, c); }
    let i = row * (u.C / LANES) + c;
    let s = sigmoid(z);
    dOut[i] *= s * (1.0 + z * (1.0 - s));
  }
}

@compute @workgroup_size(16, 4)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = (group.y + group.z * 32768u) * 4u + local.y;
  let column = group.x * 16u + local.x;
  if (row < (u.T + 7u) / 8u && column < u.C / LANES) { element(row, column); }
}
