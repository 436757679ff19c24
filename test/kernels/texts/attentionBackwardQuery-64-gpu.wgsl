// attentionBackwardQuery: head size 64, subgroups of 32 on a GPU, many rows.

enable subgroups;
struct Uniforms { T: u32, H: u32, groupSize: u32, width: u32, qFrom: u32, kFrom: u32, vFrom: u32, keysPerRow: f32, firstGroupX: u32, firstGroupY: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> fused: array<vec4f>;
@group(0) @binding(2) var<storage, read> out: array<vec4f>;
@group(0) @binding(3) var<storage, read> dOut: array<vec4f>;
@group(0) @binding(4) var<storage, read> logSumExp: array<f32>;
@group(0) @binding(5) var<storage, read> ranges: array<vec4u>;
@group(0) @binding(6) var<storage, read_write> dFused: array<vec4f>;
@group(0) @binding(7) var<storage, read_write> delta: array<f32>;
fn placeInGrid(group: vec3u) -> vec3u { return group + vec3u(u.firstGroupX, u.firstGroupY, 0u); }

alias E = vec4f;
alias X = f32;
alias XU = u32;
const UNIT: u32 = 4u;
const HEAD: u32 = 16u;
const SCALE: f32 = 0.125;
const NONE: u32 = 0xffffffffu;
fn fusedFour(start: u32, d: u32) -> vec4f { return fused[start + d / 4u]; }
fn outFour(start: u32, d: u32) -> vec4f { return out[start + d / 4u]; }
fn dOutFour(start: u32, d: u32) -> vec4f { return dOut[start + d / 4u]; }
fn store(start: u32, d: u32, value: vec4f) {
  dFused[start + d / 4u] = value;
}
fn largest(x: X) -> f32 { return x; }
fn total(x: X) -> f32 { return x; }
// The first of [start, end) that is not before `least`.
fn firstFrom(start: u32, end: u32, least: u32) -> u32 {
  let first = max(start, least);
  return select(NONE, first, first < end);
}

@diagnostic(off, subgroup_uniformity)
fn lanesMax(own: f32) -> f32 {
  var x: f32 = own;
  x = max(x, subgroupShuffleXor(x, 1u));
  x = max(x, subgroupShuffleXor(x, 2u));
  x = max(x, subgroupShuffleXor(x, 4u));
  x = max(x, subgroupShuffleXor(x, 8u));
  x = max(x, subgroupShuffleXor(x, 16u));
  return x;
}
@diagnostic(off, subgroup_uniformity)
fn lanesSum(own: f32) -> f32 {
  var x: f32 = own;
  x += subgroupShuffleXor(x, 1u);
  x += subgroupShuffleXor(x, 2u);
  x += subgroupShuffleXor(x, 4u);
  x += subgroupShuffleXor(x, 8u);
  x += subgroupShuffleXor(x, 16u);
  return x;
}
@diagnostic(off, subgroup_uniformity)
fn lanesLeast(own: u32) -> u32 { return subgroupMin(own); }
@diagnostic(off, subgroup_uniformity)
fn lanesMost(own: u32) -> u32 { return subgroupMax(own); }

fn keyAt(key: u32, kvHead: u32, end: u32) -> u32 { return (min(key, end - 1u) * u.width + u.kFrom) / UNIT + kvHead * HEAD; }
fn valueAt(key: u32, kvHead: u32, end: u32) -> u32 { return (min(key, end - 1u) * u.width + u.vFrom) / UNIT + kvHead * HEAD; }
@diagnostic(off, subgroup_uniformity)
fn element(kvHead: u32, tile: u32, lane: u32) {
  var queryHeld: array<u32, 1>;
  var gradientHeld: array<u32, 1>;
  var resultHeld: array<u32, 1>;
  var normalizerHeld: array<f32, 1>;
  var startHeld: array<u32, 1>;
  var endHeld: array<u32, 1>;
  var rowDeltaHeld: array<f32, 1>;
  for (var i = 0u; i < (1u + (u.H >> 31u)); i++) {
    let own = min(tile * 16u + i * 32u + lane % 16u, u.T * u.groupSize - 1u);
    let token = own / u.groupSize;
    let head = kvHead * u.groupSize + own % u.groupSize;
    let result = token * u.H + head;
    let query = (token * u.width + u.qFrom) / UNIT + head * HEAD;
    let gradient = result * HEAD;
    let normalizer = logSumExp[result];
    let start = ranges[token].z;
    let end = ranges[token].w;
    var rowDelta = 0.0;
    for (var d = 0u; d < (64u + (u.H >> 31u)); d += 4u) { rowDelta += dot(dOutFour(gradient, d), outFour(gradient, d)); }
    queryHeld[i] = query;
    gradientHeld[i] = gradient;
    resultHeld[i] = result;
    normalizerHeld[i] = normalizer;
    startHeld[i] = start;
    endHeld[i] = end;
    rowDeltaHeld[i] = rowDelta;
  }
  let query0: u32 = queryHeld[0]; let gradient0: u32 = gradientHeld[0]; let result0: u32 = resultHeld[0]; let normalizer0: f32 = normalizerHeld[0]; let start0: u32 = startHeld[0]; let end0: u32 = endHeld[0]; let rowDelta0: f32 = rowDeltaHeld[0];
  var sum0x0: vec4f;
  var sum0x1: vec4f;
  var sum0x2: vec4f;
  var sum0x3: vec4f;
  var sum0x4: vec4f;
  var sum0x5: vec4f;
  var sum0x6: vec4f;
  var sum0x7: vec4f;
  var sum0x8: vec4f;
  var sum0x9: vec4f;
  var sum0x10: vec4f;
  var sum0x11: vec4f;
  var sum0x12: vec4f;
  var sum0x13: vec4f;
  var sum0x14: vec4f;
  var sum0x15: vec4f;
  let last = lanesMost(end0);
  var key = 0u;
  loop {
    key = lanesLeast(firstFrom(start0, end0, key));
    if (key == NONE) { break; }
    let columns = key + lane * 1u;
    let keys0: u32 = keyAt(columns, kvHead, last);
    let values0: u32 = valueAt(columns, kvHead, last);
    var s0 = X();
    var s1 = X();
    var s2 = X();
    var s3 = X();
    var s4 = X();
    var s5 = X();
    var s6 = X();
    var s7 = X();
    var s8 = X();
    var s9 = X();
    var s10 = X();
    var s11 = X();
    var s12 = X();
    var s13 = X();
    var s14 = X();
    var s15 = X();
    for (var d = 0u; d < (64u + (u.H >> 31u)); d += 4u) {
      let a0: vec4f = fusedFour(query0, d);
      let t0 = fusedFour(keys0, d);
      let b0 = X(t0.x); let b1 = X(t0.y); let b2 = X(t0.z); let b3 = X(t0.w);
      { let a = subgroupBroadcast(a0, 0u); s0 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s0)))); }
      { let a = subgroupBroadcast(a0, 1u); s1 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s1)))); }
      { let a = subgroupBroadcast(a0, 2u); s2 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s2)))); }
      { let a = subgroupBroadcast(a0, 3u); s3 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s3)))); }
      { let a = subgroupBroadcast(a0, 4u); s4 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s4)))); }
      { let a = subgroupBroadcast(a0, 5u); s5 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s5)))); }
      { let a = subgroupBroadcast(a0, 6u); s6 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s6)))); }
      { let a = subgroupBroadcast(a0, 7u); s7 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s7)))); }
      { let a = subgroupBroadcast(a0, 8u); s8 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s8)))); }
      { let a = subgroupBroadcast(a0, 9u); s9 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s9)))); }
      { let a = subgroupBroadcast(a0, 10u); s10 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s10)))); }
      { let a = subgroupBroadcast(a0, 11u); s11 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s11)))); }
      { let a = subgroupBroadcast(a0, 12u); s12 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s12)))); }
      { let a = subgroupBroadcast(a0, 13u); s13 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s13)))); }
      { let a = subgroupBroadcast(a0, 14u); s14 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s14)))); }
      { let a = subgroupBroadcast(a0, 15u); s15 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s15)))); }
    }
    let p0: X = select(X(), exp(s0 * SCALE - subgroupBroadcast(normalizer0, 0u)), (columns >= XU(subgroupBroadcast(start0, 0u))) & (columns < XU(subgroupBroadcast(end0, 0u))));
    let p1: X = select(X(), exp(s1 * SCALE - subgroupBroadcast(normalizer0, 1u)), (columns >= XU(subgroupBroadcast(start0, 1u))) & (columns < XU(subgroupBroadcast(end0, 1u))));
    let p2: X = select(X(), exp(s2 * SCALE - subgroupBroadcast(normalizer0, 2u)), (columns >= XU(subgroupBroadcast(start0, 2u))) & (columns < XU(subgroupBroadcast(end0, 2u))));
    let p3: X = select(X(), exp(s3 * SCALE - subgroupBroadcast(normalizer0, 3u)), (columns >= XU(subgroupBroadcast(start0, 3u))) & (columns < XU(subgroupBroadcast(end0, 3u))));
    let p4: X = select(X(), exp(s4 * SCALE - subgroupBroadcast(normalizer0, 4u)), (columns >= XU(subgroupBroadcast(start0, 4u))) & (columns < XU(subgroupBroadcast(end0, 4u))));
    let p5: X = select(X(), exp(s5 * SCALE - subgroupBroadcast(normalizer0, 5u)), (columns >= XU(subgroupBroadcast(start0, 5u))) & (columns < XU(subgroupBroadcast(end0, 5u))));
    let p6: X = select(X(), exp(s6 * SCALE - subgroupBroadcast(normalizer0, 6u)), (columns >= XU(subgroupBroadcast(start0, 6u))) & (columns < XU(subgroupBroadcast(end0, 6u))));
    let p7: X = select(X(), exp(s7 * SCALE - subgroupBroadcast(normalizer0, 7u)), (columns >= XU(subgroupBroadcast(start0, 7u))) & (columns < XU(subgroupBroadcast(end0, 7u))));
    let p8: X = select(X(), exp(s8 * SCALE - subgroupBroadcast(normalizer0, 8u)), (columns >= XU(subgroupBroadcast(start0, 8u))) & (columns < XU(subgroupBroadcast(end0, 8u))));
    let p9: X = select(X(), exp(s9 * SCALE - subgroupBroadcast(normalizer0, 9u)), (columns >= XU(subgroupBroadcast(start0, 9u))) & (columns < XU(subgroupBroadcast(end0, 9u))));
    let p10: X = select(X(), exp(s10 * SCALE - subgroupBroadcast(normalizer0, 10u)), (columns >= XU(subgroupBroadcast(start0, 10u))) & (columns < XU(subgroupBroadcast(end0, 10u))));
    let p11: X = select(X(), exp(s11 * SCALE - subgroupBroadcast(normalizer0, 11u)), (columns >= XU(subgroupBroadcast(start0, 11u))) & (columns < XU(subgroupBroadcast(end0, 11u))));
    let p12: X = select(X(), exp(s12 * SCALE - subgroupBroadcast(normalizer0, 12u)), (columns >= XU(subgroupBroadcast(start0, 12u))) & (columns < XU(subgroupBroadcast(end0, 12u))));
    let p13: X = select(X(), exp(s13 * SCALE - subgroupBroadcast(normalizer0, 13u)), (columns >= XU(subgroupBroadcast(start0, 13u))) & (columns < XU(subgroupBroadcast(end0, 13u))));
    let p14: X = select(X(), exp(s14 * SCALE - subgroupBroadcast(normalizer0, 14u)), (columns >= XU(subgroupBroadcast(start0, 14u))) & (columns < XU(subgroupBroadcast(end0, 14u))));
    let p15: X = select(X(), exp(s15 * SCALE - subgroupBroadcast(normalizer0, 15u)), (columns >= XU(subgroupBroadcast(start0, 15u))) & (columns < XU(subgroupBroadcast(end0, 15u))));
    var along0 = X();
    var along1 = X();
    var along2 = X();
    var along3 = X();
    var along4 = X();
    var along5 = X();
    var along6 = X();
    var along7 = X();
    var along8 = X();
    var along9 = X();
    var along10 = X();
    var along11 = X();
    var along12 = X();
    var along13 = X();
    var along14 = X();
    var along15 = X();
    for (var d = 0u; d < (64u + (u.H >> 31u)); d += 4u) {
      let a0: vec4f = dOutFour(gradient0, d);
      let t0 = fusedFour(values0, d);
      let b0 = X(t0.x); let b1 = X(t0.y); let b2 = X(t0.z); let b3 = X(t0.w);
      { let a = subgroupBroadcast(a0, 0u); along0 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along0)))); }
      { let a = subgroupBroadcast(a0, 1u); along1 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along1)))); }
      { let a = subgroupBroadcast(a0, 2u); along2 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along2)))); }
      { let a = subgroupBroadcast(a0, 3u); along3 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along3)))); }
      { let a = subgroupBroadcast(a0, 4u); along4 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along4)))); }
      { let a = subgroupBroadcast(a0, 5u); along5 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along5)))); }
      { let a = subgroupBroadcast(a0, 6u); along6 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along6)))); }
      { let a = subgroupBroadcast(a0, 7u); along7 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along7)))); }
      { let a = subgroupBroadcast(a0, 8u); along8 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along8)))); }
      { let a = subgroupBroadcast(a0, 9u); along9 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along9)))); }
      { let a = subgroupBroadcast(a0, 10u); along10 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along10)))); }
      { let a = subgroupBroadcast(a0, 11u); along11 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along11)))); }
      { let a = subgroupBroadcast(a0, 12u); along12 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along12)))); }
      { let a = subgroupBroadcast(a0, 13u); along13 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along13)))); }
      { let a = subgroupBroadcast(a0, 14u); along14 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along14)))); }
      { let a = subgroupBroadcast(a0, 15u); along15 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along15)))); }
    }
    let dScore0: X = p0 * (along0 - subgroupBroadcast(rowDelta0, 0u)) * SCALE;
    let dScore1: X = p1 * (along1 - subgroupBroadcast(rowDelta0, 1u)) * SCALE;
    let dScore2: X = p2 * (along2 - subgroupBroadcast(rowDelta0, 2u)) * SCALE;
    let dScore3: X = p3 * (along3 - subgroupBroadcast(rowDelta0, 3u)) * SCALE;
    let dScore4: X = p4 * (along4 - subgroupBroadcast(rowDelta0, 4u)) * SCALE;
    let dScore5: X = p5 * (along5 - subgroupBroadcast(rowDelta0, 5u)) * SCALE;
    let dScore6: X = p6 * (along6 - subgroupBroadcast(rowDelta0, 6u)) * SCALE;
    let dScore7: X = p7 * (along7 - subgroupBroadcast(rowDelta0, 7u)) * SCALE;
    let dScore8: X = p8 * (along8 - subgroupBroadcast(rowDelta0, 8u)) * SCALE;
    let dScore9: X = p9 * (along9 - subgroupBroadcast(rowDelta0, 9u)) * SCALE;
    let dScore10: X = p10 * (along10 - subgroupBroadcast(rowDelta0, 10u)) * SCALE;
    let dScore11: X = p11 * (along11 - subgroupBroadcast(rowDelta0, 11u)) * SCALE;
    let dScore12: X = p12 * (along12 - subgroupBroadcast(rowDelta0, 12u)) * SCALE;
    let dScore13: X = p13 * (along13 - subgroupBroadcast(rowDelta0, 13u)) * SCALE;
    let dScore14: X = p14 * (along14 - subgroupBroadcast(rowDelta0, 14u)) * SCALE;
    let dScore15: X = p15 * (along15 - subgroupBroadcast(rowDelta0, 15u)) * SCALE;
    for (var i = 0u; i < (16u + (u.H >> 31u)); i++) {
      let owner = i * 2u + lane / 16u;
      let start0 = subgroupShuffle(keys0, owner);
      let a0 = subgroupShuffle(dScore0, owner); let a1 = subgroupShuffle(dScore1, owner); let a2 = subgroupShuffle(dScore2, owner); let a3 = subgroupShuffle(dScore3, owner); let a4 = subgroupShuffle(dScore4, owner); let a5 = subgroupShuffle(dScore5, owner); let a6 = subgroupShuffle(dScore6, owner); let a7 = subgroupShuffle(dScore7, owner); let a8 = subgroupShuffle(dScore8, owner); let a9 = subgroupShuffle(dScore9, owner); let a10 = subgroupShuffle(dScore10, owner); let a11 = subgroupShuffle(dScore11, owner); let a12 = subgroupShuffle(dScore12, owner); let a13 = subgroupShuffle(dScore13, owner); let a14 = subgroupShuffle(dScore14, owner); let a15 = subgroupShuffle(dScore15, owner);
      {
        let b0 = fusedFour(start0, min(0u + lane % 16u * 4u, 60u));
        sum0x0 = fma(vec4f(a0), b0, sum0x0);
        sum0x1 = fma(vec4f(a1), b0, sum0x1);
        sum0x2 = fma(vec4f(a2), b0, sum0x2);
        sum0x3 = fma(vec4f(a3), b0, sum0x3);
        sum0x4 = fma(vec4f(a4), b0, sum0x4);
        sum0x5 = fma(vec4f(a5), b0, sum0x5);
        sum0x6 = fma(vec4f(a6), b0, sum0x6);
        sum0x7 = fma(vec4f(a7), b0, sum0x7);
        sum0x8 = fma(vec4f(a8), b0, sum0x8);
        sum0x9 = fma(vec4f(a9), b0, sum0x9);
        sum0x10 = fma(vec4f(a10), b0, sum0x10);
        sum0x11 = fma(vec4f(a11), b0, sum0x11);
        sum0x12 = fma(vec4f(a12), b0, sum0x12);
        sum0x13 = fma(vec4f(a13), b0, sum0x13);
        sum0x14 = fma(vec4f(a14), b0, sum0x14);
        sum0x15 = fma(vec4f(a15), b0, sum0x15);
      }
    }
    key += 32u;
  }
  {
    sum0x0 += subgroupShuffleXor(sum0x0, 16u);
    sum0x1 += subgroupShuffleXor(sum0x1, 16u);
    sum0x2 += subgroupShuffleXor(sum0x2, 16u);
    sum0x3 += subgroupShuffleXor(sum0x3, 16u);
    sum0x4 += subgroupShuffleXor(sum0x4, 16u);
    sum0x5 += subgroupShuffleXor(sum0x5, 16u);
    sum0x6 += subgroupShuffleXor(sum0x6, 16u);
    sum0x7 += subgroupShuffleXor(sum0x7, 16u);
    sum0x8 += subgroupShuffleXor(sum0x8, 16u);
    sum0x9 += subgroupShuffleXor(sum0x9, 16u);
    sum0x10 += subgroupShuffleXor(sum0x10, 16u);
    sum0x11 += subgroupShuffleXor(sum0x11, 16u);
    sum0x12 += subgroupShuffleXor(sum0x12, 16u);
    sum0x13 += subgroupShuffleXor(sum0x13, 16u);
    sum0x14 += subgroupShuffleXor(sum0x14, 16u);
    sum0x15 += subgroupShuffleXor(sum0x15, 16u);
    let channel = 0u + lane * 4u;
    var values = array<vec4f, 16>(sum0x0, sum0x1, sum0x2, sum0x3, sum0x4, sum0x5, sum0x6, sum0x7, sum0x8, sum0x9, sum0x10, sum0x11, sum0x12, sum0x13, sum0x14, sum0x15);
    var places = array<u32, 16>(subgroupBroadcast(query0, 0u), subgroupBroadcast(query0, 1u), subgroupBroadcast(query0, 2u), subgroupBroadcast(query0, 3u), subgroupBroadcast(query0, 4u), subgroupBroadcast(query0, 5u), subgroupBroadcast(query0, 6u), subgroupBroadcast(query0, 7u), subgroupBroadcast(query0, 8u), subgroupBroadcast(query0, 9u), subgroupBroadcast(query0, 10u), subgroupBroadcast(query0, 11u), subgroupBroadcast(query0, 12u), subgroupBroadcast(query0, 13u), subgroupBroadcast(query0, 14u), subgroupBroadcast(query0, 15u));
    for (var r = 0u; r < (16u + (u.H >> 31u)); r++) {
      if (lane < 16u && channel < 64u) { store(places[r], channel, values[r]); }
    }
  }
  {
    var values = array<f32, 1>(rowDelta0);
    var places = array<u32, 1>(result0);
    for (var i = 0u; i < (1u + (u.H >> 31u)); i++) {
      if (lane < 16u) { delta[places[i]] = values[i]; }
    }
  }
}

fn linearGroup(id: vec3u) -> u32 { return id.x + id.y * 32768u; }

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let tiles = ((u.T * u.groupSize + 15u) / 16u);
  let index = linearGroup(placeInGrid(group));
  if (index >= tiles * (u.H / u.groupSize)) { return; }
  element(index / tiles, index % tiles, lane);
}
