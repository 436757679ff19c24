// columnPartials: f32 in vectors of four.

struct Uniforms { T: u32, W: u32, C: u32, G: u32, firstColumn: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> dy: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> partials: array<vec4f>;

alias E = vec4f;
alias A = vec4f;
const LANES: u32 = 4u;
fn total(x: E) -> f32 { return (x.x + x.y) + (x.z + x.w); }

fn element(block: u32, c: u32) {
  let width = u.C / LANES;
  let rowsPerBlock = (u.T + u.G - 1u) / u.G;
  let first = block * rowsPerBlock;
  var sum = E();
  for (var row = first; row < min(first + rowsPerBlock, u.T); row++) { sum += dy[(row * u.W + u.firstColumn) / LANES + c]; }
  partials[block * width + c] = sum;
}

@compute @workgroup_size(16, 4)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = (group.y + group.z * 32768u) * 4u + local.y;
  let column = group.x * 16u + local.x;
  if (row < u.G && column < u.C / LANES) { element(row, column); }
}
