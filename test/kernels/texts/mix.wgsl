// mix: f32 in vectors of four.

struct Uniforms { n: u32, share: f32, rest: f32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> policy: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> reference: array<vec4f>;

alias E = vec4f;
alias A = vec4f;
const LANES: u32 = 4u;
fn total(x: E) -> f32 { return (x.x + x.y) + (x.z + x.w); }

fn element(i: u32) {
  reference[i] = u.share * policy[i] + u.rest * reference[i];
}

fn linearGroup(id: vec3u) -> u32 { return id.x + id.y * 32768u; }

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = linearGroup(group) * 64u + lane;
  if (i < u.n / LANES) { element(i); }
}
