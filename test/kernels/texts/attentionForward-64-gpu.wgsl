// attentionForward: head size 64, subgroups of 32 on a GPU, many rows.

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
alias X = f32;
alias XU = u32;
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

const LOW: f32 = -2.0e38;
const MASKED: f32 = -3.0e38;

// Where a key or value row starts; past the end the last one, whose score is then masked.
fn keyAt(key: u32, kvHead: u32, end: u32) -> u32 { return (min(key, end - 1u) * u.kWidth + u.kFrom) / UNIT + kvHead * HEAD; }
fn valueAt(key: u32, kvHead: u32, end: u32) -> u32 { return (min(key, end - 1u) * u.vWidth + u.vFrom) / UNIT + kvHead * HEAD; }
@diagnostic(off, subgroup_uniformity)
fn element(kvHead: u32, tile: u32, lane: u32) {
  var queryHeld: array<u32, 1>;
  var resultHeld: array<u32, 1>;
  var outAtHeld: array<u32, 1>;
  var seenHeld: array<vec4u, 1>;
  for (var i = 0u; i < (1u + (u.H >> 31u)); i++) {
    let own = min(tile * 16u + i * 32u + lane % 16u, u.T * u.groupSize - 1u);
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
        let a0: vec4f = qFour(query0, d);
        let t0 = kFour(keys0, d);
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
      let score0 = select(X(MASKED), s0 * SCALE, (columns >= XU(subgroupBroadcast(start0, 0u))) & (columns < XU(subgroupBroadcast(end0, 0u))));
      let score1 = select(X(MASKED), s1 * SCALE, (columns >= XU(subgroupBroadcast(start0, 1u))) & (columns < XU(subgroupBroadcast(end0, 1u))));
      let score2 = select(X(MASKED), s2 * SCALE, (columns >= XU(subgroupBroadcast(start0, 2u))) & (columns < XU(subgroupBroadcast(end0, 2u))));
      let score3 = select(X(MASKED), s3 * SCALE, (columns >= XU(subgroupBroadcast(start0, 3u))) & (columns < XU(subgroupBroadcast(end0, 3u))));
      let score4 = select(X(MASKED), s4 * SCALE, (columns >= XU(subgroupBroadcast(start0, 4u))) & (columns < XU(subgroupBroadcast(end0, 4u))));
      let score5 = select(X(MASKED), s5 * SCALE, (columns >= XU(subgroupBroadcast(start0, 5u))) & (columns < XU(subgroupBroadcast(end0, 5u))));
      let score6 = select(X(MASKED), s6 * SCALE, (columns >= XU(subgroupBroadcast(start0, 6u))) & (columns < XU(subgroupBroadcast(end0, 6u))));
      let score7 = select(X(MASKED), s7 * SCALE, (columns >= XU(subgroupBroadcast(start0, 7u))) & (columns < XU(subgroupBroadcast(end0, 7u))));
      let score8 = select(X(MASKED), s8 * SCALE, (columns >= XU(subgroupBroadcast(start0, 8u))) & (columns < XU(subgroupBroadcast(end0, 8u))));
      let score9 = select(X(MASKED), s9 * SCALE, (columns >= XU(subgroupBroadcast(start0, 9u))) & (columns < XU(subgroupBroadcast(end0, 9u))));
      let score10 = select(X(MASKED), s10 * SCALE, (columns >= XU(subgroupBroadcast(start0, 10u))) & (columns < XU(subgroupBroadcast(end0, 10u))));
      let score11 = select(X(MASKED), s11 * SCALE, (columns >= XU(subgroupBroadcast(start0, 11u))) & (columns < XU(subgroupBroadcast(end0, 11u))));
      let score12 = select(X(MASKED), s12 * SCALE, (columns >= XU(subgroupBroadcast(start0, 12u))) & (columns < XU(subgroupBroadcast(end0, 12u))));
      let score13 = select(X(MASKED), s13 * SCALE, (columns >= XU(subgroupBroadcast(start0, 13u))) & (columns < XU(subgroupBroadcast(end0, 13u))));
      let score14 = select(X(MASKED), s14 * SCALE, (columns >= XU(subgroupBroadcast(start0, 14u))) & (columns < XU(subgroupBroadcast(end0, 14u))));
      let score15 = select(X(MASKED), s15 * SCALE, (columns >= XU(subgroupBroadcast(start0, 15u))) & (columns < XU(subgroupBroadcast(end0, 15u))));
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
      sum0x0 *= shrink0;
      let next1 = max(highest1, most1);
      let shrink1 = exp(highest1 - next1);
      highest1 = next1;
      let p1: X = exp(score1 - next1);
      weight1 = weight1 * shrink1 + total(p1);
      sum0x1 *= shrink1;
      let next2 = max(highest2, most2);
      let shrink2 = exp(highest2 - next2);
      highest2 = next2;
      let p2: X = exp(score2 - next2);
      weight2 = weight2 * shrink2 + total(p2);
      sum0x2 *= shrink2;
      let next3 = max(highest3, most3);
      let shrink3 = exp(highest3 - next3);
      highest3 = next3;
      let p3: X = exp(score3 - next3);
      weight3 = weight3 * shrink3 + total(p3);
      sum0x3 *= shrink3;
      let next4 = max(highest4, most4);
      let shrink4 = exp(highest4 - next4);
      highest4 = next4;
      let p4: X = exp(score4 - next4);
      weight4 = weight4 * shrink4 + total(p4);
      sum0x4 *= shrink4;
      let next5 = max(highest5, most5);
      let shrink5 = exp(highest5 - next5);
      highest5 = next5;
      let p5: X = exp(score5 - next5);
      weight5 = weight5 * shrink5 + total(p5);
      sum0x5 *= shrink5;
      let next6 = max(highest6, most6);
      let shrink6 = exp(highest6 - next6);
      highest6 = next6;
      let p6: X = exp(score6 - next6);
      weight6 = weight6 * shrink6 + total(p6);
      sum0x6 *= shrink6;
      let next7 = max(highest7, most7);
      let shrink7 = exp(highest7 - next7);
      highest7 = next7;
      let p7: X = exp(score7 - next7);
      weight7 = weight7 * shrink7 + total(p7);
      sum0x7 *= shrink7;
      let next8 = max(highest8, most8);
      let shrink8 = exp(highest8 - next8);
      highest8 = next8;
      let p8: X = exp(score8 - next8);
      weight8 = weight8 * shrink8 + total(p8);
      sum0x8 *= shrink8;
      let next9 = max(highest9, most9);
      let shrink9 = exp(highest9 - next9);
      highest9 = next9;
      let p9: X = exp(score9 - next9);
      weight9 = weight9 * shrink9 + total(p9);
      sum0x9 *= shrink9;
      let next10 = max(highest10, most10);
      let shrink10 = exp(highest10 - next10);
      highest10 = next10;
      let p10: X = exp(score10 - next10);
      weight10 = weight10 * shrink10 + total(p10);
      sum0x10 *= shrink10;
      let next11 = max(highest11, most11);
      let shrink11 = exp(highest11 - next11);
      highest11 = next11;
      let p11: X = exp(score11 - next11);
      weight11 = weight11 * shrink11 + total(p11);
      sum0x11 *= shrink11;
      let next12 = max(highest12, most12);
      let shrink12 = exp(highest12 - next12);
      highest12 = next12;
      let p12: X = exp(score12 - next12);
      weight12 = weight12 * shrink12 + total(p12);
      sum0x12 *= shrink12;
      let next13 = max(highest13, most13);
      let shrink13 = exp(highest13 - next13);
      highest13 = next13;
      let p13: X = exp(score13 - next13);
      weight13 = weight13 * shrink13 + total(p13);
      sum0x13 *= shrink13;
      let next14 = max(highest14, most14);
      let shrink14 = exp(highest14 - next14);
      highest14 = next14;
      let p14: X = exp(score14 - next14);
      weight14 = weight14 * shrink14 + total(p14);
      sum0x14 *= shrink14;
      let next15 = max(highest15, most15);
      let shrink15 = exp(highest15 - next15);
      highest15 = next15;
      let p15: X = exp(score15 - next15);
      weight15 = weight15 * shrink15 + total(p15);
      sum0x15 *= shrink15;
      for (var i = 0u; i < (16u + (u.H >> 31u)); i++) {
        let owner = i * 2u + lane / 16u;
        let start0 = subgroupShuffle(values0, owner);
        let a0 = subgroupShuffle(p0, owner); let a1 = subgroupShuffle(p1, owner); let a2 = subgroupShuffle(p2, owner); let a3 = subgroupShuffle(p3, owner); let a4 = subgroupShuffle(p4, owner); let a5 = subgroupShuffle(p5, owner); let a6 = subgroupShuffle(p6, owner); let a7 = subgroupShuffle(p7, owner); let a8 = subgroupShuffle(p8, owner); let a9 = subgroupShuffle(p9, owner); let a10 = subgroupShuffle(p10, owner); let a11 = subgroupShuffle(p11, owner); let a12 = subgroupShuffle(p12, owner); let a13 = subgroupShuffle(p13, owner); let a14 = subgroupShuffle(p14, owner); let a15 = subgroupShuffle(p15, owner);
        {
          let b0 = vFour(start0, min(0u + lane % 16u * 4u, 60u));
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
    var values = array<vec4f, 16>(sum0x0 * inverse0, sum0x1 * inverse1, sum0x2 * inverse2, sum0x3 * inverse3, sum0x4 * inverse4, sum0x5 * inverse5, sum0x6 * inverse6, sum0x7 * inverse7, sum0x8 * inverse8, sum0x9 * inverse9, sum0x10 * inverse10, sum0x11 * inverse11, sum0x12 * inverse12, sum0x13 * inverse13, sum0x14 * inverse14, sum0x15 * inverse15);
    var places = array<u32, 16>(subgroupBroadcast(outAt0, 0u), subgroupBroadcast(outAt0, 1u), subgroupBroadcast(outAt0, 2u), subgroupBroadcast(outAt0, 3u), subgroupBroadcast(outAt0, 4u), subgroupBroadcast(outAt0, 5u), subgroupBroadcast(outAt0, 6u), subgroupBroadcast(outAt0, 7u), subgroupBroadcast(outAt0, 8u), subgroupBroadcast(outAt0, 9u), subgroupBroadcast(outAt0, 10u), subgroupBroadcast(outAt0, 11u), subgroupBroadcast(outAt0, 12u), subgroupBroadcast(outAt0, 13u), subgroupBroadcast(outAt0, 14u), subgroupBroadcast(outAt0, 15u));
    for (var r = 0u; r < (16u + (u.H >> 31u)); r++) {
      if (lane < 16u && channel < 64u) { store(places[r], channel, values[r]); }
    }
  }
  let normalizer0 = select(select(select(select(select(select(select(select(select(select(select(select(select(select(select(highest15 + log(max(whole15, 1e-37)), highest14 + log(max(whole14, 1e-37)), lane == 14u), highest13 + log(max(whole13, 1e-37)), lane == 13u), highest12 + log(max(whole12, 1e-37)), lane == 12u), highest11 + log(max(whole11, 1e-37)), lane == 11u), highest10 + log(max(whole10, 1e-37)), lane == 10u), highest9 + log(max(whole9, 1e-37)), lane == 9u), highest8 + log(max(whole8, 1e-37)), lane == 8u), highest7 + log(max(whole7, 1e-37)), lane == 7u), highest6 + log(max(whole6, 1e-37)), lane == 6u), highest5 + log(max(whole5, 1e-37)), lane == 5u), highest4 + log(max(whole4, 1e-37)), lane == 4u), highest3 + log(max(whole3, 1e-37)), lane == 3u), highest2 + log(max(whole2, 1e-37)), lane == 2u), highest1 + log(max(whole1, 1e-37)), lane == 1u), highest0 + log(max(whole0, 1e-37)), lane == 0u);
  {
    var values = array<f32, 1>(normalizer0);
    var places = array<u32, 1>(result0);
    for (var i = 0u; i < (1u + (u.H >> 31u)); i++) {
      if (lane < 16u) { logSumExp[places[i]] = values[i]; }
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
