// shortConvolutionBackwardInput: 3 taps, gates around, f32 in vectors of four.

struct Uniforms { T: u32, C: u32, W: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> dz: array<vec4f>;
@group(0) @binding(2) var<storage, read> x: array<vec4f>;
@group(0) @binding(3) var<storage, read> weight: array<f32>;
@group(0) @binding(4) var<storage, read> queryEnd: array<u32>;
@group(0) @binding(5) var<storage, read_write> dx: array<vec4f>;

alias E = vec4f;
alias A = vec4f;
const LANES: u32 = 4u;
fn total(x: E) -> f32 { return (x.x + x.y) + (x.z + x.w); }

fn part(row: u32, number: u32, c: u32) -> E { return E(x[row * (u.W / LANES) + number * (u.C / LANES) + c]); }
fn input(row: u32, c: u32) -> E { return part(row, 0u, c) * part(row, 2u, c); }
fn element(block: u32, c: u32) {
  let tap0 = E(weight[(4u * c + 0u) * 3u + 2u], weight[(4u * c + 1u) * 3u + 2u], weight[(4u * c + 2u) * 3u + 2u], weight[(4u * c + 3u) * 3u + 2u]);
  let tap1 = E(weight[(4u * c + 0u) * 3u + 1u], weight[(4u * c + 1u) * 3u + 1u], weight[(4u * c + 2u) * 3u + 1u], weight[(4u * c + 3u) * 3u + 1u]);
  let tap2 = E(weight[(4u * c + 0u) * 3u + 0u], weight[(4u * c + 1u) * 3u + 0u], weight[(4u * c + 2u) * 3u + 0u], weight[(4u * c + 3u) * 3u + 0u]);
  let width = u.C / LANES;
  for (var row = block * 8u; row < min((block + 1u) * 8u, u.T); row++) {
    let i = row * width + c;
    let end = queryEnd[row];
    var du = tap0 * dz[i];
    if (row + 1u < end) { du += tap1 * dz[i + 1u * width]; }
    if (row + 2u < end) { du += tap2 * dz[i + 2u * width]; }
    let first = row * (u.W / LANES) + c;
    dx[first] = du * part(row, 2u, c);
    dx[first + 2u * width] = du * part(row, 0u, c);
  }
}

@compute @workgroup_size(16, 4)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = (group.y + group.z * 32768u) * 4u + local.y;
  let column = group.x * 16u + local.x;
  if (row < (u.T + 7u) / 8u && column < u.C / LANES) { element(row, column); }
}
