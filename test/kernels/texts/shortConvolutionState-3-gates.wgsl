// shortConvolutionState: 3 taps, gates around, f32 in vectors of four.

struct Uniforms { T: u32, C: u32, W: u32, N: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> segments: array<vec4u>;
@group(0) @binding(3) var<storage, read_write> state: array<vec4f>;

alias E = vec4f;
alias A = vec4f;
const LANES: u32 = 4u;
fn total(x: E) -> f32 { return (x.x + x.y) + (x.z + x.w); }

fn part(row: u32, number: u32, c: u32) -> E { return E(x[row * (u.W / LANES) + number * (u.C / LANES) + c]); }
fn input(row: u32, c: u32) -> E { return part(row, 0u, c) * part(row, 2u, c); }
fn element(segment: u32, c: u32) {
  let first = segments[segment].x;
  let count = segments[segment].y - first;
  let slot = segments[segment].z;
  if (count == 0u) { return; }
  // Of the kept rows with those of the pass behind them, the last ones: each lies further on than where it goes.
  for (var i = 0u; i < 2u; i++) {
    let source = i + count;
    var value = E();
    if (source < 2u) { value = state[(slot * 2u + source) * (u.C / LANES) + c]; }
    else { value = input(first + source - 2u, c); }
    state[(slot * 2u + i) * (u.C / LANES) + c] = value;
  }
}

@compute @workgroup_size(16, 4)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = (group.y + group.z * 32768u) * 4u + local.y;
  let column = group.x * 16u + local.x;
  if (row < u.N && column < u.C / LANES) { element(row, column); }
}
