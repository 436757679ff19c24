// projectIntoCache: 1 x 64 x 64 in f32, heads of 64, a norm before it, subgroups of 8 on a software adapter, tile column4.

enable subgroups;
struct Uniforms { M: u32, N: u32, K: u32, aWidth: u32, aFrom: u32, heads: u32, KV: u32, V: u32, P: u32, tiles: u32, epsilon: f32, firstGroupX: u32, firstGroupY: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> a: array<vec4f>;
@group(0) @binding(2) var<storage, read> b: array<vec4f>;
@group(0) @binding(3) var<storage, read> table: array<vec4f>;
@group(0) @binding(4) var<storage, read> ranges: array<vec4u>;
@group(0) @binding(5) var<storage, read> squares: array<f32>;
@group(0) @binding(6) var<storage, read_write> out: array<vec4f>;
@group(0) @binding(7) var<storage, read_write> keys: array<vec4f>;
@group(0) @binding(8) var<storage, read_write> values: array<vec4f>;
fn placeInGrid(group: vec3u) -> vec3u { return group + vec3u(u.firstGroupX, u.firstGroupY, 0u); }

fn readA(line: u32, at: u32) -> vec4f {
  let four = (min(line, u.M - 1u) * u.aWidth + u.aFrom + min(at, u.K - 4u)) / 4u;
  return a[four];
}

fn readB(line: u32, at: u32) -> vec4f {
  let four = (min(line, u.N - 1u) * u.K + min(at, u.K - 4u)) / 4u;
  return b[four];
}
fn alongLane(part: vec4f) -> f32 { return (part.x + part.y) + (part.z + part.w); }
fn onlyFactor(lane: u32) -> f32 {
  var squared = 0.0;
  for (var tile = lane; tile < u.tiles; tile += 8u) { squared += squares[tile]; }
  return inverseSqrt(subgroupAdd(squared) / f32(u.K) + u.epsilon);
}

const HEAD: u32 = 64u;
const HALF: u32 = 32u;
fn storeHalves(row: u32, column: u32, x1: vec4f, x2: vec4f) {
  if (column >= u.N) { return; }
  let head = column / HEAD;
  let keyHeads = u.KV / HEAD;
  let seen = ranges[row];
  let cacheRow = seen.w - 1u;
  let isCached = cacheRow < u.V;
  if (head >= u.heads + keyHeads) {
    let place = (cacheRow * u.KV + column - (u.heads + keyHeads) * HEAD) / 4u;
    if (isCached) {
      values[place] = x1;
      values[place + HALF / 4u] = x2;
    }
    return;
  }
  let entry = (min(cacheRow - seen.z, u.P - 1u) * HEAD + column % HEAD) / 4u;
  let cosine = table[entry];
  let sine = table[entry + HALF / 4u];
  let y1 = x1 * cosine - x2 * sine;
  let y2 = x2 * cosine + x1 * sine;
  if (head < u.heads) {
    let place = (row * u.N + column) / 4u;
    out[place] = y1;
    out[place + HALF / 4u] = y2;
  } else if (isCached) {
    let place = (cacheRow * u.KV + column - u.heads * HEAD) / 4u;
    keys[place] = y1;
    keys[place + HALF / 4u] = y2;
  }
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let origin = placeInGrid(group);
  let place = select(origin.xy, origin.yx, u.N >= u.M);
  let firstRow = place.y * 1u;
  let firstColumn = place.x * 32u;
  let ownFirst = firstRow;
  let firstHalf = firstColumn / 2u + firstColumn / 64u * 32u;
  let factor = onlyFactor(lane);
  var total0 = 0.0; var total1 = 0.0; var total2 = 0.0; var total3 = 0.0;
  for (var here = 0u; here < (4u + (u.M >> 31u)); here++) {
    let column = firstHalf + here % 2u * 8u + lane + here / 2u * 32u;
    var part = vec4f();
    for (var start = 0u; start < u.K; start += 32u) {
      var ahead: vec4f = readA(firstRow, start + 4u * lane);
      ahead = select(vec4f(), ahead, start + 4u * lane < u.K);
      for (var k = start; k < min(start + 32u, u.K); k += 16u) {
        let b0 = readB(column, k + 0u);
        let b1 = readB(column, k + 4u);
        let b2 = readB(column, k + 8u);
        let b3 = readB(column, k + 12u);
        part = fma(b0, subgroupShuffle(ahead, (k - start) / 4u + 0u), part);
        part = fma(b1, subgroupShuffle(ahead, (k - start) / 4u + 1u), part);
        part = fma(b2, subgroupShuffle(ahead, (k - start) / 4u + 2u), part);
        part = fma(b3, subgroupShuffle(ahead, (k - start) / 4u + 3u), part);
      }
    }
    let own = alongLane(part) * factor;
    total0 = select(total0, own, here == 0u); total1 = select(total1, own, here == 1u); total2 = select(total2, own, here == 2u); total3 = select(total3, own, here == 3u);
  }
  // A lane stores four neighbours of one set, from its lane `first` on.
  let owner = 4u * lane / 8u;
  let first = 4u * lane % 8u;
  let column = select(u.N, firstHalf + 4u * lane, lane < 4u);
  let four = vec4f(select(subgroupShuffle(total1, first + 0u), subgroupShuffle(total0, first + 0u), owner == 0u), select(subgroupShuffle(total1, first + 1u), subgroupShuffle(total0, first + 1u), owner == 0u), select(subgroupShuffle(total1, first + 2u), subgroupShuffle(total0, first + 2u), owner == 0u), select(subgroupShuffle(total1, first + 3u), subgroupShuffle(total0, first + 3u), owner == 0u));
  let otherFour = vec4f(select(subgroupShuffle(total3, first + 0u), subgroupShuffle(total2, first + 0u), owner == 0u), select(subgroupShuffle(total3, first + 1u), subgroupShuffle(total2, first + 1u), owner == 0u), select(subgroupShuffle(total3, first + 2u), subgroupShuffle(total2, first + 2u), owner == 0u), select(subgroupShuffle(total3, first + 3u), subgroupShuffle(total2, first + 3u), owner == 0u));
  let sum0 = four; let sum1 = otherFour;
  var sums = array<vec4f, 2>(sum0, sum1);
  for (var row = ownFirst; row < min(ownFirst + 1u, u.M); row++) {
    storeHalves(row, column, sums[(row - ownFirst) * 2u + 0u], sums[(row - ownFirst) * 2u + 1u]);
  }
}
