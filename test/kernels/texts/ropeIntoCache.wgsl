// ropeIntoCache: f32 in vectors of four.

struct Uniforms { T: u32, W: u32, P: u32, V: u32, KV: u32, heads: u32, halfSize: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> positions: array<u32>;
@group(0) @binding(2) var<storage, read> table: array<vec4f>;
@group(0) @binding(3) var<storage, read> cacheRows: array<u32>;
@group(0) @binding(4) var<storage, read_write> x: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> keys: array<vec4f>;
@group(0) @binding(6) var<storage, read_write> values: array<vec4f>;

alias E = vec4f;
alias A = vec4f;
const LANES: u32 = 4u;
fn total(x: E) -> f32 { return (x.x + x.y) + (x.z + x.w); }

fn element(row: u32, column: u32) {
  let half = u.halfSize / LANES;
  let head = column / half;
  let pair = column - head * half;
  let at = row * (u.W / LANES) + head * 2u * half + pair;
  let x1 = x[at];
  let x2 = x[at + half];
  let keyHeads = u.KV / (2u * u.halfSize);
  let cacheRow = cacheRows[row];
  let cached = cacheRow * (u.KV / LANES) + pair;
  if (head >= u.heads + keyHeads) {
    if (cacheRow < u.V) {
      let place = cached + (head - u.heads - keyHeads) * 2u * half;
      values[place] = x1;
      values[place + half] = x2;
    }
    return;
  }
  let entry = min(positions[row], u.P - 1u) * 2u * half + pair;
  let cosine = table[entry];
  let sine = table[entry + half];
  let y1 = x1 * cosine - x2 * sine;
  let y2 = x2 * cosine + x1 * sine;
  if (head < u.heads) {
    x[at] = y1;
    x[at + half] = y2;
  } else if (cacheRow < u.V) {
    let place = cached + (head - u.heads) * 2u * half;
    keys[place] = y1;
    keys[place + half] = y2;
  }
}

@compute @workgroup_size(16, 4)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = (group.y + group.z * 32768u) * 4u + local.y;
  let column = group.x * 16u + local.x;
  if (row < u.T && column < u.W / LANES / 2u) { element(row, column); }
}
