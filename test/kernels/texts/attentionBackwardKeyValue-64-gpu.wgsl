// attentionBackwardKeyValue: head size 64, subgroups of 32 on a GPU, many rows.

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
alias X = f32;
alias XU = u32;
const UNIT: u32 = 4u;
const HEAD: u32 = 16u;
const SCALE: f32 = 0.125;
const NONE: u32 = 0xffffffffu;
fn fusedFour(start: u32, d: u32) -> vec4f { return fused[start + d / 4u]; }
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

fn queryAt(token: u32, head: u32, end: u32) -> u32 { return (min(token, end - 1u) * u.width + u.qFrom) / UNIT + head * HEAD; }
fn resultAt(token: u32, head: u32, end: u32) -> u32 { return min(token, end - 1u) * u.H + head; }
@diagnostic(off, subgroup_uniformity)
fn element(kvHead: u32, tile: u32, lane: u32) {
  var startHeld: array<u32, 1>;
  var endHeld: array<u32, 1>;
  var keyAtHeld: array<u32, 1>;
  var valueAtHeld: array<u32, 1>;
  for (var i = 0u; i < (1u + (u.H >> 31u)); i++) {
    let own = min(tile * 16u + i * 32u + lane % 16u, u.T - 1u);
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
  var dKey0x0: vec4f;
  var dKey0x1: vec4f;
  var dKey0x2: vec4f;
  var dKey0x3: vec4f;
  var dKey0x4: vec4f;
  var dKey0x5: vec4f;
  var dKey0x6: vec4f;
  var dKey0x7: vec4f;
  var dKey0x8: vec4f;
  var dKey0x9: vec4f;
  var dKey0x10: vec4f;
  var dKey0x11: vec4f;
  var dKey0x12: vec4f;
  var dKey0x13: vec4f;
  var dKey0x14: vec4f;
  var dKey0x15: vec4f;
  var dValue0x0: vec4f;
  var dValue0x1: vec4f;
  var dValue0x2: vec4f;
  var dValue0x3: vec4f;
  var dValue0x4: vec4f;
  var dValue0x5: vec4f;
  var dValue0x6: vec4f;
  var dValue0x7: vec4f;
  var dValue0x8: vec4f;
  var dValue0x9: vec4f;
  var dValue0x10: vec4f;
  var dValue0x11: vec4f;
  var dValue0x12: vec4f;
  var dValue0x13: vec4f;
  var dValue0x14: vec4f;
  var dValue0x15: vec4f;
  let last = lanesMost(end0);
  // Columns of a tile: tokens times `together` heads of the group.
  let together = min(u.groupSize, 32u);
  let tokens = 32u / together;
  let column = lane * 1u;
  let columnToken = column / together;
  for (var firstHead = 0u; firstHead < u.groupSize; firstHead += together) {
    let columnHead = firstHead + column % together;
    let counts = (columnToken < XU(tokens)) & (columnHead < XU(u.groupSize));
    let heads = kvHead * u.groupSize + min(columnHead, XU(u.groupSize - 1u));
    var token = 0u;
    loop {
      token = lanesLeast(firstFrom(start0, end0, token));
      if (token == NONE) { break; }
      let columns = token + columnToken;
      let results0: u32 = resultAt(columns, heads, last);
      let gradients0: u32 = results0 * HEAD;
      let queries0: u32 = queryAt(columns, heads, last);
      let normalizer = X(logSumExp[results0]);
      let rowDelta = X(delta[results0]);
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
        let t0 = fusedFour(queries0, d);
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
      let p0: X = select(X(), exp(s0 * SCALE - normalizer), counts & (columns >= XU(subgroupBroadcast(start0, 0u))) & (columns < XU(subgroupBroadcast(end0, 0u))));
      let p1: X = select(X(), exp(s1 * SCALE - normalizer), counts & (columns >= XU(subgroupBroadcast(start0, 1u))) & (columns < XU(subgroupBroadcast(end0, 1u))));
      let p2: X = select(X(), exp(s2 * SCALE - normalizer), counts & (columns >= XU(subgroupBroadcast(start0, 2u))) & (columns < XU(subgroupBroadcast(end0, 2u))));
      let p3: X = select(X(), exp(s3 * SCALE - normalizer), counts & (columns >= XU(subgroupBroadcast(start0, 3u))) & (columns < XU(subgroupBroadcast(end0, 3u))));
      let p4: X = select(X(), exp(s4 * SCALE - normalizer), counts & (columns >= XU(subgroupBroadcast(start0, 4u))) & (columns < XU(subgroupBroadcast(end0, 4u))));
      let p5: X = select(X(), exp(s5 * SCALE - normalizer), counts & (columns >= XU(subgroupBroadcast(start0, 5u))) & (columns < XU(subgroupBroadcast(end0, 5u))));
      let p6: X = select(X(), exp(s6 * SCALE - normalizer), counts & (columns >= XU(subgroupBroadcast(start0, 6u))) & (columns < XU(subgroupBroadcast(end0, 6u))));
      let p7: X = select(X(), exp(s7 * SCALE - normalizer), counts & (columns >= XU(subgroupBroadcast(start0, 7u))) & (columns < XU(subgroupBroadcast(end0, 7u))));
      let p8: X = select(X(), exp(s8 * SCALE - normalizer), counts & (columns >= XU(subgroupBroadcast(start0, 8u))) & (columns < XU(subgroupBroadcast(end0, 8u))));
      let p9: X = select(X(), exp(s9 * SCALE - normalizer), counts & (columns >= XU(subgroupBroadcast(start0, 9u))) & (columns < XU(subgroupBroadcast(end0, 9u))));
      let p10: X = select(X(), exp(s10 * SCALE - normalizer), counts & (columns >= XU(subgroupBroadcast(start0, 10u))) & (columns < XU(subgroupBroadcast(end0, 10u))));
      let p11: X = select(X(), exp(s11 * SCALE - normalizer), counts & (columns >= XU(subgroupBroadcast(start0, 11u))) & (columns < XU(subgroupBroadcast(end0, 11u))));
      let p12: X = select(X(), exp(s12 * SCALE - normalizer), counts & (columns >= XU(subgroupBroadcast(start0, 12u))) & (columns < XU(subgroupBroadcast(end0, 12u))));
      let p13: X = select(X(), exp(s13 * SCALE - normalizer), counts & (columns >= XU(subgroupBroadcast(start0, 13u))) & (columns < XU(subgroupBroadcast(end0, 13u))));
      let p14: X = select(X(), exp(s14 * SCALE - normalizer), counts & (columns >= XU(subgroupBroadcast(start0, 14u))) & (columns < XU(subgroupBroadcast(end0, 14u))));
      let p15: X = select(X(), exp(s15 * SCALE - normalizer), counts & (columns >= XU(subgroupBroadcast(start0, 15u))) & (columns < XU(subgroupBroadcast(end0, 15u))));
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
        let t0 = dOutFour(gradients0, d);
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
      for (var i = 0u; i < (16u + (u.H >> 31u)); i++) {
        let owner = i * 2u + lane / 16u;
        let start0 = subgroupShuffle(gradients0, owner);
        let a0 = subgroupShuffle(p0, owner); let a1 = subgroupShuffle(p1, owner); let a2 = subgroupShuffle(p2, owner); let a3 = subgroupShuffle(p3, owner); let a4 = subgroupShuffle(p4, owner); let a5 = subgroupShuffle(p5, owner); let a6 = subgroupShuffle(p6, owner); let a7 = subgroupShuffle(p7, owner); let a8 = subgroupShuffle(p8, owner); let a9 = subgroupShuffle(p9, owner); let a10 = subgroupShuffle(p10, owner); let a11 = subgroupShuffle(p11, owner); let a12 = subgroupShuffle(p12, owner); let a13 = subgroupShuffle(p13, owner); let a14 = subgroupShuffle(p14, owner); let a15 = subgroupShuffle(p15, owner);
        {
          let b0 = dOutFour(start0, min(0u + lane % 16u * 4u, 60u));
          dValue0x0 = fma(vec4f(a0), b0, dValue0x0);
          dValue0x1 = fma(vec4f(a1), b0, dValue0x1);
          dValue0x2 = fma(vec4f(a2), b0, dValue0x2);
          dValue0x3 = fma(vec4f(a3), b0, dValue0x3);
          dValue0x4 = fma(vec4f(a4), b0, dValue0x4);
          dValue0x5 = fma(vec4f(a5), b0, dValue0x5);
          dValue0x6 = fma(vec4f(a6), b0, dValue0x6);
          dValue0x7 = fma(vec4f(a7), b0, dValue0x7);
          dValue0x8 = fma(vec4f(a8), b0, dValue0x8);
          dValue0x9 = fma(vec4f(a9), b0, dValue0x9);
          dValue0x10 = fma(vec4f(a10), b0, dValue0x10);
          dValue0x11 = fma(vec4f(a11), b0, dValue0x11);
          dValue0x12 = fma(vec4f(a12), b0, dValue0x12);
          dValue0x13 = fma(vec4f(a13), b0, dValue0x13);
          dValue0x14 = fma(vec4f(a14), b0, dValue0x14);
          dValue0x15 = fma(vec4f(a15), b0, dValue0x15);
        }
      }
      for (var i = 0u; i < (16u + (u.H >> 31u)); i++) {
        let owner = i * 2u + lane / 16u;
        let start0 = subgroupShuffle(queries0, owner);
        let a0 = subgroupShuffle(dScore0, owner); let a1 = subgroupShuffle(dScore1, owner); let a2 = subgroupShuffle(dScore2, owner); let a3 = subgroupShuffle(dScore3, owner); let a4 = subgroupShuffle(dScore4, owner); let a5 = subgroupShuffle(dScore5, owner); let a6 = subgroupShuffle(dScore6, owner); let a7 = subgroupShuffle(dScore7, owner); let a8 = subgroupShuffle(dScore8, owner); let a9 = subgroupShuffle(dScore9, owner); let a10 = subgroupShuffle(dScore10, owner); let a11 = subgroupShuffle(dScore11, owner); let a12 = subgroupShuffle(dScore12, owner); let a13 = subgroupShuffle(dScore13, owner); let a14 = subgroupShuffle(dScore14, owner); let a15 = subgroupShuffle(dScore15, owner);
        {
          let b0 = fusedFour(start0, min(0u + lane % 16u * 4u, 60u));
          dKey0x0 = fma(vec4f(a0), b0, dKey0x0);
          dKey0x1 = fma(vec4f(a1), b0, dKey0x1);
          dKey0x2 = fma(vec4f(a2), b0, dKey0x2);
          dKey0x3 = fma(vec4f(a3), b0, dKey0x3);
          dKey0x4 = fma(vec4f(a4), b0, dKey0x4);
          dKey0x5 = fma(vec4f(a5), b0, dKey0x5);
          dKey0x6 = fma(vec4f(a6), b0, dKey0x6);
          dKey0x7 = fma(vec4f(a7), b0, dKey0x7);
          dKey0x8 = fma(vec4f(a8), b0, dKey0x8);
          dKey0x9 = fma(vec4f(a9), b0, dKey0x9);
          dKey0x10 = fma(vec4f(a10), b0, dKey0x10);
          dKey0x11 = fma(vec4f(a11), b0, dKey0x11);
          dKey0x12 = fma(vec4f(a12), b0, dKey0x12);
          dKey0x13 = fma(vec4f(a13), b0, dKey0x13);
          dKey0x14 = fma(vec4f(a14), b0, dKey0x14);
          dKey0x15 = fma(vec4f(a15), b0, dKey0x15);
        }
      }
      token += tokens;
    }
  }
  {
    dKey0x0 += subgroupShuffleXor(dKey0x0, 16u);
    dKey0x1 += subgroupShuffleXor(dKey0x1, 16u);
    dKey0x2 += subgroupShuffleXor(dKey0x2, 16u);
    dKey0x3 += subgroupShuffleXor(dKey0x3, 16u);
    dKey0x4 += subgroupShuffleXor(dKey0x4, 16u);
    dKey0x5 += subgroupShuffleXor(dKey0x5, 16u);
    dKey0x6 += subgroupShuffleXor(dKey0x6, 16u);
    dKey0x7 += subgroupShuffleXor(dKey0x7, 16u);
    dKey0x8 += subgroupShuffleXor(dKey0x8, 16u);
    dKey0x9 += subgroupShuffleXor(dKey0x9, 16u);
    dKey0x10 += subgroupShuffleXor(dKey0x10, 16u);
    dKey0x11 += subgroupShuffleXor(dKey0x11, 16u);
    dKey0x12 += subgroupShuffleXor(dKey0x12, 16u);
    dKey0x13 += subgroupShuffleXor(dKey0x13, 16u);
    dKey0x14 += subgroupShuffleXor(dKey0x14, 16u);
    dKey0x15 += subgroupShuffleXor(dKey0x15, 16u);
    let channel = 0u + lane * 4u;
    var values = array<vec4f, 16>(dKey0x0, dKey0x1, dKey0x2, dKey0x3, dKey0x4, dKey0x5, dKey0x6, dKey0x7, dKey0x8, dKey0x9, dKey0x10, dKey0x11, dKey0x12, dKey0x13, dKey0x14, dKey0x15);
    var places = array<u32, 16>(subgroupBroadcast(keyAt0, 0u), subgroupBroadcast(keyAt0, 1u), subgroupBroadcast(keyAt0, 2u), subgroupBroadcast(keyAt0, 3u), subgroupBroadcast(keyAt0, 4u), subgroupBroadcast(keyAt0, 5u), subgroupBroadcast(keyAt0, 6u), subgroupBroadcast(keyAt0, 7u), subgroupBroadcast(keyAt0, 8u), subgroupBroadcast(keyAt0, 9u), subgroupBroadcast(keyAt0, 10u), subgroupBroadcast(keyAt0, 11u), subgroupBroadcast(keyAt0, 12u), subgroupBroadcast(keyAt0, 13u), subgroupBroadcast(keyAt0, 14u), subgroupBroadcast(keyAt0, 15u));
    for (var r = 0u; r < (16u + (u.H >> 31u)); r++) {
      if (lane < 16u && channel < 64u) { store(places[r], channel, values[r]); }
    }
  }
  {
    dValue0x0 += subgroupShuffleXor(dValue0x0, 16u);
    dValue0x1 += subgroupShuffleXor(dValue0x1, 16u);
    dValue0x2 += subgroupShuffleXor(dValue0x2, 16u);
    dValue0x3 += subgroupShuffleXor(dValue0x3, 16u);
    dValue0x4 += subgroupShuffleXor(dValue0x4, 16u);
    dValue0x5 += subgroupShuffleXor(dValue0x5, 16u);
    dValue0x6 += subgroupShuffleXor(dValue0x6, 16u);
    dValue0x7 += subgroupShuffleXor(dValue0x7, 16u);
    dValue0x8 += subgroupShuffleXor(dValue0x8, 16u);
    dValue0x9 += subgroupShuffleXor(dValue0x9, 16u);
    dValue0x10 += subgroupShuffleXor(dValue0x10, 16u);
    dValue0x11 += subgroupShuffleXor(dValue0x11, 16u);
    dValue0x12 += subgroupShuffleXor(dValue0x12, 16u);
    dValue0x13 += subgroupShuffleXor(dValue0x13, 16u);
    dValue0x14 += subgroupShuffleXor(dValue0x14, 16u);
    dValue0x15 += subgroupShuffleXor(dValue0x15, 16u);
    let channel = 0u + lane * 4u;
    var values = array<vec4f, 16>(dValue0x0, dValue0x1, dValue0x2, dValue0x3, dValue0x4, dValue0x5, dValue0x6, dValue0x7, dValue0x8, dValue0x9, dValue0x10, dValue0x11, dValue0x12, dValue0x13, dValue0x14, dValue0x15);
    var places = array<u32, 16>(subgroupBroadcast(valueAt0, 0u), subgroupBroadcast(valueAt0, 1u), subgroupBroadcast(valueAt0, 2u), subgroupBroadcast(valueAt0, 3u), subgroupBroadcast(valueAt0, 4u), subgroupBroadcast(valueAt0, 5u), subgroupBroadcast(valueAt0, 6u), subgroupBroadcast(valueAt0, 7u), subgroupBroadcast(valueAt0, 8u), subgroupBroadcast(valueAt0, 9u), subgroupBroadcast(valueAt0, 10u), subgroupBroadcast(valueAt0, 11u), subgroupBroadcast(valueAt0, 12u), subgroupBroadcast(valueAt0, 13u), subgroupBroadcast(valueAt0, 14u), subgroupBroadcast(valueAt0, 15u));
    for (var r = 0u; r < (16u + (u.H >> 31u)); r++) {
      if (lane < 16u && channel < 64u) { store(places[r], channel, values[r]); }
    }
  }
}

fn linearGroup(id: vec3u) -> u32 { return id.x + id.y * 32768u; }

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let tiles = ((u.T + 15u) / 16u);
  let index = linearGroup(placeInGrid(group));
  if (index >= tiles * (u.H / u.groupSize)) { return; }
  element(index / tiles, index % tiles, lane);
}
