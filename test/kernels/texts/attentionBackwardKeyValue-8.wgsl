// attentionBackwardKeyValue: head size 8, a lane alone, software adapter, many rows.

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
const HEAD: u32 = 2u;
const SCALE: f32 = 0.35355339059327373;
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

fn queryAt(token: u32, head: u32, end: u32) -> u32 { return (min(token, end - 1u) * u.width + u.qFrom) / UNIT + head * HEAD; }
fn resultAt(token: u32, head: u32, end: u32) -> u32 { return min(token, end - 1u) * u.H + head; }

fn element(kvHead: u32, tile: u32, lane: u32) {
  var startHeld: array<u32, 8>;
  var endHeld: array<u32, 8>;
  var keyAtHeld: array<u32, 8>;
  var valueAtHeld: array<u32, 8>;
  var keyAtRow: array<vec4f, 16>;
  var valueAtRow: array<vec4f, 16>;
  for (var i = 0u; i < (8u + (u.H >> 31u)); i++) {
    let own = min(tile * 8u + i, u.T - 1u);
    let start = own;
    let end = queryEnd[own];
    let keyAt = (own * u.width + u.kFrom) / UNIT + kvHead * HEAD;
    let valueAt = (own * u.width + u.vFrom) / UNIT + kvHead * HEAD;
    startHeld[i] = start;
    endHeld[i] = end;
    keyAtHeld[i] = keyAt;
    valueAtHeld[i] = valueAt;
    for (var chunk = 0u; chunk < (2u + (u.H >> 31u)); chunk++) {
      keyAtRow[i * 2u + chunk] = fusedFour(keyAt, 4u * chunk);
      valueAtRow[i * 2u + chunk] = fusedFour(valueAt, 4u * chunk);
    }
  }
  let start0: u32 = startHeld[0]; let end0: u32 = endHeld[0]; let keyAt0: u32 = keyAtHeld[0]; let valueAt0: u32 = valueAtHeld[0];
  let start1: u32 = startHeld[1]; let end1: u32 = endHeld[1]; let keyAt1: u32 = keyAtHeld[1]; let valueAt1: u32 = valueAtHeld[1];
  let start2: u32 = startHeld[2]; let end2: u32 = endHeld[2]; let keyAt2: u32 = keyAtHeld[2]; let valueAt2: u32 = valueAtHeld[2];
  let start3: u32 = startHeld[3]; let end3: u32 = endHeld[3]; let keyAt3: u32 = keyAtHeld[3]; let valueAt3: u32 = valueAtHeld[3];
  let start4: u32 = startHeld[4]; let end4: u32 = endHeld[4]; let keyAt4: u32 = keyAtHeld[4]; let valueAt4: u32 = valueAtHeld[4];
  let start5: u32 = startHeld[5]; let end5: u32 = endHeld[5]; let keyAt5: u32 = keyAtHeld[5]; let valueAt5: u32 = valueAtHeld[5];
  let start6: u32 = startHeld[6]; let end6: u32 = endHeld[6]; let keyAt6: u32 = keyAtHeld[6]; let valueAt6: u32 = valueAtHeld[6];
  let start7: u32 = startHeld[7]; let end7: u32 = endHeld[7]; let keyAt7: u32 = keyAtHeld[7]; let valueAt7: u32 = valueAtHeld[7];
  let keyAtRow0x0 = keyAtRow[0]; let keyAtRow1x0 = keyAtRow[1];
  let keyAtRow0x1 = keyAtRow[2]; let keyAtRow1x1 = keyAtRow[3];
  let keyAtRow0x2 = keyAtRow[4]; let keyAtRow1x2 = keyAtRow[5];
  let keyAtRow0x3 = keyAtRow[6]; let keyAtRow1x3 = keyAtRow[7];
  let keyAtRow0x4 = keyAtRow[8]; let keyAtRow1x4 = keyAtRow[9];
  let keyAtRow0x5 = keyAtRow[10]; let keyAtRow1x5 = keyAtRow[11];
  let keyAtRow0x6 = keyAtRow[12]; let keyAtRow1x6 = keyAtRow[13];
  let keyAtRow0x7 = keyAtRow[14]; let keyAtRow1x7 = keyAtRow[15];
  let valueAtRow0x0 = valueAtRow[0]; let valueAtRow1x0 = valueAtRow[1];
  let valueAtRow0x1 = valueAtRow[2]; let valueAtRow1x1 = valueAtRow[3];
  let valueAtRow0x2 = valueAtRow[4]; let valueAtRow1x2 = valueAtRow[5];
  let valueAtRow0x3 = valueAtRow[6]; let valueAtRow1x3 = valueAtRow[7];
  let valueAtRow0x4 = valueAtRow[8]; let valueAtRow1x4 = valueAtRow[9];
  let valueAtRow0x5 = valueAtRow[10]; let valueAtRow1x5 = valueAtRow[11];
  let valueAtRow0x6 = valueAtRow[12]; let valueAtRow1x6 = valueAtRow[13];
  let valueAtRow0x7 = valueAtRow[14]; let valueAtRow1x7 = valueAtRow[15];
  var dKey0x0: vec4f; var dKey1x0: vec4f;
  var dKey0x1: vec4f; var dKey1x1: vec4f;
  var dKey0x2: vec4f; var dKey1x2: vec4f;
  var dKey0x3: vec4f; var dKey1x3: vec4f;
  var dKey0x4: vec4f; var dKey1x4: vec4f;
  var dKey0x5: vec4f; var dKey1x5: vec4f;
  var dKey0x6: vec4f; var dKey1x6: vec4f;
  var dKey0x7: vec4f; var dKey1x7: vec4f;
  var dValue0x0: vec4f; var dValue1x0: vec4f;
  var dValue0x1: vec4f; var dValue1x1: vec4f;
  var dValue0x2: vec4f; var dValue1x2: vec4f;
  var dValue0x3: vec4f; var dValue1x3: vec4f;
  var dValue0x4: vec4f; var dValue1x4: vec4f;
  var dValue0x5: vec4f; var dValue1x5: vec4f;
  var dValue0x6: vec4f; var dValue1x6: vec4f;
  var dValue0x7: vec4f; var dValue1x7: vec4f;
  let last = max(max(max(max(max(max(max(end0, end1), end2), end3), end4), end5), end6), end7);
  // Columns of a tile: tokens times `together` heads of the group.
  let together = min(u.groupSize, 1u);
  let tokens = 1u / together;
  let column = lane * 1u;
  let columnToken = column / together;
  for (var firstHead = 0u; firstHead < u.groupSize; firstHead += together) {
    let columnHead = firstHead + column % together;
    let counts = (columnToken < XU(tokens)) & (columnHead < XU(u.groupSize));
    let heads = kvHead * u.groupSize + min(columnHead, XU(u.groupSize - 1u));
    var token = 0u;
    loop {
      token = min(min(min(min(min(min(min(firstFrom(start0, end0, token), firstFrom(start1, end1, token)), firstFrom(start2, end2, token)), firstFrom(start3, end3, token)), firstFrom(start4, end4, token)), firstFrom(start5, end5, token)), firstFrom(start6, end6, token)), firstFrom(start7, end7, token));
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
      {
        let t0 = fusedFour(queries0, 0u);
        let b0 = X(t0.x); let b1 = X(t0.y); let b2 = X(t0.z); let b3 = X(t0.w);
        { let a = keyAtRow0x0; s0 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s0)))); }
        { let a = keyAtRow0x1; s1 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s1)))); }
        { let a = keyAtRow0x2; s2 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s2)))); }
        { let a = keyAtRow0x3; s3 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s3)))); }
        { let a = keyAtRow0x4; s4 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s4)))); }
        { let a = keyAtRow0x5; s5 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s5)))); }
        { let a = keyAtRow0x6; s6 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s6)))); }
        { let a = keyAtRow0x7; s7 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s7)))); }
      }
      {
        let t0 = fusedFour(queries0, 4u);
        let b0 = X(t0.x); let b1 = X(t0.y); let b2 = X(t0.z); let b3 = X(t0.w);
        { let a = keyAtRow1x0; s0 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s0)))); }
        { let a = keyAtRow1x1; s1 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s1)))); }
        { let a = keyAtRow1x2; s2 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s2)))); }
        { let a = keyAtRow1x3; s3 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s3)))); }
        { let a = keyAtRow1x4; s4 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s4)))); }
        { let a = keyAtRow1x5; s5 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s5)))); }
        { let a = keyAtRow1x6; s6 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s6)))); }
        { let a = keyAtRow1x7; s7 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s7)))); }
      }
      let p0: X = select(X(), exp(s0 * SCALE - normalizer), counts & (columns >= XU(start0)) & (columns < XU(end0)));
      let p1: X = select(X(), exp(s1 * SCALE - normalizer), counts & (columns >= XU(start1)) & (columns < XU(end1)));
      let p2: X = select(X(), exp(s2 * SCALE - normalizer), counts & (columns >= XU(start2)) & (columns < XU(end2)));
      let p3: X = select(X(), exp(s3 * SCALE - normalizer), counts & (columns >= XU(start3)) & (columns < XU(end3)));
      let p4: X = select(X(), exp(s4 * SCALE - normalizer), counts & (columns >= XU(start4)) & (columns < XU(end4)));
      let p5: X = select(X(), exp(s5 * SCALE - normalizer), counts & (columns >= XU(start5)) & (columns < XU(end5)));
      let p6: X = select(X(), exp(s6 * SCALE - normalizer), counts & (columns >= XU(start6)) & (columns < XU(end6)));
      let p7: X = select(X(), exp(s7 * SCALE - normalizer), counts & (columns >= XU(start7)) & (columns < XU(end7)));
      var along0 = X();
      var along1 = X();
      var along2 = X();
      var along3 = X();
      var along4 = X();
      var along5 = X();
      var along6 = X();
      var along7 = X();
      {
        let t0 = dOutFour(gradients0, 0u);
        let b0 = X(t0.x); let b1 = X(t0.y); let b2 = X(t0.z); let b3 = X(t0.w);
        { let a = valueAtRow0x0; along0 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along0)))); }
        { let a = valueAtRow0x1; along1 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along1)))); }
        { let a = valueAtRow0x2; along2 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along2)))); }
        { let a = valueAtRow0x3; along3 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along3)))); }
        { let a = valueAtRow0x4; along4 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along4)))); }
        { let a = valueAtRow0x5; along5 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along5)))); }
        { let a = valueAtRow0x6; along6 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along6)))); }
        { let a = valueAtRow0x7; along7 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along7)))); }
      }
      {
        let t0 = dOutFour(gradients0, 4u);
        let b0 = X(t0.x); let b1 = X(t0.y); let b2 = X(t0.z); let b3 = X(t0.w);
        { let a = valueAtRow1x0; along0 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along0)))); }
        { let a = valueAtRow1x1; along1 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along1)))); }
        { let a = valueAtRow1x2; along2 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along2)))); }
        { let a = valueAtRow1x3; along3 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along3)))); }
        { let a = valueAtRow1x4; along4 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along4)))); }
        { let a = valueAtRow1x5; along5 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along5)))); }
        { let a = valueAtRow1x6; along6 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along6)))); }
        { let a = valueAtRow1x7; along7 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along7)))); }
      }
      let dScore0: X = p0 * (along0 - rowDelta) * SCALE;
      let dScore1: X = p1 * (along1 - rowDelta) * SCALE;
      let dScore2: X = p2 * (along2 - rowDelta) * SCALE;
      let dScore3: X = p3 * (along3 - rowDelta) * SCALE;
      let dScore4: X = p4 * (along4 - rowDelta) * SCALE;
      let dScore5: X = p5 * (along5 - rowDelta) * SCALE;
      let dScore6: X = p6 * (along6 - rowDelta) * SCALE;
      let dScore7: X = p7 * (along7 - rowDelta) * SCALE;
      {
        let start0 = gradients0;
        let a0 = p0; let a1 = p1; let a2 = p2; let a3 = p3; let a4 = p4; let a5 = p5; let a6 = p6; let a7 = p7;
        {
          let b0 = dOutFour(start0, 0u);
          dValue0x0 = fma(vec4f(a0), b0, dValue0x0);
          dValue0x1 = fma(vec4f(a1), b0, dValue0x1);
          dValue0x2 = fma(vec4f(a2), b0, dValue0x2);
          dValue0x3 = fma(vec4f(a3), b0, dValue0x3);
          dValue0x4 = fma(vec4f(a4), b0, dValue0x4);
          dValue0x5 = fma(vec4f(a5), b0, dValue0x5);
          dValue0x6 = fma(vec4f(a6), b0, dValue0x6);
          dValue0x7 = fma(vec4f(a7), b0, dValue0x7);
        }
        {
          let b0 = dOutFour(start0, 4u);
          dValue1x0 = fma(vec4f(a0), b0, dValue1x0);
          dValue1x1 = fma(vec4f(a1), b0, dValue1x1);
          dValue1x2 = fma(vec4f(a2), b0, dValue1x2);
          dValue1x3 = fma(vec4f(a3), b0, dValue1x3);
          dValue1x4 = fma(vec4f(a4), b0, dValue1x4);
          dValue1x5 = fma(vec4f(a5), b0, dValue1x5);
          dValue1x6 = fma(vec4f(a6), b0, dValue1x6);
          dValue1x7 = fma(vec4f(a7), b0, dValue1x7);
        }
      }
      {
        let start0 = queries0;
        let a0 = dScore0; let a1 = dScore1; let a2 = dScore2; let a3 = dScore3; let a4 = dScore4; let a5 = dScore5; let a6 = dScore6; let a7 = dScore7;
        {
          let b0 = fusedFour(start0, 0u);
          dKey0x0 = fma(vec4f(a0), b0, dKey0x0);
          dKey0x1 = fma(vec4f(a1), b0, dKey0x1);
          dKey0x2 = fma(vec4f(a2), b0, dKey0x2);
          dKey0x3 = fma(vec4f(a3), b0, dKey0x3);
          dKey0x4 = fma(vec4f(a4), b0, dKey0x4);
          dKey0x5 = fma(vec4f(a5), b0, dKey0x5);
          dKey0x6 = fma(vec4f(a6), b0, dKey0x6);
          dKey0x7 = fma(vec4f(a7), b0, dKey0x7);
        }
        {
          let b0 = fusedFour(start0, 4u);
          dKey1x0 = fma(vec4f(a0), b0, dKey1x0);
          dKey1x1 = fma(vec4f(a1), b0, dKey1x1);
          dKey1x2 = fma(vec4f(a2), b0, dKey1x2);
          dKey1x3 = fma(vec4f(a3), b0, dKey1x3);
          dKey1x4 = fma(vec4f(a4), b0, dKey1x4);
          dKey1x5 = fma(vec4f(a5), b0, dKey1x5);
          dKey1x6 = fma(vec4f(a6), b0, dKey1x6);
          dKey1x7 = fma(vec4f(a7), b0, dKey1x7);
        }
      }
      token += tokens;
    }
  }
  {
    let channel = 0u + lane * 4u;
    var values = array<vec4f, 8>(dKey0x0, dKey0x1, dKey0x2, dKey0x3, dKey0x4, dKey0x5, dKey0x6, dKey0x7);
    var places = array<u32, 8>(keyAt0, keyAt1, keyAt2, keyAt3, keyAt4, keyAt5, keyAt6, keyAt7);
    for (var r = 0u; r < (8u + (u.H >> 31u)); r++) {
      if (lane < 1u && channel < 8u) { store(places[r], channel, values[r]); }
    }
  }
  {
    let channel = 4u + lane * 4u;
    var values = array<vec4f, 8>(dKey1x0, dKey1x1, dKey1x2, dKey1x3, dKey1x4, dKey1x5, dKey1x6, dKey1x7);
    var places = array<u32, 8>(keyAt0, keyAt1, keyAt2, keyAt3, keyAt4, keyAt5, keyAt6, keyAt7);
    for (var r = 0u; r < (8u + (u.H >> 31u)); r++) {
      if (lane < 1u && channel < 8u) { store(places[r], channel, values[r]); }
    }
  }
  {
    let channel = 0u + lane * 4u;
    var values = array<vec4f, 8>(dValue0x0, dValue0x1, dValue0x2, dValue0x3, dValue0x4, dValue0x5, dValue0x6, dValue0x7);
    var places = array<u32, 8>(valueAt0, valueAt1, valueAt2, valueAt3, valueAt4, valueAt5, valueAt6, valueAt7);
    for (var r = 0u; r < (8u + (u.H >> 31u)); r++) {
      if (lane < 1u && channel < 8u) { store(places[r], channel, values[r]); }
    }
  }
  {
    let channel = 4u + lane * 4u;
    var values = array<vec4f, 8>(dValue1x0, dValue1x1, dValue1x2, dValue1x3, dValue1x4, dValue1x5, dValue1x6, dValue1x7);
    var places = array<u32, 8>(valueAt0, valueAt1, valueAt2, valueAt3, valueAt4, valueAt5, valueAt6, valueAt7);
    for (var r = 0u; r < (8u + (u.H >> 31u)); r++) {
      if (lane < 1u && channel < 8u) { store(places[r], channel, values[r]); }
    }
  }
}

fn linearGroup(id: vec3u) -> u32 { return id.x + id.y * 32768u; }

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = linearGroup(placeInGrid(group)) * 64u + lane;
  if (i < ((u.T + 7u) / 8u) * (u.H / u.groupSize)) { element(i % (u.H / u.groupSize), i / (u.H / u.groupSize), 0u); }
}
