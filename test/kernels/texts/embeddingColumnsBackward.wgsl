// embeddingColumnsBackward: the only one.

struct Uniforms { B: u32, T: u32, R: u32, V: u32, C: u32, firstRow: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read> order: array<u32>;
@group(0) @binding(3) var<storage, read> bucketIds: array<u32>;
@group(0) @binding(4) var<storage, read> bucketStarts: array<u32>;
@group(0) @binding(5) var<storage, read_write> dTable: array<f32>;

fn element(bucket: u32, k: u32) {
  let id = bucketIds[bucket];
  if (id >= u.V) { return; }
  var sum = 0.0;
  for (var at = bucketStarts[bucket]; at < bucketStarts[bucket + 1u]; at++) {
    sum += dy[order[at] * u.C + u.firstRow + k];
  }
  dTable[k * u.V + id] += sum;
}

@compute @workgroup_size(16, 4)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = (group.y + group.z * 32768u) * 4u + local.y;
  let column = group.x * 16u + local.x;
  if (row < u.B && column < u.R) { element(row, column); }
}
