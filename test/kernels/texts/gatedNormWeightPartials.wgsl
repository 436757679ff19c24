// gatedNormWeightPartials: f32 in vectors of four.

struct Uniforms { T: u32, G: u32, D: u32, heads: u32, zFrom: u32, blocks: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> inverse: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<vec4f>;
@group(0) @binding(3) var<storage, read> x: array<vec4f>;
@group(0) @binding(4) var<storage, read> gates: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> partials: array<vec4f>;

alias E = vec4f;
alias A = vec4f;
const LANES: u32 = 4u;
fn total(x: E) -> f32 { return (x.x + x.y) + (x.z + x.w); }

fn sigmoid(x: E) -> E {
  let e = exp(-abs(x));
  return select(e, E(1.0), x >= E()) / (1.0 + e);
}

fn element(block: u32, d: u32) {
  let size = u.D / LANES;
  let rowsPerBlock = (u.T + u.blocks - 1u) / u.blocks;
  let first = block * rowsPerBlock;
  var sum = E();
  for (var row = first; row < min(first + rowsPerBlock, u.T); row++) {
    for (var head = 0u; head < u.heads; head++) {
      let index = row * u.heads + head;
      let z = E(gates[(row * u.G + u.zFrom) / LANES + head * size + d]);
      sum += dy[index * size + d] * x[index * size + d] * inverse[index] * z * sigmoid(z);
    }
  }
  partials[block * size + d] = sum;
}

@compute @workgroup_size(16, 4)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = (group.y + group.z * 32768u) * 4u + local.y;
  let column = group.x * 16u + local.x;
  if (row < u.blocks && column < u.D / LANES) { element(row, column); }
}
