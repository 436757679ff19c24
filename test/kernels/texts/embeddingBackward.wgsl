// embeddingBackward: f32 in vectors of four.

struct Uniforms { B: u32, T: u32, V: u32, C: u32, firstRow: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> dy: array<vec4f>;
@group(0) @binding(2) var<storage, read> order: array<u32>;
@group(0) @binding(3) var<storage, read> bucketIds: array<u32>;
@group(0) @binding(4) var<storage, read> bucketStarts: array<u32>;
@group(0) @binding(5) var<storage, read_write> dTable: array<vec4f>;

alias E = vec4f;
alias A = vec4f;
const LANES: u32 = 4u;
fn total(x: E) -> f32 { return (x.x + x.y) + (x.z + x.w); }

fn element(bucket: u32, column: u32) {
  let width = u.C / LANES;
  let id = bucketIds[bucket] - u.firstRow;
  if (id >= u.V) { return; }
  var sum = E();
  for (var at = bucketStarts[bucket]; at < bucketStarts[bucket + 1u]; at++) {
    sum += dy[order[at] * width + column];
  }
  dTable[id * width + column] += sum;
}

@compute @workgroup_size(16, 4)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = (group.y + group.z * 32768u) * 4u + local.y;
  let column = group.x * 16u + local.x;
  if (row < u.B && column < u.C / LANES) { element(row, column); }
}
