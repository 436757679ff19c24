// shortConvolutionWeightPartials: 4 taps, silu around, f32 in vectors of four.

struct Uniforms { T: u32, C: u32, W: u32, G: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> dz: array<vec4f>;
@group(0) @binding(2) var<storage, read> x: array<vec4f>;
@group(0) @binding(3) var<storage, read> ranges: array<vec4u>;
@group(0) @binding(4) var<storage, read> positions: array<u32>;
@group(0) @binding(5) var<storage, read_write> partials: array<f32>;

alias E = vec4f;
alias A = vec4f;
const LANES: u32 = 4u;
fn total(x: E) -> f32 { return (x.x + x.y) + (x.z + x.w); }

fn input(row: u32, c: u32) -> E { return E(x[row * (u.W / LANES) + c]); }
fn element(block: u32, c: u32) {
  let rowsPerBlock = (u.T + u.G - 1u) / u.G;
  let first = block * rowsPerBlock;
  var sum0 = E();
  var sum1 = E();
  var sum2 = E();
  var sum3 = E();
  for (var row = first; row < min(first + rowsPerBlock, u.T); row++) {
    let prefixEnd = ranges[row].y;
    let inBranch = row - ranges[row].z;
    let position = positions[row] & 0x7fffffffu;
    let own = dz[row * (u.C / LANES) + c];
    sum0 += own * input(row, c);
    if (inBranch >= 1u) { sum1 += own * input(row - 1u, c); }
    else if (position >= 1u) { sum1 += own * input(prefixEnd + inBranch - 1u, c); }
    if (inBranch >= 2u) { sum2 += own * input(row - 2u, c); }
    else if (position >= 2u) { sum2 += own * input(prefixEnd + inBranch - 2u, c); }
    if (inBranch >= 3u) { sum3 += own * input(row - 3u, c); }
    else if (position >= 3u) { sum3 += own * input(prefixEnd + inBranch - 3u, c); }
  }
  let at = block * u.C * 4u + LANES * c * 4u;
  partials[at + 3u] = sum0[0];
  partials[at + 7u] = sum0[1];
  partials[at + 11u] = sum0[2];
  partials[at + 15u] = sum0[3];
  partials[at + 2u] = sum1[0];
  partials[at + 6u] = sum1[1];
  partials[at + 10u] = sum1[2];
  partials[at + 14u] = sum1[3];
  partials[at + 1u] = sum2[0];
  partials[at + 5u] = sum2[1];
  partials[at + 9u] = sum2[2];
  partials[at + 13u] = sum2[3];
  partials[at + 0u] = sum3[0];
  partials[at + 4u] = sum3[1];
  partials[at + 8u] = sum3[2];
  partials[at + 12u] = sum3[3];
}

@compute @workgroup_size(16, 4)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = (group.y + group.z * 32768u) * 4u + local.y;
  let column = group.x * 16u + local.x;
  if (row < u.G && column < u.C / LANES) { element(row, column); }
}
