// sequenceSums: the only one.

struct Uniforms { S: u32, N: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> logProbs: array<f32>;
@group(0) @binding(2) var<storage, read> ranges: array<u32>;
@group(0) @binding(3) var<storage, read_write> sums: array<f32>;

// Neumaier's compensated sum: a sequence of a thousand tokens loses no digits that its terms have.
fn element(sequence: u32) {
  var sum = 0.0;
  var lost = 0.0;
  for (var n = ranges[2u * sequence]; n < ranges[2u * sequence + 1u]; n++) {
    let term = logProbs[n];
    let next = sum + term;
    lost += select((term - next) + sum, (sum - next) + term, abs(sum) >= abs(term));
    sum = next;
  }
  sums[sequence] = sum + lost;
}

fn linearGroup(id: vec3u) -> u32 { return id.x + id.y * 32768u; }

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = linearGroup(group) * 64u + lane;
  if (i < u.S) { element(i); }
}
