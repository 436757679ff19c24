// attentionBackwardQuery: head size 64, subgroups of 8 on a software adapter, many rows, soft cap 50.

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
alias X = vec4f;
alias XU = vec4u;
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
fn largest(x: X) -> f32 { return max(max(max(x.x, x.y), x.z), x.w); }
fn total(x: X) -> f32 { return (((x.x + x.y) + x.z) + x.w); }
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
  return x;
}
@diagnostic(off, subgroup_uniformity)
fn lanesSum(own: f32) -> f32 {
  var x: f32 = own;
  x += subgroupShuffleXor(x, 1u);
  x += subgroupShuffleXor(x, 2u);
  x += subgroupShuffleXor(x, 4u);
  return x;
}
@diagnostic(off, subgroup_uniformity)
fn lanesLeast(own: u32) -> u32 { return subgroupMin(own); }
@diagnostic(off, subgroup_uniformity)
fn lanesMost(own: u32) -> u32 { return subgroupMax(own); }
const CAP: f32 = 50;
fn softCapped(x: X) -> X { return CAP * tanh(clamp(x / CAP, X(-9.01), X(9.01))); }
fn softCapSlope(y: X) -> X { return 1.0 - (y / CAP) * (y / CAP); }

fn keyAt(key: u32, kvHead: u32, end: u32) -> u32 { return (min(key, end - 1u) * u.width + u.kFrom) / UNIT + kvHead * HEAD; }
fn valueAt(key: u32, kvHead: u32, end: u32) -> u32 { return (min(key, end - 1u) * u.width + u.vFrom) / UNIT + kvHead * HEAD; }
@diagnostic(off, subgroup_uniformity)
fn element(kvHead: u32, tile: u32, lane: u32) {
  var queryHeld: array<u32, 2>;
  var gradientHeld: array<u32, 2>;
  var resultHeld: array<u32, 2>;
  var normalizerHeld: array<f32, 2>;
  var startHeld: array<u32, 2>;
  var endHeld: array<u32, 2>;
  var rowDeltaHeld: array<f32, 2>;
  for (var i = 0u; i < (2u + (u.H >> 31u)); i++) {
    let own = min(tile * 16u + i * 8u + lane % 8u, u.T * u.groupSize - 1u);
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
  let query1: u32 = queryHeld[1]; let gradient1: u32 = gradientHeld[1]; let result1: u32 = resultHeld[1]; let normalizer1: f32 = normalizerHeld[1]; let start1: u32 = startHeld[1]; let end1: u32 = endHeld[1]; let rowDelta1: f32 = rowDeltaHeld[1];
  var sum0x0: vec4f; var sum1x0: vec4f;
  var sum0x1: vec4f; var sum1x1: vec4f;
  var sum0x2: vec4f; var sum1x2: vec4f;
  var sum0x3: vec4f; var sum1x3: vec4f;
  var sum0x4: vec4f; var sum1x4: vec4f;
  var sum0x5: vec4f; var sum1x5: vec4f;
  var sum0x6: vec4f; var sum1x6: vec4f;
  var sum0x7: vec4f; var sum1x7: vec4f;
  var sum0x8: vec4f; var sum1x8: vec4f;
  var sum0x9: vec4f; var sum1x9: vec4f;
  var sum0x10: vec4f; var sum1x10: vec4f;
  var sum0x11: vec4f; var sum1x11: vec4f;
  var sum0x12: vec4f; var sum1x12: vec4f;
  var sum0x13: vec4f; var sum1x13: vec4f;
  var sum0x14: vec4f; var sum1x14: vec4f;
  var sum0x15: vec4f; var sum1x15: vec4f;
  let last = lanesMost(max(end0, end1));
  var key = 0u;
  loop {
    key = lanesLeast(min(firstFrom(start0, end0, key), firstFrom(start1, end1, key)));
    if (key == NONE) { break; }
    let columns = key + lane * 4u + XU(0, 1, 2, 3);
    let keys0: u32 = keyAt(columns.x, kvHead, last);
    let keys1: u32 = keyAt(columns.y, kvHead, last);
    let keys2: u32 = keyAt(columns.z, kvHead, last);
    let keys3: u32 = keyAt(columns.w, kvHead, last);
    let values0: u32 = valueAt(columns.x, kvHead, last);
    let values1: u32 = valueAt(columns.y, kvHead, last);
    let values2: u32 = valueAt(columns.z, kvHead, last);
    let values3: u32 = valueAt(columns.w, kvHead, last);
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
      let a1: vec4f = fusedFour(query1, d);
      let t0 = fusedFour(keys0, d); let t1 = fusedFour(keys1, d); let t2 = fusedFour(keys2, d); let t3 = fusedFour(keys3, d);
      let b0 = X(t0.x, t1.x, t2.x, t3.x); let b1 = X(t0.y, t1.y, t2.y, t3.y); let b2 = X(t0.z, t1.z, t2.z, t3.z); let b3 = X(t0.w, t1.w, t2.w, t3.w);
      { let a = subgroupShuffle(a0, 0u); s0 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s0)))); }
      { let a = subgroupShuffle(a0, 1u); s1 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s1)))); }
      { let a = subgroupShuffle(a0, 2u); s2 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s2)))); }
      { let a = subgroupShuffle(a0, 3u); s3 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s3)))); }
      { let a = subgroupShuffle(a0, 4u); s4 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s4)))); }
      { let a = subgroupShuffle(a0, 5u); s5 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s5)))); }
      { let a = subgroupShuffle(a0, 6u); s6 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s6)))); }
      { let a = subgroupShuffle(a0, 7u); s7 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s7)))); }
      { let a = subgroupShuffle(a1, 0u); s8 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s8)))); }
      { let a = subgroupShuffle(a1, 1u); s9 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s9)))); }
      { let a = subgroupShuffle(a1, 2u); s10 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s10)))); }
      { let a = subgroupShuffle(a1, 3u); s11 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s11)))); }
      { let a = subgroupShuffle(a1, 4u); s12 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s12)))); }
      { let a = subgroupShuffle(a1, 5u); s13 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s13)))); }
      { let a = subgroupShuffle(a1, 6u); s14 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s14)))); }
      { let a = subgroupShuffle(a1, 7u); s15 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s15)))); }
    }
    let p0: X = select(X(), exp(softCapped(s0 * SCALE) - subgroupShuffle(normalizer0, 0u)), (columns >= XU(subgroupShuffle(start0, 0u))) & (columns < XU(subgroupShuffle(end0, 0u))));
    let p1: X = select(X(), exp(softCapped(s1 * SCALE) - subgroupShuffle(normalizer0, 1u)), (columns >= XU(subgroupShuffle(start0, 1u))) & (columns < XU(subgroupShuffle(end0, 1u))));
    let p2: X = select(X(), exp(softCapped(s2 * SCALE) - subgroupShuffle(normalizer0, 2u)), (columns >= XU(subgroupShuffle(start0, 2u))) & (columns < XU(subgroupShuffle(end0, 2u))));
    let p3: X = select(X(), exp(softCapped(s3 * SCALE) - subgroupShuffle(normalizer0, 3u)), (columns >= XU(subgroupShuffle(start0, 3u))) & (columns < XU(subgroupShuffle(end0, 3u))));
    let p4: X = select(X(), exp(softCapped(s4 * SCALE) - subgroupShuffle(normalizer0, 4u)), (columns >= XU(subgroupShuffle(start0, 4u))) & (columns < XU(subgroupShuffle(end0, 4u))));
    let p5: X = select(X(), exp(softCapped(s5 * SCALE) - subgroupShuffle(normalizer0, 5u)), (columns >= XU(subgroupShuffle(start0, 5u))) & (columns < XU(subgroupShuffle(end0, 5u))));
    let p6: X = select(X(), exp(softCapped(s6 * SCALE) - subgroupShuffle(normalizer0, 6u)), (columns >= XU(subgroupShuffle(start0, 6u))) & (columns < XU(subgroupShuffle(end0, 6u))));
    let p7: X = select(X(), exp(softCapped(s7 * SCALE) - subgroupShuffle(normalizer0, 7u)), (columns >= XU(subgroupShuffle(start0, 7u))) & (columns < XU(subgroupShuffle(end0, 7u))));
    let p8: X = select(X(), exp(softCapped(s8 * SCALE) - subgroupShuffle(normalizer1, 0u)), (columns >= XU(subgroupShuffle(start1, 0u))) & (columns < XU(subgroupShuffle(end1, 0u))));
    let p9: X = select(X(), exp(softCapped(s9 * SCALE) - subgroupShuffle(normalizer1, 1u)), (columns >= XU(subgroupShuffle(start1, 1u))) & (columns < XU(subgroupShuffle(end1, 1u))));
    let p10: X = select(X(), exp(softCapped(s10 * SCALE) - subgroupShuffle(normalizer1, 2u)), (columns >= XU(subgroupShuffle(start1, 2u))) & (columns < XU(subgroupShuffle(end1, 2u))));
    let p11: X = select(X(), exp(softCapped(s11 * SCALE) - subgroupShuffle(normalizer1, 3u)), (columns >= XU(subgroupShuffle(start1, 3u))) & (columns < XU(subgroupShuffle(end1, 3u))));
    let p12: X = select(X(), exp(softCapped(s12 * SCALE) - subgroupShuffle(normalizer1, 4u)), (columns >= XU(subgroupShuffle(start1, 4u))) & (columns < XU(subgroupShuffle(end1, 4u))));
    let p13: X = select(X(), exp(softCapped(s13 * SCALE) - subgroupShuffle(normalizer1, 5u)), (columns >= XU(subgroupShuffle(start1, 5u))) & (columns < XU(subgroupShuffle(end1, 5u))));
    let p14: X = select(X(), exp(softCapped(s14 * SCALE) - subgroupShuffle(normalizer1, 6u)), (columns >= XU(subgroupShuffle(start1, 6u))) & (columns < XU(subgroupShuffle(end1, 6u))));
    let p15: X = select(X(), exp(softCapped(s15 * SCALE) - subgroupShuffle(normalizer1, 7u)), (columns >= XU(subgroupShuffle(start1, 7u))) & (columns < XU(subgroupShuffle(end1, 7u))));
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
      let a1: vec4f = dOutFour(gradient1, d);
      let t0 = fusedFour(values0, d); let t1 = fusedFour(values1, d); let t2 = fusedFour(values2, d); let t3 = fusedFour(values3, d);
      let b0 = X(t0.x, t1.x, t2.x, t3.x); let b1 = X(t0.y, t1.y, t2.y, t3.y); let b2 = X(t0.z, t1.z, t2.z, t3.z); let b3 = X(t0.w, t1.w, t2.w, t3.w);
      { let a = subgroupShuffle(a0, 0u); along0 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along0)))); }
      { let a = subgroupShuffle(a0, 1u); along1 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along1)))); }
      { let a = subgroupShuffle(a0, 2u); along2 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along2)))); }
      { let a = subgroupShuffle(a0, 3u); along3 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along3)))); }
      { let a = subgroupShuffle(a0, 4u); along4 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along4)))); }
      { let a = subgroupShuffle(a0, 5u); along5 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along5)))); }
      { let a = subgroupShuffle(a0, 6u); along6 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along6)))); }
      { let a = subgroupShuffle(a0, 7u); along7 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along7)))); }
      { let a = subgroupShuffle(a1, 0u); along8 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along8)))); }
      { let a = subgroupShuffle(a1, 1u); along9 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along9)))); }
      { let a = subgroupShuffle(a1, 2u); along10 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along10)))); }
      { let a = subgroupShuffle(a1, 3u); along11 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along11)))); }
      { let a = subgroupShuffle(a1, 4u); along12 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along12)))); }
      { let a = subgroupShuffle(a1, 5u); along13 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along13)))); }
      { let a = subgroupShuffle(a1, 6u); along14 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along14)))); }
      { let a = subgroupShuffle(a1, 7u); along15 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along15)))); }
    }
    let dScore0: X = p0 * (along0 - subgroupShuffle(rowDelta0, 0u)) * (SCALE * softCapSlope(softCapped(s0 * SCALE)));
    let dScore1: X = p1 * (along1 - subgroupShuffle(rowDelta0, 1u)) * (SCALE * softCapSlope(softCapped(s1 * SCALE)));
    let dScore2: X = p2 * (along2 - subgroupShuffle(rowDelta0, 2u)) * (SCALE * softCapSlope(softCapped(s2 * SCALE)));
    let dScore3: X = p3 * (along3 - subgroupShuffle(rowDelta0, 3u)) * (SCALE * softCapSlope(softCapped(s3 * SCALE)));
    let dScore4: X = p4 * (along4 - subgroupShuffle(rowDelta0, 4u)) * (SCALE * softCapSlope(softCapped(s4 * SCALE)));
    let dScore5: X = p5 * (along5 - subgroupShuffle(rowDelta0, 5u)) * (SCALE * softCapSlope(softCapped(s5 * SCALE)));
    let dScore6: X = p6 * (along6 - subgroupShuffle(rowDelta0, 6u)) * (SCALE * softCapSlope(softCapped(s6 * SCALE)));
    let dScore7: X = p7 * (along7 - subgroupShuffle(rowDelta0, 7u)) * (SCALE * softCapSlope(softCapped(s7 * SCALE)));
    let dScore8: X = p8 * (along8 - subgroupShuffle(rowDelta1, 0u)) * (SCALE * softCapSlope(softCapped(s8 * SCALE)));
    let dScore9: X = p9 * (along9 - subgroupShuffle(rowDelta1, 1u)) * (SCALE * softCapSlope(softCapped(s9 * SCALE)));
    let dScore10: X = p10 * (along10 - subgroupShuffle(rowDelta1, 2u)) * (SCALE * softCapSlope(softCapped(s10 * SCALE)));
    let dScore11: X = p11 * (along11 - subgroupShuffle(rowDelta1, 3u)) * (SCALE * softCapSlope(softCapped(s11 * SCALE)));
    let dScore12: X = p12 * (along12 - subgroupShuffle(rowDelta1, 4u)) * (SCALE * softCapSlope(softCapped(s12 * SCALE)));
    let dScore13: X = p13 * (along13 - subgroupShuffle(rowDelta1, 5u)) * (SCALE * softCapSlope(softCapped(s13 * SCALE)));
    let dScore14: X = p14 * (along14 - subgroupShuffle(rowDelta1, 6u)) * (SCALE * softCapSlope(softCapped(s14 * SCALE)));
    let dScore15: X = p15 * (along15 - subgroupShuffle(rowDelta1, 7u)) * (SCALE * softCapSlope(softCapped(s15 * SCALE)));
    for (var i = 0u; i < (8u + (u.H >> 31u)); i++) {
      let owner = i;
      let start0 = subgroupShuffle(keys0, owner); let start1 = subgroupShuffle(keys1, owner); let start2 = subgroupShuffle(keys2, owner); let start3 = subgroupShuffle(keys3, owner);
      let a0 = subgroupShuffle(dScore0, owner); let a1 = subgroupShuffle(dScore1, owner); let a2 = subgroupShuffle(dScore2, owner); let a3 = subgroupShuffle(dScore3, owner); let a4 = subgroupShuffle(dScore4, owner); let a5 = subgroupShuffle(dScore5, owner); let a6 = subgroupShuffle(dScore6, owner); let a7 = subgroupShuffle(dScore7, owner); let a8 = subgroupShuffle(dScore8, owner); let a9 = subgroupShuffle(dScore9, owner); let a10 = subgroupShuffle(dScore10, owner); let a11 = subgroupShuffle(dScore11, owner); let a12 = subgroupShuffle(dScore12, owner); let a13 = subgroupShuffle(dScore13, owner); let a14 = subgroupShuffle(dScore14, owner); let a15 = subgroupShuffle(dScore15, owner);
      {
        let b0 = fusedFour(start0, min(0u + lane % 8u * 4u, 60u));
        let b1 = fusedFour(start1, min(0u + lane % 8u * 4u, 60u));
        let b2 = fusedFour(start2, min(0u + lane % 8u * 4u, 60u));
        let b3 = fusedFour(start3, min(0u + lane % 8u * 4u, 60u));
        sum0x0 = fma(vec4f(a0.x), b0, fma(vec4f(a0.y), b1, fma(vec4f(a0.z), b2, fma(vec4f(a0.w), b3, sum0x0))));
        sum0x1 = fma(vec4f(a1.x), b0, fma(vec4f(a1.y), b1, fma(vec4f(a1.z), b2, fma(vec4f(a1.w), b3, sum0x1))));
        sum0x2 = fma(vec4f(a2.x), b0, fma(vec4f(a2.y), b1, fma(vec4f(a2.z), b2, fma(vec4f(a2.w), b3, sum0x2))));
        sum0x3 = fma(vec4f(a3.x), b0, fma(vec4f(a3.y), b1, fma(vec4f(a3.z), b2, fma(vec4f(a3.w), b3, sum0x3))));
        sum0x4 = fma(vec4f(a4.x), b0, fma(vec4f(a4.y), b1, fma(vec4f(a4.z), b2, fma(vec4f(a4.w), b3, sum0x4))));
        sum0x5 = fma(vec4f(a5.x), b0, fma(vec4f(a5.y), b1, fma(vec4f(a5.z), b2, fma(vec4f(a5.w), b3, sum0x5))));
        sum0x6 = fma(vec4f(a6.x), b0, fma(vec4f(a6.y), b1, fma(vec4f(a6.z), b2, fma(vec4f(a6.w), b3, sum0x6))));
        sum0x7 = fma(vec4f(a7.x), b0, fma(vec4f(a7.y), b1, fma(vec4f(a7.z), b2, fma(vec4f(a7.w), b3, sum0x7))));
        sum0x8 = fma(vec4f(a8.x), b0, fma(vec4f(a8.y), b1, fma(vec4f(a8.z), b2, fma(vec4f(a8.w), b3, sum0x8))));
        sum0x9 = fma(vec4f(a9.x), b0, fma(vec4f(a9.y), b1, fma(vec4f(a9.z), b2, fma(vec4f(a9.w), b3, sum0x9))));
        sum0x10 = fma(vec4f(a10.x), b0, fma(vec4f(a10.y), b1, fma(vec4f(a10.z), b2, fma(vec4f(a10.w), b3, sum0x10))));
        sum0x11 = fma(vec4f(a11.x), b0, fma(vec4f(a11.y), b1, fma(vec4f(a11.z), b2, fma(vec4f(a11.w), b3, sum0x11))));
        sum0x12 = fma(vec4f(a12.x), b0, fma(vec4f(a12.y), b1, fma(vec4f(a12.z), b2, fma(vec4f(a12.w), b3, sum0x12))));
        sum0x13 = fma(vec4f(a13.x), b0, fma(vec4f(a13.y), b1, fma(vec4f(a13.z), b2, fma(vec4f(a13.w), b3, sum0x13))));
        sum0x14 = fma(vec4f(a14.x), b0, fma(vec4f(a14.y), b1, fma(vec4f(a14.z), b2, fma(vec4f(a14.w), b3, sum0x14))));
        sum0x15 = fma(vec4f(a15.x), b0, fma(vec4f(a15.y), b1, fma(vec4f(a15.z), b2, fma(vec4f(a15.w), b3, sum0x15))));
      }
      {
        let b0 = fusedFour(start0, min(32u + lane % 8u * 4u, 60u));
        let b1 = fusedFour(start1, min(32u + lane % 8u * 4u, 60u));
        let b2 = fusedFour(start2, min(32u + lane % 8u * 4u, 60u));
        let b3 = fusedFour(start3, min(32u + lane % 8u * 4u, 60u));
        sum1x0 = fma(vec4f(a0.x), b0, fma(vec4f(a0.y), b1, fma(vec4f(a0.z), b2, fma(vec4f(a0.w), b3, sum1x0))));
        sum1x1 = fma(vec4f(a1.x), b0, fma(vec4f(a1.y), b1, fma(vec4f(a1.z), b2, fma(vec4f(a1.w), b3, sum1x1))));
        sum1x2 = fma(vec4f(a2.x), b0, fma(vec4f(a2.y), b1, fma(vec4f(a2.z), b2, fma(vec4f(a2.w), b3, sum1x2))));
        sum1x3 = fma(vec4f(a3.x), b0, fma(vec4f(a3.y), b1, fma(vec4f(a3.z), b2, fma(vec4f(a3.w), b3, sum1x3))));
        sum1x4 = fma(vec4f(a4.x), b0, fma(vec4f(a4.y), b1, fma(vec4f(a4.z), b2, fma(vec4f(a4.w), b3, sum1x4))));
        sum1x5 = fma(vec4f(a5.x), b0, fma(vec4f(a5.y), b1, fma(vec4f(a5.z), b2, fma(vec4f(a5.w), b3, sum1x5))));
        sum1x6 = fma(vec4f(a6.x), b0, fma(vec4f(a6.y), b1, fma(vec4f(a6.z), b2, fma(vec4f(a6.w), b3, sum1x6))));
        sum1x7 = fma(vec4f(a7.x), b0, fma(vec4f(a7.y), b1, fma(vec4f(a7.z), b2, fma(vec4f(a7.w), b3, sum1x7))));
        sum1x8 = fma(vec4f(a8.x), b0, fma(vec4f(a8.y), b1, fma(vec4f(a8.z), b2, fma(vec4f(a8.w), b3, sum1x8))));
        sum1x9 = fma(vec4f(a9.x), b0, fma(vec4f(a9.y), b1, fma(vec4f(a9.z), b2, fma(vec4f(a9.w), b3, sum1x9))));
        sum1x10 = fma(vec4f(a10.x), b0, fma(vec4f(a10.y), b1, fma(vec4f(a10.z), b2, fma(vec4f(a10.w), b3, sum1x10))));
        sum1x11 = fma(vec4f(a11.x), b0, fma(vec4f(a11.y), b1, fma(vec4f(a11.z), b2, fma(vec4f(a11.w), b3, sum1x11))));
        sum1x12 = fma(vec4f(a12.x), b0, fma(vec4f(a12.y), b1, fma(vec4f(a12.z), b2, fma(vec4f(a12.w), b3, sum1x12))));
        sum1x13 = fma(vec4f(a13.x), b0, fma(vec4f(a13.y), b1, fma(vec4f(a13.z), b2, fma(vec4f(a13.w), b3, sum1x13))));
        sum1x14 = fma(vec4f(a14.x), b0, fma(vec4f(a14.y), b1, fma(vec4f(a14.z), b2, fma(vec4f(a14.w), b3, sum1x14))));
        sum1x15 = fma(vec4f(a15.x), b0, fma(vec4f(a15.y), b1, fma(vec4f(a15.z), b2, fma(vec4f(a15.w), b3, sum1x15))));
      }
    }
    key += 32u;
  }
  {
    let channel = 0u + lane * 4u;
    var values = array<vec4f, 16>(sum0x0, sum0x1, sum0x2, sum0x3, sum0x4, sum0x5, sum0x6, sum0x7, sum0x8, sum0x9, sum0x10, sum0x11, sum0x12, sum0x13, sum0x14, sum0x15);
    var places = array<u32, 16>(subgroupShuffle(query0, 0u), subgroupShuffle(query0, 1u), subgroupShuffle(query0, 2u), subgroupShuffle(query0, 3u), subgroupShuffle(query0, 4u), subgroupShuffle(query0, 5u), subgroupShuffle(query0, 6u), subgroupShuffle(query0, 7u), subgroupShuffle(query1, 0u), subgroupShuffle(query1, 1u), subgroupShuffle(query1, 2u), subgroupShuffle(query1, 3u), subgroupShuffle(query1, 4u), subgroupShuffle(query1, 5u), subgroupShuffle(query1, 6u), subgroupShuffle(query1, 7u));
    for (var r = 0u; r < (16u + (u.H >> 31u)); r++) {
      if (lane < 8u && channel < 64u) { store(places[r], channel, values[r]); }
    }
  }
  {
    let channel = 32u + lane * 4u;
    var values = array<vec4f, 16>(sum1x0, sum1x1, sum1x2, sum1x3, sum1x4, sum1x5, sum1x6, sum1x7, sum1x8, sum1x9, sum1x10, sum1x11, sum1x12, sum1x13, sum1x14, sum1x15);
    var places = array<u32, 16>(subgroupShuffle(query0, 0u), subgroupShuffle(query0, 1u), subgroupShuffle(query0, 2u), subgroupShuffle(query0, 3u), subgroupShuffle(query0, 4u), subgroupShuffle(query0, 5u), subgroupShuffle(query0, 6u), subgroupShuffle(query0, 7u), subgroupShuffle(query1, 0u), subgroupShuffle(query1, 1u), subgroupShuffle(query1, 2u), subgroupShuffle(query1, 3u), subgroupShuffle(query1, 4u), subgroupShuffle(query1, 5u), subgroupShuffle(query1, 6u), subgroupShuffle(query1, 7u));
    for (var r = 0u; r < (16u + (u.H >> 31u)); r++) {
      if (lane < 8u && channel < 64u) { store(places[r], channel, values[r]); }
    }
  }
  {
    var values = array<f32, 2>(rowDelta0, rowDelta1);
    var places = array<u32, 2>(result0, result1);
    for (var i = 0u; i < (2u + (u.H >> 31u)); i++) {
      if (lane < 8u) { delta[places[i]] = values[i]; }
    }
  }
}

fn linearGroup(id: vec3u) -> u32 { return id.x + id.y * 32768u; }

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let tiles = ((u.T * u.groupSize + 15u) / 16u);
  let index = linearGroup(placeInGrid(group));
  if (index >= tiles * (u.H / u.groupSize)) { return; }
  element(index / tiles, index % tiles, lane);
}
