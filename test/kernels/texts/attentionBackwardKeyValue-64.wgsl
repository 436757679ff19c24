// attentionBackwardKeyValue: head size 64, subgroups of 8 on a software adapter, many rows.

enable subgroups;
struct Uniforms { T: u32, H: u32, groupSize: u32, width: u32, qFrom: u32, kFrom: u32, vFrom: u32, keysPerRow: f32, firstGroupX: u32, firstGroupY: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> fused: array<vec4f>;
@group(0) @binding(2) var<storage, read> dOut: array<vec4f>;
@group(0) @binding(3) var<storage, read> logSumExp: array<f32>;
@group(0) @binding(4) var<storage, read> delta: array<f32>;
@group(0) @binding(5) var<storage, read> queryEnd: array<u32>;
@group(0) @binding(6) var<storage, read_write> dFused: array<vec4f>;
fn placeInGrid(group: vec3u) -> vec3u { return group + vec3u(u.firstGroupX, u.firstGroupY, 0u); }

alias E = vec4f;
alias X = vec4f;
alias XU = vec4u;
const UNIT: u32 = 4u;
const HEAD: u32 = 16u;
const SCALE: f32 = 0.125;
const NONE: u32 = 0xffffffffu;
fn fusedFour(start: u32, d: u32) -> vec4f { return fused[start + d / 4u]; }
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

fn queryAt(token: u32, head: u32, end: u32) -> u32 { return (min(token, end - 1u) * u.width + u.qFrom) / UNIT + head * HEAD; }
fn resultAt(token: u32, head: u32, end: u32) -> u32 { return min(token, end - 1u) * u.H + head; }
@diagnostic(off, subgroup_uniformity)
fn element(kvHead: u32, tile: u32, lane: u32) {
  var startHeld: array<u32, 2>;
  var endHeld: array<u32, 2>;
  var keyAtHeld: array<u32, 2>;
  var valueAtHeld: array<u32, 2>;
  for (var i = 0u; i < (2u + (u.H >> 31u)); i++) {
    let own = min(tile * 16u + i * 8u + lane % 8u, u.T - 1u);
    let start = own;
    let end = queryEnd[own];
    let keyAt = (own * u.width + u.kFrom) / UNIT + kvHead * HEAD;
    let valueAt = (own * u.width + u.vFrom) / UNIT + kvHead * HEAD;
    startHeld[i] = start;
    endHeld[i] = end;
    keyAtHeld[i] = keyAt;
    valueAtHeld[i] = valueAt;
  }
  let start0: u32 = startHeld[0]; let end0: u32 = endHeld[0]; let keyAt0: u32 = keyAtHeld[0]; let valueAt0: u32 = valueAtHeld[0];
  let start1: u32 = startHeld[1]; let end1: u32 = endHeld[1]; let keyAt1: u32 = keyAtHeld[1]; let valueAt1: u32 = valueAtHeld[1];
  var dKey0x0: vec4f; var dKey1x0: vec4f;
  var dKey0x1: vec4f; var dKey1x1: vec4f;
  var dKey0x2: vec4f; var dKey1x2: vec4f;
  var dKey0x3: vec4f; var dKey1x3: vec4f;
  var dKey0x4: vec4f; var dKey1x4: vec4f;
  var dKey0x5: vec4f; var dKey1x5: vec4f;
  var dKey0x6: vec4f; var dKey1x6: vec4f;
  var dKey0x7: vec4f; var dKey1x7: vec4f;
  var dKey0x8: vec4f; var dKey1x8: vec4f;
  var dKey0x9: vec4f; var dKey1x9: vec4f;
  var dKey0x10: vec4f; var dKey1x10: vec4f;
  var dKey0x11: vec4f; var dKey1x11: vec4f;
  var dKey0x12: vec4f; var dKey1x12: vec4f;
  var dKey0x13: vec4f; var dKey1x13: vec4f;
  var dKey0x14: vec4f; var dKey1x14: vec4f;
  var dKey0x15: vec4f; var dKey1x15: vec4f;
  var dValue0x0: vec4f; var dValue1x0: vec4f;
  var dValue0x1: vec4f; var dValue1x1: vec4f;
  var dValue0x2: vec4f; var dValue1x2: vec4f;
  var dValue0x3: vec4f; var dValue1x3: vec4f;
  var dValue0x4: vec4f; var dValue1x4: vec4f;
  var dValue0x5: vec4f; var dValue1x5: vec4f;
  var dValue0x6: vec4f; var dValue1x6: vec4f;
  var dValue0x7: vec4f; var dValue1x7: vec4f;
  var dValue0x8: vec4f; var dValue1x8: vec4f;
  var dValue0x9: vec4f; var dValue1x9: vec4f;
  var dValue0x10: vec4f; var dValue1x10: vec4f;
  var dValue0x11: vec4f; var dValue1x11: vec4f;
  var dValue0x12: vec4f; var dValue1x12: vec4f;
  var dValue0x13: vec4f; var dValue1x13: vec4f;
  var dValue0x14: vec4f; var dValue1x14: vec4f;
  var dValue0x15: vec4f; var dValue1x15: vec4f;
  let last = lanesMost(max(end0, end1));
  // Columns of a tile: tokens times `together` heads of the group.
  let together = min(u.groupSize, 32u);
  let tokens = 32u / together;
  let column = lane * 4u + XU(0, 1, 2, 3);
  let columnToken = column / together;
  for (var firstHead = 0u; firstHead < u.groupSize; firstHead += together) {
    let columnHead = firstHead + column % together;
    let counts = (columnToken < XU(tokens)) & (columnHead < XU(u.groupSize));
    let heads = kvHead * u.groupSize + min(columnHead, XU(u.groupSize - 1u));
    var token = 0u;
    loop {
      token = lanesLeast(min(firstFrom(start0, end0, token), firstFrom(start1, end1, token)));
      if (token == NONE) { break; }
      let columns = token + columnToken;
      let results0: u32 = resultAt(columns.x, heads.x, last);
      let results1: u32 = resultAt(columns.y, heads.y, last);
      let results2: u32 = resultAt(columns.z, heads.z, last);
      let results3: u32 = resultAt(columns.w, heads.w, last);
      let gradients0: u32 = results0 * HEAD;
      let gradients1: u32 = results1 * HEAD;
      let gradients2: u32 = results2 * HEAD;
      let gradients3: u32 = results3 * HEAD;
      let queries0: u32 = queryAt(columns.x, heads.x, last);
      let queries1: u32 = queryAt(columns.y, heads.y, last);
      let queries2: u32 = queryAt(columns.z, heads.z, last);
      let queries3: u32 = queryAt(columns.w, heads.w, last);
      let normalizer = X(logSumExp[results0], logSumExp[results1], logSumExp[results2], logSumExp[results3]);
      let rowDelta = X(delta[results0], delta[results1], delta[results2], delta[results3]);
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
        let a0: vec4f = fusedFour(keyAt0, d);
        let a1: vec4f = fusedFour(keyAt1, d);
        let t0 = fusedFour(queries0, d); let t1 = fusedFour(queries1, d); let t2 = fusedFour(queries2, d); let t3 = fusedFour(queries3, d);
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
      let p0: X = select(X(), exp(s0 * SCALE - normalizer), counts & (columns >= XU(subgroupShuffle(start0, 0u))) & (columns < XU(subgroupShuffle(end0, 0u))));
      let p1: X = select(X(), exp(s1 * SCALE - normalizer), counts & (columns >= XU(subgroupShuffle(start0, 1u))) & (columns < XU(subgroupShuffle(end0, 1u))));
      let p2: X = select(X(), exp(s2 * SCALE - normalizer), counts & (columns >= XU(subgroupShuffle(start0, 2u))) & (columns < XU(subgroupShuffle(end0, 2u))));
      let p3: X = select(X(), exp(s3 * SCALE - normalizer), counts & (columns >= XU(subgroupShuffle(start0, 3u))) & (columns < XU(subgroupShuffle(end0, 3u))));
      let p4: X = select(X(), exp(s4 * SCALE - normalizer), counts & (columns >= XU(subgroupShuffle(start0, 4u))) & (columns < XU(subgroupShuffle(end0, 4u))));
      let p5: X = select(X(), exp(s5 * SCALE - normalizer), counts & (columns >= XU(subgroupShuffle(start0, 5u))) & (columns < XU(subgroupShuffle(end0, 5u))));
      let p6: X = select(X(), exp(s6 * SCALE - normalizer), counts & (columns >= XU(subgroupShuffle(start0, 6u))) & (columns < XU(subgroupShuffle(end0, 6u))));
      let p7: X = select(X(), exp(s7 * SCALE - normalizer), counts & (columns >= XU(subgroupShuffle(start0, 7u))) & (columns < XU(subgroupShuffle(end0, 7u))));
      let p8: X = select(X(), exp(s8 * SCALE - normalizer), counts & (columns >= XU(subgroupShuffle(start1, 0u))) & (columns < XU(subgroupShuffle(end1, 0u))));
      let p9: X = select(X(), exp(s9 * SCALE - normalizer), counts & (columns >= XU(subgroupShuffle(start1, 1u))) & (columns < XU(subgroupShuffle(end1, 1u))));
      let p10: X = select(X(), exp(s10 * SCALE - normalizer), counts & (columns >= XU(subgroupShuffle(start1, 2u))) & (columns < XU(subgroupShuffle(end1, 2u))));
      let p11: X = select(X(), exp(s11 * SCALE - normalizer), counts & (columns >= XU(subgroupShuffle(start1, 3u))) & (columns < XU(subgroupShuffle(end1, 3u))));
      let p12: X = select(X(), exp(s12 * SCALE - normalizer), counts & (columns >= XU(subgroupShuffle(start1, 4u))) & (columns < XU(subgroupShuffle(end1, 4u))));
      let p13: X = select(X(), exp(s13 * SCALE - normalizer), counts & (columns >= XU(subgroupShuffle(start1, 5u))) & (columns < XU(subgroupShuffle(end1, 5u))));
      let p14: X = select(X(), exp(s14 * SCALE - normalizer), counts & (columns >= XU(subgroupShuffle(start1, 6u))) & (columns < XU(subgroupShuffle(end1, 6u))));
      let p15: X = select(X(), exp(s15 * SCALE - normalizer), counts & (columns >= XU(subgroupShuffle(start1, 7u))) & (columns < XU(subgroupShuffle(end1, 7u))));
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
        let a0: vec4f = fusedFour(valueAt0, d);
        let a1: vec4f = fusedFour(valueAt1, d);
        let t0 = dOutFour(gradients0, d); let t1 = dOutFour(gradients1, d); let t2 = dOutFour(gradients2, d); let t3 = dOutFour(gradients3, d);
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
      let dScore0: X = p0 * (along0 - rowDelta) * SCALE;
      let dScore1: X = p1 * (along1 - rowDelta) * SCALE;
      let dScore2: X = p2 * (along2 - rowDelta) * SCALE;
      let dScore3: X = p3 * (along3 - rowDelta) * SCALE;
      let dScore4: X = p4 * (along4 - rowDelta) * SCALE;
      let dScore5: X = p5 * (along5 - rowDelta) * SCALE;
      let dScore6: X = p6 * (along6 - rowDelta) * SCALE;
      let dScore7: X = p7 * (along7 - rowDelta) * SCALE;
      let dScore8: X = p8 * (along8 - rowDelta) * SCALE;
      let dScore9: X = p9 * (along9 - rowDelta) * SCALE;
      let dScore10: X = p10 * (along10 - rowDelta) * SCALE;
      let dScore11: X = p11 * (along11 - rowDelta) * SCALE;
      let dScore12: X = p12 * (along12 - rowDelta) * SCALE;
      let dScore13: X = p13 * (along13 - rowDelta) * SCALE;
      let dScore14: X = p14 * (along14 - rowDelta) * SCALE;
      let dScore15: X = p15 * (along15 - rowDelta) * SCALE;
      for (var i = 0u; i < (8u + (u.H >> 31u)); i++) {
        let owner = i;
        let start0 = subgroupShuffle(gradients0, owner); let start1 = subgroupShuffle(gradients1, owner); let start2 = subgroupShuffle(gradients2, owner); let start3 = subgroupShuffle(gradients3, owner);
        let a0 = subgroupShuffle(p0, owner); let a1 = subgroupShuffle(p1, owner); let a2 = subgroupShuffle(p2, owner); let a3 = subgroupShuffle(p3, owner); let a4 = subgroupShuffle(p4, owner); let a5 = subgroupShuffle(p5, owner); let a6 = subgroupShuffle(p6, owner); let a7 = subgroupShuffle(p7, owner); let a8 = subgroupShuffle(p8, owner); let a9 = subgroupShuffle(p9, owner); let a10 = subgroupShuffle(p10, owner); let a11 = subgroupShuffle(p11, owner); let a12 = subgroupShuffle(p12, owner); let a13 = subgroupShuffle(p13, owner); let a14 = subgroupShuffle(p14, owner); let a15 = subgroupShuffle(p15, owner);
        {
          let b0 = dOutFour(start0, min(0u + lane % 8u * 4u, 60u));
          let b1 = dOutFour(start1, min(0u + lane % 8u * 4u, 60u));
          let b2 = dOutFour(start2, min(0u + lane % 8u * 4u, 60u));
          let b3 = dOutFour(start3, min(0u + lane % 8u * 4u, 60u));
          dValue0x0 = fma(vec4f(a0.x), b0, fma(vec4f(a0.y), b1, fma(vec4f(a0.z), b2, fma(vec4f(a0.w), b3, dValue0x0))));
          dValue0x1 = fma(vec4f(a1.x), b0, fma(vec4f(a1.y), b1, fma(vec4f(a1.z), b2, fma(vec4f(a1.w), b3, dValue0x1))));
          dValue0x2 = fma(vec4f(a2.x), b0, fma(vec4f(a2.y), b1, fma(vec4f(a2.z), b2, fma(vec4f(a2.w), b3, dValue0x2))));
          dValue0x3 = fma(vec4f(a3.x), b0, fma(vec4f(a3.y), b1, fma(vec4f(a3.z), b2, fma(vec4f(a3.w), b3, dValue0x3))));
          dValue0x4 = fma(vec4f(a4.x), b0, fma(vec4f(a4.y), b1, fma(vec4f(a4.z), b2, fma(vec4f(a4.w), b3, dValue0x4))));
          dValue0x5 = fma(vec4f(a5.x), b0, fma(vec4f(a5.y), b1, fma(vec4f(a5.z), b2, fma(vec4f(a5.w), b3, dValue0x5))));
          dValue0x6 = fma(vec4f(a6.x), b0, fma(vec4f(a6.y), b1, fma(vec4f(a6.z), b2, fma(vec4f(a6.w), b3, dValue0x6))));
          dValue0x7 = fma(vec4f(a7.x), b0, fma(vec4f(a7.y), b1, fma(vec4f(a7.z), b2, fma(vec4f(a7.w), b3, dValue0x7))));
          dValue0x8 = fma(vec4f(a8.x), b0, fma(vec4f(a8.y), b1, fma(vec4f(a8.z), b2, fma(vec4f(a8.w), b3, dValue0x8))));
          dValue0x9 = fma(vec4f(a9.x), b0, fma(vec4f(a9.y), b1, fma(vec4f(a9.z), b2, fma(vec4f(a9.w), b3, dValue0x9))));
          dValue0x10 = fma(vec4f(a10.x), b0, fma(vec4f(a10.y), b1, fma(vec4f(a10.z), b2, fma(vec4f(a10.w), b3, dValue0x10))));
          dValue0x11 = fma(vec4f(a11.x), b0, fma(vec4f(a11.y), b1, fma(vec4f(a11.z), b2, fma(vec4f(a11.w), b3, dValue0x11))));
          dValue0x12 = fma(vec4f(a12.x), b0, fma(vec4f(a12.y), b1, fma(vec4f(a12.z), b2, fma(vec4f(a12.w), b3, dValue0x12))));
          dValue0x13 = fma(vec4f(a13.x), b0, fma(vec4f(a13.y), b1, fma(vec4f(a13.z), b2, fma(vec4f(a13.w), b3, dValue0x13))));
          dValue0x14 = fma(vec4f(a14.x), b0, fma(vec4f(a14.y), b1, fma(vec4f(a14.z), b2, fma(vec4f(a14.w), b3, dValue0x14))));
          dValue0x15 = fma(vec4f(a15.x), b0, fma(vec4f(a15.y), b1, fma(vec4f(a15.z), b2, fma(vec4f(a15.w), b3, dValue0x15))));
        }
        {
          let b0 = dOutFour(start0, min(32u + lane % 8u * 4u, 60u));
          let b1 = dOutFour(start1, min(32u + lane % 8u * 4u, 60u));
          let b2 = dOutFour(start2, min(32u + lane % 8u * 4u, 60u));
          let b3 = dOutFour(start3, min(32u + lane % 8u * 4u, 60u));
          dValue1x0 = fma(vec4f(a0.x), b0, fma(vec4f(a0.y), b1, fma(vec4f(a0.z), b2, fma(vec4f(a0.w), b3, dValue1x0))));
          dValue1x1 = fma(vec4f(a1.x), b0, fma(vec4f(a1.y), b1, fma(vec4f(a1.z), b2, fma(vec4f(a1.w), b3, dValue1x1))));
          dValue1x2 = fma(vec4f(a2.x), b0, fma(vec4f(a2.y), b1, fma(vec4f(a2.z), b2, fma(vec4f(a2.w), b3, dValue1x2))));
          dValue1x3 = fma(vec4f(a3.x), b0, fma(vec4f(a3.y), b1, fma(vec4f(a3.z), b2, fma(vec4f(a3.w), b3, dValue1x3))));
          dValue1x4 = fma(vec4f(a4.x), b0, fma(vec4f(a4.y), b1, fma(vec4f(a4.z), b2, fma(vec4f(a4.w), b3, dValue1x4))));
          dValue1x5 = fma(vec4f(a5.x), b0, fma(vec4f(a5.y), b1, fma(vec4f(a5.z), b2, fma(vec4f(a5.w), b3, dValue1x5))));
          dValue1x6 = fma(vec4f(a6.x), b0, fma(vec4f(a6.y), b1, fma(vec4f(a6.z), b2, fma(vec4f(a6.w), b3, dValue1x6))));
          dValue1x7 = fma(vec4f(a7.x), b0, fma(vec4f(a7.y), b1, fma(vec4f(a7.z), b2, fma(vec4f(a7.w), b3, dValue1x7))));
          dValue1x8 = fma(vec4f(a8.x), b0, fma(vec4f(a8.y), b1, fma(vec4f(a8.z), b2, fma(vec4f(a8.w), b3, dValue1x8))));
          dValue1x9 = fma(vec4f(a9.x), b0, fma(vec4f(a9.y), b1, fma(vec4f(a9.z), b2, fma(vec4f(a9.w), b3, dValue1x9))));
          dValue1x10 = fma(vec4f(a10.x), b0, fma(vec4f(a10.y), b1, fma(vec4f(a10.z), b2, fma(vec4f(a10.w), b3, dValue1x10))));
          dValue1x11 = fma(vec4f(a11.x), b0, fma(vec4f(a11.y), b1, fma(vec4f(a11.z), b2, fma(vec4f(a11.w), b3, dValue1x11))));
          dValue1x12 = fma(vec4f(a12.x), b0, fma(vec4f(a12.y), b1, fma(vec4f(a12.z), b2, fma(vec4f(a12.w), b3, dValue1x12))));
          dValue1x13 = fma(vec4f(a13.x), b0, fma(vec4f(a13.y), b1, fma(vec4f(a13.z), b2, fma(vec4f(a13.w), b3, dValue1x13))));
          dValue1x14 = fma(vec4f(a14.x), b0, fma(vec4f(a14.y), b1, fma(vec4f(a14.z), b2, fma(vec4f(a14.w), b3, dValue1x14))));
          dValue1x15 = fma(vec4f(a15.x), b0, fma(vec4f(a15.y), b1, fma(vec4f(a15.z), b2, fma(vec4f(a15.w), b3, dValue1x15))));
        }
      }
      for (var i = 0u; i < (8u + (u.H >> 31u)); i++) {
        let owner = i;
        let start0 = subgroupShuffle(queries0, owner); let start1 = subgroupShuffle(queries1, owner); let start2 = subgroupShuffle(queries2, owner); let start3 = subgroupShuffle(queries3, owner);
        let a0 = subgroupShuffle(dScore0, owner); let a1 = subgroupShuffle(dScore1, owner); let a2 = subgroupShuffle(dScore2, owner); let a3 = subgroupShuffle(dScore3, owner); let a4 = subgroupShuffle(dScore4, owner); let a5 = subgroupShuffle(dScore5, owner); let a6 = subgroupShuffle(dScore6, owner); let a7 = subgroupShuffle(dScore7, owner); let a8 = subgroupShuffle(dScore8, owner); let a9 = subgroupShuffle(dScore9, owner); let a10 = subgroupShuffle(dScore10, owner); let a11 = subgroupShuffle(dScore11, owner); let a12 = subgroupShuffle(dScore12, owner); let a13 = subgroupShuffle(dScore13, owner); let a14 = subgroupShuffle(dScore14, owner); let a15 = subgroupShuffle(dScore15, owner);
        {
          let b0 = fusedFour(start0, min(0u + lane % 8u * 4u, 60u));
          let b1 = fusedFour(start1, min(0u + lane % 8u * 4u, 60u));
          let b2 = fusedFour(start2, min(0u + lane % 8u * 4u, 60u));
          let b3 = fusedFour(start3, min(0u + lane % 8u * 4u, 60u));
          dKey0x0 = fma(vec4f(a0.x), b0, fma(vec4f(a0.y), b1, fma(vec4f(a0.z), b2, fma(vec4f(a0.w), b3, dKey0x0))));
          dKey0x1 = fma(vec4f(a1.x), b0, fma(vec4f(a1.y), b1, fma(vec4f(a1.z), b2, fma(vec4f(a1.w), b3, dKey0x1))));
          dKey0x2 = fma(vec4f(a2.x), b0, fma(vec4f(a2.y), b1, fma(vec4f(a2.z), b2, fma(vec4f(a2.w), b3, dKey0x2))));
          dKey0x3 = fma(vec4f(a3.x), b0, fma(vec4f(a3.y), b1, fma(vec4f(a3.z), b2, fma(vec4f(a3.w), b3, dKey0x3))));
          dKey0x4 = fma(vec4f(a4.x), b0, fma(vec4f(a4.y), b1, fma(vec4f(a4.z), b2, fma(vec4f(a4.w), b3, dKey0x4))));
          dKey0x5 = fma(vec4f(a5.x), b0, fma(vec4f(a5.y), b1, fma(vec4f(a5.z), b2, fma(vec4f(a5.w), b3, dKey0x5))));
          dKey0x6 = fma(vec4f(a6.x), b0, fma(vec4f(a6.y), b1, fma(vec4f(a6.z), b2, fma(vec4f(a6.w), b3, dKey0x6))));
          dKey0x7 = fma(vec4f(a7.x), b0, fma(vec4f(a7.y), b1, fma(vec4f(a7.z), b2, fma(vec4f(a7.w), b3, dKey0x7))));
          dKey0x8 = fma(vec4f(a8.x), b0, fma(vec4f(a8.y), b1, fma(vec4f(a8.z), b2, fma(vec4f(a8.w), b3, dKey0x8))));
          dKey0x9 = fma(vec4f(a9.x), b0, fma(vec4f(a9.y), b1, fma(vec4f(a9.z), b2, fma(vec4f(a9.w), b3, dKey0x9))));
          dKey0x10 = fma(vec4f(a10.x), b0, fma(vec4f(a10.y), b1, fma(vec4f(a10.z), b2, fma(vec4f(a10.w), b3, dKey0x10))));
          dKey0x11 = fma(vec4f(a11.x), b0, fma(vec4f(a11.y), b1, fma(vec4f(a11.z), b2, fma(vec4f(a11.w), b3, dKey0x11))));
          dKey0x12 = fma(vec4f(a12.x), b0, fma(vec4f(a12.y), b1, fma(vec4f(a12.z), b2, fma(vec4f(a12.w), b3, dKey0x12))));
          dKey0x13 = fma(vec4f(a13.x), b0, fma(vec4f(a13.y), b1, fma(vec4f(a13.z), b2, fma(vec4f(a13.w), b3, dKey0x13))));
          dKey0x14 = fma(vec4f(a14.x), b0, fma(vec4f(a14.y), b1, fma(vec4f(a14.z), b2, fma(vec4f(a14.w), b3, dKey0x14))));
          dKey0x15 = fma(vec4f(a15.x), b0, fma(vec4f(a15.y), b1, fma(vec4f(a15.z), b2, fma(vec4f(a15.w), b3, dKey0x15))));
        }
        {
          let b0 = fusedFour(start0, min(32u + lane % 8u * 4u, 60u));
          let b1 = fusedFour(start1, min(32u + lane % 8u * 4u, 60u));
          let b2 = fusedFour(start2, min(32u + lane % 8u * 4u, 60u));
          let b3 = fusedFour(start3, min(32u + lane % 8u * 4u, 60u));
          dKey1x0 = fma(vec4f(a0.x), b0, fma(vec4f(a0.y), b1, fma(vec4f(a0.z), b2, fma(vec4f(a0.w), b3, dKey1x0))));
          dKey1x1 = fma(vec4f(a1.x), b0, fma(vec4f(a1.y), b1, fma(vec4f(a1.z), b2, fma(vec4f(a1.w), b3, dKey1x1))));
          dKey1x2 = fma(vec4f(a2.x), b0, fma(vec4f(a2.y), b1, fma(vec4f(a2.z), b2, fma(vec4f(a2.w), b3, dKey1x2))));
          dKey1x3 = fma(vec4f(a3.x), b0, fma(vec4f(a3.y), b1, fma(vec4f(a3.z), b2, fma(vec4f(a3.w), b3, dKey1x3))));
          dKey1x4 = fma(vec4f(a4.x), b0, fma(vec4f(a4.y), b1, fma(vec4f(a4.z), b2, fma(vec4f(a4.w), b3, dKey1x4))));
          dKey1x5 = fma(vec4f(a5.x), b0, fma(vec4f(a5.y), b1, fma(vec4f(a5.z), b2, fma(vec4f(a5.w), b3, dKey1x5))));
          dKey1x6 = fma(vec4f(a6.x), b0, fma(vec4f(a6.y), b1, fma(vec4f(a6.z), b2, fma(vec4f(a6.w), b3, dKey1x6))));
          dKey1x7 = fma(vec4f(a7.x), b0, fma(vec4f(a7.y), b1, fma(vec4f(a7.z), b2, fma(vec4f(a7.w), b3, dKey1x7))));
          dKey1x8 = fma(vec4f(a8.x), b0, fma(vec4f(a8.y), b1, fma(vec4f(a8.z), b2, fma(vec4f(a8.w), b3, dKey1x8))));
          dKey1x9 = fma(vec4f(a9.x), b0, fma(vec4f(a9.y), b1, fma(vec4f(a9.z), b2, fma(vec4f(a9.w), b3, dKey1x9))));
          dKey1x10 = fma(vec4f(a10.x), b0, fma(vec4f(a10.y), b1, fma(vec4f(a10.z), b2, fma(vec4f(a10.w), b3, dKey1x10))));
          dKey1x11 = fma(vec4f(a11.x), b0, fma(vec4f(a11.y), b1, fma(vec4f(a11.z), b2, fma(vec4f(a11.w), b3, dKey1x11))));
          dKey1x12 = fma(vec4f(a12.x), b0, fma(vec4f(a12.y), b1, fma(vec4f(a12.z), b2, fma(vec4f(a12.w), b3, dKey1x12))));
          dKey1x13 = fma(vec4f(a13.x), b0, fma(vec4f(a13.y), b1, fma(vec4f(a13.z), b2, fma(vec4f(a13.w), b3, dKey1x13))));
          dKey1x14 = fma(vec4f(a14.x), b0, fma(vec4f(a14.y), b1, fma(vec4f(a14.z), b2, fma(vec4f(a14.w), b3, dKey1x14))));
          dKey1x15 = fma(vec4f(a15.x), b0, fma(vec4f(a15.y), b1, fma(vec4f(a15.z), b2, fma(vec4f(a15.w), b3, dKey1x15))));
        }
      }
      token += tokens;
    }
  }
  {
    let channel = 0u + lane * 4u;
    var values = array<vec4f, 16>(dKey0x0, dKey0x1, dKey0x2, dKey0x3, dKey0x4, dKey0x5, dKey0x6, dKey0x7, dKey0x8, dKey0x9, dKey0x10, dKey0x11, dKey0x12, dKey0x13, dKey0x14, dKey0x15);
    var places = array<u32, 16>(subgroupShuffle(keyAt0, 0u), subgroupShuffle(keyAt0, 1u), subgroupShuffle(keyAt0, 2u), subgroupShuffle(keyAt0, 3u), subgroupShuffle(keyAt0, 4u), subgroupShuffle(keyAt0, 5u), subgroupShuffle(keyAt0, 6u), subgroupShuffle(keyAt0, 7u), subgroupShuffle(keyAt1, 0u), subgroupShuffle(keyAt1, 1u), subgroupShuffle(keyAt1, 2u), subgroupShuffle(keyAt1, 3u), subgroupShuffle(keyAt1, 4u), subgroupShuffle(keyAt1, 5u), subgroupShuffle(keyAt1, 6u), subgroupShuffle(keyAt1, 7u));
    for (var r = 0u; r < (16u + (u.H >> 31u)); r++) {
      if (lane < 8u && channel < 64u) { store(places[r], channel, values[r]); }
    }
  }
  {
    let channel = 32u + lane * 4u;
    var values = array<vec4f, 16>(dKey1x0, dKey1x1, dKey1x2, dKey1x3, dKey1x4, dKey1x5, dKey1x6, dKey1x7, dKey1x8, dKey1x9, dKey1x10, dKey1x11, dKey1x12, dKey1x13, dKey1x14, dKey1x15);
    var places = array<u32, 16>(subgroupShuffle(keyAt0, 0u), subgroupShuffle(keyAt0, 1u), subgroupShuffle(keyAt0, 2u), subgroupShuffle(keyAt0, 3u), subgroupShuffle(keyAt0, 4u), subgroupShuffle(keyAt0, 5u), subgroupShuffle(keyAt0, 6u), subgroupShuffle(keyAt0, 7u), subgroupShuffle(keyAt1, 0u), subgroupShuffle(keyAt1, 1u), subgroupShuffle(keyAt1, 2u), subgroupShuffle(keyAt1, 3u), subgroupShuffle(keyAt1, 4u), subgroupShuffle(keyAt1, 5u), subgroupShuffle(keyAt1, 6u), subgroupShuffle(keyAt1, 7u));
    for (var r = 0u; r < (16u + (u.H >> 31u)); r++) {
      if (lane < 8u && channel < 64u) { store(places[r], channel, values[r]); }
    }
  }
  {
    let channel = 0u + lane * 4u;
    var values = array<vec4f, 16>(dValue0x0, dValue0x1, dValue0x2, dValue0x3, dValue0x4, dValue0x5, dValue0x6, dValue0x7, dValue0x8, dValue0x9, dValue0x10, dValue0x11, dValue0x12, dValue0x13, dValue0x14, dValue0x15);
    var places = array<u32, 16>(subgroupShuffle(valueAt0, 0u), subgroupShuffle(valueAt0, 1u), subgroupShuffle(valueAt0, 2u), subgroupShuffle(valueAt0, 3u), subgroupShuffle(valueAt0, 4u), subgroupShuffle(valueAt0, 5u), subgroupShuffle(valueAt0, 6u), subgroupShuffle(valueAt0, 7u), subgroupShuffle(valueAt1, 0u), subgroupShuffle(valueAt1, 1u), subgroupShuffle(valueAt1, 2u), subgroupShuffle(valueAt1, 3u), subgroupShuffle(valueAt1, 4u), subgroupShuffle(valueAt1, 5u), subgroupShuffle(valueAt1, 6u), subgroupShuffle(valueAt1, 7u));
    for (var r = 0u; r < (16u + (u.H >> 31u)); r++) {
      if (lane < 8u && channel < 64u) { store(places[r], channel, values[r]); }
    }
  }
  {
    let channel = 32u + lane * 4u;
    var values = array<vec4f, 16>(dValue1x0, dValue1x1, dValue1x2, dValue1x3, dValue1x4, dValue1x5, dValue1x6, dValue1x7, dValue1x8, dValue1x9, dValue1x10, dValue1x11, dValue1x12, dValue1x13, dValue1x14, dValue1x15);
    var places = array<u32, 16>(subgroupShuffle(valueAt0, 0u), subgroupShuffle(valueAt0, 1u), subgroupShuffle(valueAt0, 2u), subgroupShuffle(valueAt0, 3u), subgroupShuffle(valueAt0, 4u), subgroupShuffle(valueAt0, 5u), subgroupShuffle(valueAt0, 6u), subgroupShuffle(valueAt0, 7u), subgroupShuffle(valueAt1, 0u), subgroupShuffle(valueAt1, 1u), subgroupShuffle(valueAt1, 2u), subgroupShuffle(valueAt1, 3u), subgroupShuffle(valueAt1, 4u), subgroupShuffle(valueAt1, 5u), subgroupShuffle(valueAt1, 6u), subgroupShuffle(valueAt1, 7u));
    for (var r = 0u; r < (16u + (u.H >> 31u)); r++) {
      if (lane < 8u && channel < 64u) { store(places[r], channel, values[r]); }
    }
  }
}

fn linearGroup(id: vec3u) -> u32 { return id.x + id.y * 32768u; }

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let tiles = ((u.T + 15u) / 16u);
  let index = linearGroup(placeInGrid(group));
  if (index >= tiles * (u.H / u.groupSize)) { return; }
  element(index / tiles, index % tiles, lane);
}
