// attentionForward: head size 64, subgroups of 8 on a software adapter, many rows, soft cap 50.

enable subgroups;
struct Uniforms { T: u32, S: u32, H: u32, groupSize: u32, qWidth: u32, kWidth: u32, vWidth: u32, qFrom: u32, kFrom: u32, vFrom: u32, keysPerRow: f32, firstGroupX: u32, firstGroupY: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> q: array<vec4f>;
@group(0) @binding(2) var<storage, read> k: array<vec4f>;
@group(0) @binding(3) var<storage, read> v: array<vec4f>;
@group(0) @binding(4) var<storage, read> ranges: array<vec4u>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4f>;
@group(0) @binding(6) var<storage, read_write> logSumExp: array<f32>;
fn placeInGrid(group: vec3u) -> vec3u { return group + vec3u(u.firstGroupX, u.firstGroupY, 0u); }

alias E = vec4f;
alias X = vec4f;
alias XU = vec4u;
const UNIT: u32 = 4u;
const HEAD: u32 = 16u;
const SCALE: f32 = 0.125;
const NONE: u32 = 0xffffffffu;
fn qFour(start: u32, d: u32) -> vec4f { return q[start + d / 4u]; }
fn kFour(start: u32, d: u32) -> vec4f { return k[start + d / 4u]; }
fn vFour(start: u32, d: u32) -> vec4f { return v[start + d / 4u]; }
fn store(start: u32, d: u32, value: vec4f) {
  out[start + d / 4u] = value;
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

const LOW: f32 = -2.0e38;
const MASKED: f32 = -3.0e38;

// Where a key or value row starts; past the end the last one, whose score is then masked.
fn keyAt(key: u32, kvHead: u32, end: u32) -> u32 { return (min(key, end - 1u) * u.kWidth + u.kFrom) / UNIT + kvHead * HEAD; }
fn valueAt(key: u32, kvHead: u32, end: u32) -> u32 { return (min(key, end - 1u) * u.vWidth + u.vFrom) / UNIT + kvHead * HEAD; }
@diagnostic(off, subgroup_uniformity)
fn element(kvHead: u32, tile: u32, lane: u32) {
  var queryHeld: array<u32, 2>;
  var resultHeld: array<u32, 2>;
  var outAtHeld: array<u32, 2>;
  var seenHeld: array<vec4u, 2>;
  for (var i = 0u; i < (2u + (u.H >> 31u)); i++) {
    let own = min(tile * 16u + i * 8u + lane % 8u, u.T * u.groupSize - 1u);
    let token = own / u.groupSize;
    let head = kvHead * u.groupSize + own % u.groupSize;
    let result = token * u.H + head;
    let query = (token * u.qWidth + u.qFrom) / UNIT + head * HEAD;
    let outAt = result * HEAD;
    let seen = ranges[token];
    queryHeld[i] = query;
    resultHeld[i] = result;
    outAtHeld[i] = outAt;
    seenHeld[i] = seen;
  }
  let query0: u32 = queryHeld[0]; let result0: u32 = resultHeld[0]; let outAt0: u32 = outAtHeld[0]; let seen0: vec4u = seenHeld[0];
  let query1: u32 = queryHeld[1]; let result1: u32 = resultHeld[1]; let outAt1: u32 = outAtHeld[1]; let seen1: vec4u = seenHeld[1];
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
  var highest0 = LOW; var weight0 = 0.0;
  var highest1 = LOW; var weight1 = 0.0;
  var highest2 = LOW; var weight2 = 0.0;
  var highest3 = LOW; var weight3 = 0.0;
  var highest4 = LOW; var weight4 = 0.0;
  var highest5 = LOW; var weight5 = 0.0;
  var highest6 = LOW; var weight6 = 0.0;
  var highest7 = LOW; var weight7 = 0.0;
  var highest8 = LOW; var weight8 = 0.0;
  var highest9 = LOW; var weight9 = 0.0;
  var highest10 = LOW; var weight10 = 0.0;
  var highest11 = LOW; var weight11 = 0.0;
  var highest12 = LOW; var weight12 = 0.0;
  var highest13 = LOW; var weight13 = 0.0;
  var highest14 = LOW; var weight14 = 0.0;
  var highest15 = LOW; var weight15 = 0.0;
  for (var part = 0u; part < 2u; part++) {
    let start0: u32 = select(seen0.x, seen0.z, part == 1u); let end0: u32 = select(seen0.y, seen0.w, part == 1u);
    let start1: u32 = select(seen1.x, seen1.z, part == 1u); let end1: u32 = select(seen1.y, seen1.w, part == 1u);
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
        let a0: vec4f = qFour(query0, d);
        let a1: vec4f = qFour(query1, d);
        let t0 = kFour(keys0, d); let t1 = kFour(keys1, d); let t2 = kFour(keys2, d); let t3 = kFour(keys3, d);
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
      let score0 = select(X(MASKED), softCapped(s0 * SCALE), (columns >= XU(subgroupShuffle(start0, 0u))) & (columns < XU(subgroupShuffle(end0, 0u))));
      let score1 = select(X(MASKED), softCapped(s1 * SCALE), (columns >= XU(subgroupShuffle(start0, 1u))) & (columns < XU(subgroupShuffle(end0, 1u))));
      let score2 = select(X(MASKED), softCapped(s2 * SCALE), (columns >= XU(subgroupShuffle(start0, 2u))) & (columns < XU(subgroupShuffle(end0, 2u))));
      let score3 = select(X(MASKED), softCapped(s3 * SCALE), (columns >= XU(subgroupShuffle(start0, 3u))) & (columns < XU(subgroupShuffle(end0, 3u))));
      let score4 = select(X(MASKED), softCapped(s4 * SCALE), (columns >= XU(subgroupShuffle(start0, 4u))) & (columns < XU(subgroupShuffle(end0, 4u))));
      let score5 = select(X(MASKED), softCapped(s5 * SCALE), (columns >= XU(subgroupShuffle(start0, 5u))) & (columns < XU(subgroupShuffle(end0, 5u))));
      let score6 = select(X(MASKED), softCapped(s6 * SCALE), (columns >= XU(subgroupShuffle(start0, 6u))) & (columns < XU(subgroupShuffle(end0, 6u))));
      let score7 = select(X(MASKED), softCapped(s7 * SCALE), (columns >= XU(subgroupShuffle(start0, 7u))) & (columns < XU(subgroupShuffle(end0, 7u))));
      let score8 = select(X(MASKED), softCapped(s8 * SCALE), (columns >= XU(subgroupShuffle(start1, 0u))) & (columns < XU(subgroupShuffle(end1, 0u))));
      let score9 = select(X(MASKED), softCapped(s9 * SCALE), (columns >= XU(subgroupShuffle(start1, 1u))) & (columns < XU(subgroupShuffle(end1, 1u))));
      let score10 = select(X(MASKED), softCapped(s10 * SCALE), (columns >= XU(subgroupShuffle(start1, 2u))) & (columns < XU(subgroupShuffle(end1, 2u))));
      let score11 = select(X(MASKED), softCapped(s11 * SCALE), (columns >= XU(subgroupShuffle(start1, 3u))) & (columns < XU(subgroupShuffle(end1, 3u))));
      let score12 = select(X(MASKED), softCapped(s12 * SCALE), (columns >= XU(subgroupShuffle(start1, 4u))) & (columns < XU(subgroupShuffle(end1, 4u))));
      let score13 = select(X(MASKED), softCapped(s13 * SCALE), (columns >= XU(subgroupShuffle(start1, 5u))) & (columns < XU(subgroupShuffle(end1, 5u))));
      let score14 = select(X(MASKED), softCapped(s14 * SCALE), (columns >= XU(subgroupShuffle(start1, 6u))) & (columns < XU(subgroupShuffle(end1, 6u))));
      let score15 = select(X(MASKED), softCapped(s15 * SCALE), (columns >= XU(subgroupShuffle(start1, 7u))) & (columns < XU(subgroupShuffle(end1, 7u))));
      let most0 = lanesMax(largest(score0));
      let most1 = lanesMax(largest(score1));
      let most2 = lanesMax(largest(score2));
      let most3 = lanesMax(largest(score3));
      let most4 = lanesMax(largest(score4));
      let most5 = lanesMax(largest(score5));
      let most6 = lanesMax(largest(score6));
      let most7 = lanesMax(largest(score7));
      let most8 = lanesMax(largest(score8));
      let most9 = lanesMax(largest(score9));
      let most10 = lanesMax(largest(score10));
      let most11 = lanesMax(largest(score11));
      let most12 = lanesMax(largest(score12));
      let most13 = lanesMax(largest(score13));
      let most14 = lanesMax(largest(score14));
      let most15 = lanesMax(largest(score15));
      let next0 = max(highest0, most0);
      let shrink0 = exp(highest0 - next0);
      highest0 = next0;
      let p0: X = exp(score0 - next0);
      weight0 = weight0 * shrink0 + total(p0);
      sum0x0 *= shrink0; sum1x0 *= shrink0;
      let next1 = max(highest1, most1);
      let shrink1 = exp(highest1 - next1);
      highest1 = next1;
      let p1: X = exp(score1 - next1);
      weight1 = weight1 * shrink1 + total(p1);
      sum0x1 *= shrink1; sum1x1 *= shrink1;
      let next2 = max(highest2, most2);
      let shrink2 = exp(highest2 - next2);
      highest2 = next2;
      let p2: X = exp(score2 - next2);
      weight2 = weight2 * shrink2 + total(p2);
      sum0x2 *= shrink2; sum1x2 *= shrink2;
      let next3 = max(highest3, most3);
      let shrink3 = exp(highest3 - next3);
      highest3 = next3;
      let p3: X = exp(score3 - next3);
      weight3 = weight3 * shrink3 + total(p3);
      sum0x3 *= shrink3; sum1x3 *= shrink3;
      let next4 = max(highest4, most4);
      let shrink4 = exp(highest4 - next4);
      highest4 = next4;
      let p4: X = exp(score4 - next4);
      weight4 = weight4 * shrink4 + total(p4);
      sum0x4 *= shrink4; sum1x4 *= shrink4;
      let next5 = max(highest5, most5);
      let shrink5 = exp(highest5 - next5);
      highest5 = next5;
      let p5: X = exp(score5 - next5);
      weight5 = weight5 * shrink5 + total(p5);
      sum0x5 *= shrink5; sum1x5 *= shrink5;
      let next6 = max(highest6, most6);
      let shrink6 = exp(highest6 - next6);
      highest6 = next6;
      let p6: X = exp(score6 - next6);
      weight6 = weight6 * shrink6 + total(p6);
      sum0x6 *= shrink6; sum1x6 *= shrink6;
      let next7 = max(highest7, most7);
      let shrink7 = exp(highest7 - next7);
      highest7 = next7;
      let p7: X = exp(score7 - next7);
      weight7 = weight7 * shrink7 + total(p7);
      sum0x7 *= shrink7; sum1x7 *= shrink7;
      let next8 = max(highest8, most8);
      let shrink8 = exp(highest8 - next8);
      highest8 = next8;
      let p8: X = exp(score8 - next8);
      weight8 = weight8 * shrink8 + total(p8);
      sum0x8 *= shrink8; sum1x8 *= shrink8;
      let next9 = max(highest9, most9);
      let shrink9 = exp(highest9 - next9);
      highest9 = next9;
      let p9: X = exp(score9 - next9);
      weight9 = weight9 * shrink9 + total(p9);
      sum0x9 *= shrink9; sum1x9 *= shrink9;
      let next10 = max(highest10, most10);
      let shrink10 = exp(highest10 - next10);
      highest10 = next10;
      let p10: X = exp(score10 - next10);
      weight10 = weight10 * shrink10 + total(p10);
      sum0x10 *= shrink10; sum1x10 *= shrink10;
      let next11 = max(highest11, most11);
      let shrink11 = exp(highest11 - next11);
      highest11 = next11;
      let p11: X = exp(score11 - next11);
      weight11 = weight11 * shrink11 + total(p11);
      sum0x11 *= shrink11; sum1x11 *= shrink11;
      let next12 = max(highest12, most12);
      let shrink12 = exp(highest12 - next12);
      highest12 = next12;
      let p12: X = exp(score12 - next12);
      weight12 = weight12 * shrink12 + total(p12);
      sum0x12 *= shrink12; sum1x12 *= shrink12;
      let next13 = max(highest13, most13);
      let shrink13 = exp(highest13 - next13);
      highest13 = next13;
      let p13: X = exp(score13 - next13);
      weight13 = weight13 * shrink13 + total(p13);
      sum0x13 *= shrink13; sum1x13 *= shrink13;
      let next14 = max(highest14, most14);
      let shrink14 = exp(highest14 - next14);
      highest14 = next14;
      let p14: X = exp(score14 - next14);
      weight14 = weight14 * shrink14 + total(p14);
      sum0x14 *= shrink14; sum1x14 *= shrink14;
      let next15 = max(highest15, most15);
      let shrink15 = exp(highest15 - next15);
      highest15 = next15;
      let p15: X = exp(score15 - next15);
      weight15 = weight15 * shrink15 + total(p15);
      sum0x15 *= shrink15; sum1x15 *= shrink15;
      for (var i = 0u; i < (8u + (u.H >> 31u)); i++) {
        let owner = i;
        let start0 = subgroupShuffle(values0, owner); let start1 = subgroupShuffle(values1, owner); let start2 = subgroupShuffle(values2, owner); let start3 = subgroupShuffle(values3, owner);
        let a0 = subgroupShuffle(p0, owner); let a1 = subgroupShuffle(p1, owner); let a2 = subgroupShuffle(p2, owner); let a3 = subgroupShuffle(p3, owner); let a4 = subgroupShuffle(p4, owner); let a5 = subgroupShuffle(p5, owner); let a6 = subgroupShuffle(p6, owner); let a7 = subgroupShuffle(p7, owner); let a8 = subgroupShuffle(p8, owner); let a9 = subgroupShuffle(p9, owner); let a10 = subgroupShuffle(p10, owner); let a11 = subgroupShuffle(p11, owner); let a12 = subgroupShuffle(p12, owner); let a13 = subgroupShuffle(p13, owner); let a14 = subgroupShuffle(p14, owner); let a15 = subgroupShuffle(p15, owner);
        {
          let b0 = vFour(start0, min(0u + lane % 8u * 4u, 60u));
          let b1 = vFour(start1, min(0u + lane % 8u * 4u, 60u));
          let b2 = vFour(start2, min(0u + lane % 8u * 4u, 60u));
          let b3 = vFour(start3, min(0u + lane % 8u * 4u, 60u));
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
          let b0 = vFour(start0, min(32u + lane % 8u * 4u, 60u));
          let b1 = vFour(start1, min(32u + lane % 8u * 4u, 60u));
          let b2 = vFour(start2, min(32u + lane % 8u * 4u, 60u));
          let b3 = vFour(start3, min(32u + lane % 8u * 4u, 60u));
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
  }
  let whole0 = lanesSum(weight0);
  let whole1 = lanesSum(weight1);
  let whole2 = lanesSum(weight2);
  let whole3 = lanesSum(weight3);
  let whole4 = lanesSum(weight4);
  let whole5 = lanesSum(weight5);
  let whole6 = lanesSum(weight6);
  let whole7 = lanesSum(weight7);
  let whole8 = lanesSum(weight8);
  let whole9 = lanesSum(weight9);
  let whole10 = lanesSum(weight10);
  let whole11 = lanesSum(weight11);
  let whole12 = lanesSum(weight12);
  let whole13 = lanesSum(weight13);
  let whole14 = lanesSum(weight14);
  let whole15 = lanesSum(weight15);
  let inverse0 = select(0.0, 1.0 / whole0, whole0 > 0.0);
  let inverse1 = select(0.0, 1.0 / whole1, whole1 > 0.0);
  let inverse2 = select(0.0, 1.0 / whole2, whole2 > 0.0);
  let inverse3 = select(0.0, 1.0 / whole3, whole3 > 0.0);
  let inverse4 = select(0.0, 1.0 / whole4, whole4 > 0.0);
  let inverse5 = select(0.0, 1.0 / whole5, whole5 > 0.0);
  let inverse6 = select(0.0, 1.0 / whole6, whole6 > 0.0);
  let inverse7 = select(0.0, 1.0 / whole7, whole7 > 0.0);
  let inverse8 = select(0.0, 1.0 / whole8, whole8 > 0.0);
  let inverse9 = select(0.0, 1.0 / whole9, whole9 > 0.0);
  let inverse10 = select(0.0, 1.0 / whole10, whole10 > 0.0);
  let inverse11 = select(0.0, 1.0 / whole11, whole11 > 0.0);
  let inverse12 = select(0.0, 1.0 / whole12, whole12 > 0.0);
  let inverse13 = select(0.0, 1.0 / whole13, whole13 > 0.0);
  let inverse14 = select(0.0, 1.0 / whole14, whole14 > 0.0);
  let inverse15 = select(0.0, 1.0 / whole15, whole15 > 0.0);
  {
    let channel = 0u + lane * 4u;
    var values = array<vec4f, 16>(sum0x0 * inverse0, sum0x1 * inverse1, sum0x2 * inverse2, sum0x3 * inverse3, sum0x4 * inverse4, sum0x5 * inverse5, sum0x6 * inverse6, sum0x7 * inverse7, sum0x8 * inverse8, sum0x9 * inverse9, sum0x10 * inverse10, sum0x11 * inverse11, sum0x12 * inverse12, sum0x13 * inverse13, sum0x14 * inverse14, sum0x15 * inverse15);
    var places = array<u32, 16>(subgroupShuffle(outAt0, 0u), subgroupShuffle(outAt0, 1u), subgroupShuffle(outAt0, 2u), subgroupShuffle(outAt0, 3u), subgroupShuffle(outAt0, 4u), subgroupShuffle(outAt0, 5u), subgroupShuffle(outAt0, 6u), subgroupShuffle(outAt0, 7u), subgroupShuffle(outAt1, 0u), subgroupShuffle(outAt1, 1u), subgroupShuffle(outAt1, 2u), subgroupShuffle(outAt1, 3u), subgroupShuffle(outAt1, 4u), subgroupShuffle(outAt1, 5u), subgroupShuffle(outAt1, 6u), subgroupShuffle(outAt1, 7u));
    for (var r = 0u; r < (16u + (u.H >> 31u)); r++) {
      if (lane < 8u && channel < 64u) { store(places[r], channel, values[r]); }
    }
  }
  {
    let channel = 32u + lane * 4u;
    var values = array<vec4f, 16>(sum1x0 * inverse0, sum1x1 * inverse1, sum1x2 * inverse2, sum1x3 * inverse3, sum1x4 * inverse4, sum1x5 * inverse5, sum1x6 * inverse6, sum1x7 * inverse7, sum1x8 * inverse8, sum1x9 * inverse9, sum1x10 * inverse10, sum1x11 * inverse11, sum1x12 * inverse12, sum1x13 * inverse13, sum1x14 * inverse14, sum1x15 * inverse15);
    var places = array<u32, 16>(subgroupShuffle(outAt0, 0u), subgroupShuffle(outAt0, 1u), subgroupShuffle(outAt0, 2u), subgroupShuffle(outAt0, 3u), subgroupShuffle(outAt0, 4u), subgroupShuffle(outAt0, 5u), subgroupShuffle(outAt0, 6u), subgroupShuffle(outAt0, 7u), subgroupShuffle(outAt1, 0u), subgroupShuffle(outAt1, 1u), subgroupShuffle(outAt1, 2u), subgroupShuffle(outAt1, 3u), subgroupShuffle(outAt1, 4u), subgroupShuffle(outAt1, 5u), subgroupShuffle(outAt1, 6u), subgroupShuffle(outAt1, 7u));
    for (var r = 0u; r < (16u + (u.H >> 31u)); r++) {
      if (lane < 8u && channel < 64u) { store(places[r], channel, values[r]); }
    }
  }
  let normalizer0 = select(select(select(select(select(select(select(highest7 + log(max(whole7, 1e-37)), highest6 + log(max(whole6, 1e-37)), lane == 6u), highest5 + log(max(whole5, 1e-37)), lane == 5u), highest4 + log(max(whole4, 1e-37)), lane == 4u), highest3 + log(max(whole3, 1e-37)), lane == 3u), highest2 + log(max(whole2, 1e-37)), lane == 2u), highest1 + log(max(whole1, 1e-37)), lane == 1u), highest0 + log(max(whole0, 1e-37)), lane == 0u);
  let normalizer1 = select(select(select(select(select(select(select(highest15 + log(max(whole15, 1e-37)), highest14 + log(max(whole14, 1e-37)), lane == 6u), highest13 + log(max(whole13, 1e-37)), lane == 5u), highest12 + log(max(whole12, 1e-37)), lane == 4u), highest11 + log(max(whole11, 1e-37)), lane == 3u), highest10 + log(max(whole10, 1e-37)), lane == 2u), highest9 + log(max(whole9, 1e-37)), lane == 1u), highest8 + log(max(whole8, 1e-37)), lane == 0u);
  {
    var values = array<f32, 2>(normalizer0, normalizer1);
    var places = array<u32, 2>(result0, result1);
    for (var i = 0u; i < (2u + (u.H >> 31u)); i++) {
      if (lane < 8u) { logSumExp[places[i]] = values[i]; }
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
