// likeliestToken: f32 in vectors of four.

struct Uniforms { N: u32, V: u32, firstToken: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> logits: array<vec4f>;
@group(0) @binding(2) var<storage, read> draws: array<vec4u>;
@group(0) @binding(3) var<storage, read_write> best: array<f32>;
@group(0) @binding(4) var<storage, read_write> tokens: array<u32>;

alias E = vec4f;
alias A = vec4f;
const LANES: u32 = 4u;
fn total(x: E) -> f32 { return (x.x + x.y) + (x.z + x.w); }

var<workgroup> groupBest: array<f32, 128>;
var<workgroup> groupToken: array<u32, 128>;
const NO_TOKEN: u32 = 4294967295u;
// By its bits: compilers may take it for granted that numbers are finite.
fn isFinite(x: f32) -> bool { return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u; }
@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = group.x;
  let width = u.V / LANES;
  let draw = draws[row];
  var most = -3.4e38;
  var token = NO_TOKEN - 1u;
  var finite = true;
  for (var i = lane; i < width; i += 128u) {
    let logit = logits[row * width + i];
    var value = logit;
    if (value.x > most) { most = value.x; token = LANES * i + 0u; } finite &= isFinite(logit.x);
    if (value.y > most) { most = value.y; token = LANES * i + 1u; } finite &= isFinite(logit.y);
    if (value.z > most) { most = value.z; token = LANES * i + 2u; } finite &= isFinite(logit.z);
    if (value.w > most) { most = value.w; token = LANES * i + 3u; } finite &= isFinite(logit.w);
  }
  groupBest[lane] = most;
  groupToken[lane] = select(NO_TOKEN, token, finite);
  workgroupBarrier();
  for (var half = 64u; half > 0u; half /= 2u) {
    if (lane < half) {
      let own = groupToken[lane];
      let other = groupToken[lane + half];
      let wins = groupBest[lane + half] > groupBest[lane] || (groupBest[lane + half] == groupBest[lane] && other < own);
      if (own != NO_TOKEN && (other == NO_TOKEN || wins)) {
        groupBest[lane] = groupBest[lane + half];
        groupToken[lane] = other;
      }
    }
    workgroupBarrier();
  }
  if (lane == 0u) {
    let found = groupToken[0];
    let before = u.firstToken > 0u;
    if (!before || (tokens[row] != NO_TOKEN && (found == NO_TOKEN || groupBest[0] > best[row]))) {
      best[row] = groupBest[0];
      tokens[row] = select(found + u.firstToken, NO_TOKEN, found == NO_TOKEN);
    }
  }
}
