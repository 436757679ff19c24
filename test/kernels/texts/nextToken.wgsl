// nextToken: f32 in vectors of four.

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

fn threefry(key: vec2u, counter: vec2u) -> vec2u {
  let third = key.x ^ key.y ^ 466688986u;
  var x = counter + key;
  x.x += x.y; x.y = ((x.y << 13u) | (x.y >> 19u)) ^ x.x;
  x.x += x.y; x.y = ((x.y << 15u) | (x.y >> 17u)) ^ x.x;
  x.x += x.y; x.y = ((x.y << 26u) | (x.y >> 6u)) ^ x.x;
  x.x += x.y; x.y = ((x.y << 6u) | (x.y >> 26u)) ^ x.x;
  x += vec2u(key.y, third + 1u);
  x.x += x.y; x.y = ((x.y << 17u) | (x.y >> 15u)) ^ x.x;
  x.x += x.y; x.y = ((x.y << 29u) | (x.y >> 3u)) ^ x.x;
  x.x += x.y; x.y = ((x.y << 16u) | (x.y >> 16u)) ^ x.x;
  x.x += x.y; x.y = ((x.y << 24u) | (x.y >> 8u)) ^ x.x;
  x += vec2u(third, key.x + 2u);
  x.x += x.y; x.y = ((x.y << 13u) | (x.y >> 19u)) ^ x.x;
  x.x += x.y; x.y = ((x.y << 15u) | (x.y >> 17u)) ^ x.x;
  x.x += x.y; x.y = ((x.y << 26u) | (x.y >> 6u)) ^ x.x;
  x.x += x.y; x.y = ((x.y << 6u) | (x.y >> 26u)) ^ x.x;
  x += vec2u(key.x, key.y + 3u);
  x.x += x.y; x.y = ((x.y << 17u) | (x.y >> 15u)) ^ x.x;
  x.x += x.y; x.y = ((x.y << 29u) | (x.y >> 3u)) ^ x.x;
  x.x += x.y; x.y = ((x.y << 16u) | (x.y >> 16u)) ^ x.x;
  x.x += x.y; x.y = ((x.y << 24u) | (x.y >> 8u)) ^ x.x;
  x += vec2u(key.y, third + 4u);
  x.x += x.y; x.y = ((x.y << 13u) | (x.y >> 19u)) ^ x.x;
  x.x += x.y; x.y = ((x.y << 15u) | (x.y >> 17u)) ^ x.x;
  x.x += x.y; x.y = ((x.y << 26u) | (x.y >> 6u)) ^ x.x;
  x.x += x.y; x.y = ((x.y << 6u) | (x.y >> 26u)) ^ x.x;
  x += vec2u(third, key.x + 5u);
  return x;
}
fn noise(draw: vec4u, i: u32) -> E {
  let words = vec4u(threefry(draw.xy, vec2u(2u * i, draw.z)), threefry(draw.xy, vec2u(2u * i + 1u, draw.z)));
  let v = min((E(words) + 0.5) * 2.3283064365386963e-10, E(0.9999999403953552));
  let series = v * (1.0 + v * (1.0 / 2.0 + v * (1.0 / 3.0 + v * (1.0 / 4.0 + v * (1.0 / 5.0 + v / 6.0)))));
  return -log(select(-log(1.0 - v), series, v < E(0.0625)));
}
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
  let temperature = bitcast<f32>(draw.w);
  var most = -3.4e38;
  var token = NO_TOKEN - 1u;
  var finite = true;
  for (var i = lane; i < width; i += 128u) {
    let logit = logits[row * width + i];
    var value = logit;
    if (temperature > 0.0) { value += temperature * noise(draw, i + u.firstToken / LANES); }
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
