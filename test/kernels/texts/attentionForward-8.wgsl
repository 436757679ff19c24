// attentionForward: head size 8, a lane alone, software adapter, many rows.

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
const HEAD: u32 = 2u;
const SCALE: f32 = 0.35355339059327373;
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

const LOW: f32 = -2.0e38;
const MASKED: f32 = -3.0e38;

// Where a key or value row starts; past the end the last one, whose score is then masked.
fn keyAt(key: u32, kvHead: u32, end: u32) -> u32 { return (min(key, end - 1u) * u.kWidth + u.kFrom) / UNIT + kvHead * HEAD; }
fn valueAt(key: u32, kvHead: u32, end: u32) -> u32 { return (min(key, end - 1u) * u.vWidth + u.vFrom) / UNIT + kvHead * HEAD; }

fn element(kvHead: u32, tile: u32, lane: u32) {
  var queryHeld: array<u32, 8>;
  var resultHeld: array<u32, 8>;
  var outAtHeld: array<u32, 8>;
  var seenHeld: array<vec4u, 8>;
  var queryRow: array<vec4f, 16>;
  for (var i = 0u; i < (8u + (u.H >> 31u)); i++) {
    let own = min(tile * 8u + i, u.T * u.groupSize - 1u);
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
    for (var chunk = 0u; chunk < (2u + (u.H >> 31u)); chunk++) {
      queryRow[i * 2u + chunk] = qFour(query, 4u * chunk);
    }
  }
  let query0: u32 = queryHeld[0]; let result0: u32 = resultHeld[0]; let outAt0: u32 = outAtHeld[0]; let seen0: vec4u = seenHeld[0];
  let query1: u32 = queryHeld[1]; let result1: u32 = resultHeld[1]; let outAt1: u32 = outAtHeld[1]; let seen1: vec4u = seenHeld[1];
  let query2: u32 = queryHeld[2]; let result2: u32 = resultHeld[2]; let outAt2: u32 = outAtHeld[2]; let seen2: vec4u = seenHeld[2];
  let query3: u32 = queryHeld[3]; let result3: u32 = resultHeld[3]; let outAt3: u32 = outAtHeld[3]; let seen3: vec4u = seenHeld[3];
  let query4: u32 = queryHeld[4]; let result4: u32 = resultHeld[4]; let outAt4: u32 = outAtHeld[4]; let seen4: vec4u = seenHeld[4];
  let query5: u32 = queryHeld[5]; let result5: u32 = resultHeld[5]; let outAt5: u32 = outAtHeld[5]; let seen5: vec4u = seenHeld[5];
  let query6: u32 = queryHeld[6]; let result6: u32 = resultHeld[6]; let outAt6: u32 = outAtHeld[6]; let seen6: vec4u = seenHeld[6];
  let query7: u32 = queryHeld[7]; let result7: u32 = resultHeld[7]; let outAt7: u32 = outAtHeld[7]; let seen7: vec4u = seenHeld[7];
  let queryRow0x0 = queryRow[0]; let queryRow1x0 = queryRow[1];
  let queryRow0x1 = queryRow[2]; let queryRow1x1 = queryRow[3];
  let queryRow0x2 = queryRow[4]; let queryRow1x2 = queryRow[5];
  let queryRow0x3 = queryRow[6]; let queryRow1x3 = queryRow[7];
  let queryRow0x4 = queryRow[8]; let queryRow1x4 = queryRow[9];
  let queryRow0x5 = queryRow[10]; let queryRow1x5 = queryRow[11];
  let queryRow0x6 = queryRow[12]; let queryRow1x6 = queryRow[13];
  let queryRow0x7 = queryRow[14]; let queryRow1x7 = queryRow[15];
  var sum0x0: vec4f; var sum1x0: vec4f;
  var sum0x1: vec4f; var sum1x1: vec4f;
  var sum0x2: vec4f; var sum1x2: vec4f;
  var sum0x3: vec4f; var sum1x3: vec4f;
  var sum0x4: vec4f; var sum1x4: vec4f;
  var sum0x5: vec4f; var sum1x5: vec4f;
  var sum0x6: vec4f; var sum1x6: vec4f;
  var sum0x7: vec4f; var sum1x7: vec4f;
  var highest0 = LOW; var weight0 = 0.0;
  var highest1 = LOW; var weight1 = 0.0;
  var highest2 = LOW; var weight2 = 0.0;
  var highest3 = LOW; var weight3 = 0.0;
  var highest4 = LOW; var weight4 = 0.0;
  var highest5 = LOW; var weight5 = 0.0;
  var highest6 = LOW; var weight6 = 0.0;
  var highest7 = LOW; var weight7 = 0.0;
  for (var part = 0u; part < 2u; part++) {
    let start0: u32 = select(seen0.x, seen0.z, part == 1u); let end0: u32 = select(seen0.y, seen0.w, part == 1u);
    let start1: u32 = select(seen1.x, seen1.z, part == 1u); let end1: u32 = select(seen1.y, seen1.w, part == 1u);
    let start2: u32 = select(seen2.x, seen2.z, part == 1u); let end2: u32 = select(seen2.y, seen2.w, part == 1u);
    let start3: u32 = select(seen3.x, seen3.z, part == 1u); let end3: u32 = select(seen3.y, seen3.w, part == 1u);
    let start4: u32 = select(seen4.x, seen4.z, part == 1u); let end4: u32 = select(seen4.y, seen4.w, part == 1u);
    let start5: u32 = select(seen5.x, seen5.z, part == 1u); let end5: u32 = select(seen5.y, seen5.w, part == 1u);
    let start6: u32 = select(seen6.x, seen6.z, part == 1u); let end6: u32 = select(seen6.y, seen6.w, part == 1u);
    let start7: u32 = select(seen7.x, seen7.z, part == 1u); let end7: u32 = select(seen7.y, seen7.w, part == 1u);
    let last = max(max(max(max(max(max(max(end0, end1), end2), end3), end4), end5), end6), end7);
    var key = 0u;
    loop {
      key = min(min(min(min(min(min(min(firstFrom(start0, end0, key), firstFrom(start1, end1, key)), firstFrom(start2, end2, key)), firstFrom(start3, end3, key)), firstFrom(start4, end4, key)), firstFrom(start5, end5, key)), firstFrom(start6, end6, key)), firstFrom(start7, end7, key));
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
      {
        let t0 = kFour(keys0, 0u);
        let b0 = X(t0.x); let b1 = X(t0.y); let b2 = X(t0.z); let b3 = X(t0.w);
        { let a = queryRow0x0; s0 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s0)))); }
        { let a = queryRow0x1; s1 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s1)))); }
        { let a = queryRow0x2; s2 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s2)))); }
        { let a = queryRow0x3; s3 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s3)))); }
        { let a = queryRow0x4; s4 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s4)))); }
        { let a = queryRow0x5; s5 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s5)))); }
        { let a = queryRow0x6; s6 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s6)))); }
        { let a = queryRow0x7; s7 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s7)))); }
      }
      {
        let t0 = kFour(keys0, 4u);
        let b0 = X(t0.x); let b1 = X(t0.y); let b2 = X(t0.z); let b3 = X(t0.w);
        { let a = queryRow1x0; s0 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s0)))); }
        { let a = queryRow1x1; s1 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s1)))); }
        { let a = queryRow1x2; s2 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s2)))); }
        { let a = queryRow1x3; s3 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s3)))); }
        { let a = queryRow1x4; s4 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s4)))); }
        { let a = queryRow1x5; s5 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s5)))); }
        { let a = queryRow1x6; s6 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s6)))); }
        { let a = queryRow1x7; s7 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, s7)))); }
      }
      let score0 = select(X(MASKED), s0 * SCALE, (columns >= XU(start0)) & (columns < XU(end0)));
      let score1 = select(X(MASKED), s1 * SCALE, (columns >= XU(start1)) & (columns < XU(end1)));
      let score2 = select(X(MASKED), s2 * SCALE, (columns >= XU(start2)) & (columns < XU(end2)));
      let score3 = select(X(MASKED), s3 * SCALE, (columns >= XU(start3)) & (columns < XU(end3)));
      let score4 = select(X(MASKED), s4 * SCALE, (columns >= XU(start4)) & (columns < XU(end4)));
      let score5 = select(X(MASKED), s5 * SCALE, (columns >= XU(start5)) & (columns < XU(end5)));
      let score6 = select(X(MASKED), s6 * SCALE, (columns >= XU(start6)) & (columns < XU(end6)));
      let score7 = select(X(MASKED), s7 * SCALE, (columns >= XU(start7)) & (columns < XU(end7)));
      let most0 = largest(score0);
      let most1 = largest(score1);
      let most2 = largest(score2);
      let most3 = largest(score3);
      let most4 = largest(score4);
      let most5 = largest(score5);
      let most6 = largest(score6);
      let most7 = largest(score7);
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
      {
        let start0 = values0;
        let a0 = p0; let a1 = p1; let a2 = p2; let a3 = p3; let a4 = p4; let a5 = p5; let a6 = p6; let a7 = p7;
        {
          let b0 = vFour(start0, 0u);
          sum0x0 = fma(vec4f(a0), b0, sum0x0);
          sum0x1 = fma(vec4f(a1), b0, sum0x1);
          sum0x2 = fma(vec4f(a2), b0, sum0x2);
          sum0x3 = fma(vec4f(a3), b0, sum0x3);
          sum0x4 = fma(vec4f(a4), b0, sum0x4);
          sum0x5 = fma(vec4f(a5), b0, sum0x5);
          sum0x6 = fma(vec4f(a6), b0, sum0x6);
          sum0x7 = fma(vec4f(a7), b0, sum0x7);
        }
        {
          let b0 = vFour(start0, 4u);
          sum1x0 = fma(vec4f(a0), b0, sum1x0);
          sum1x1 = fma(vec4f(a1), b0, sum1x1);
          sum1x2 = fma(vec4f(a2), b0, sum1x2);
          sum1x3 = fma(vec4f(a3), b0, sum1x3);
          sum1x4 = fma(vec4f(a4), b0, sum1x4);
          sum1x5 = fma(vec4f(a5), b0, sum1x5);
          sum1x6 = fma(vec4f(a6), b0, sum1x6);
          sum1x7 = fma(vec4f(a7), b0, sum1x7);
        }
      }
      key += 1u;
    }
  }
  let whole0 = weight0;
  let whole1 = weight1;
  let whole2 = weight2;
  let whole3 = weight3;
  let whole4 = weight4;
  let whole5 = weight5;
  let whole6 = weight6;
  let whole7 = weight7;
  let inverse0 = select(0.0, 1.0 / whole0, whole0 > 0.0);
  let inverse1 = select(0.0, 1.0 / whole1, whole1 > 0.0);
  let inverse2 = select(0.0, 1.0 / whole2, whole2 > 0.0);
  let inverse3 = select(0.0, 1.0 / whole3, whole3 > 0.0);
  let inverse4 = select(0.0, 1.0 / whole4, whole4 > 0.0);
  let inverse5 = select(0.0, 1.0 / whole5, whole5 > 0.0);
  let inverse6 = select(0.0, 1.0 / whole6, whole6 > 0.0);
  let inverse7 = select(0.0, 1.0 / whole7, whole7 > 0.0);
  {
    let channel = 0u + lane * 4u;
    var values = array<vec4f, 8>(sum0x0 * inverse0, sum0x1 * inverse1, sum0x2 * inverse2, sum0x3 * inverse3, sum0x4 * inverse4, sum0x5 * inverse5, sum0x6 * inverse6, sum0x7 * inverse7);
    var places = array<u32, 8>(outAt0, outAt1, outAt2, outAt3, outAt4, outAt5, outAt6, outAt7);
    for (var r = 0u; r < (8u + (u.H >> 31u)); r++) {
      if (lane < 1u && channel < 8u) { store(places[r], channel, values[r]); }
    }
  }
  {
    let channel = 4u + lane * 4u;
    var values = array<vec4f, 8>(sum1x0 * inverse0, sum1x1 * inverse1, sum1x2 * inverse2, sum1x3 * inverse3, sum1x4 * inverse4, sum1x5 * inverse5, sum1x6 * inverse6, sum1x7 * inverse7);
    var places = array<u32, 8>(outAt0, outAt1, outAt2, outAt3, outAt4, outAt5, outAt6, outAt7);
    for (var r = 0u; r < (8u + (u.H >> 31u)); r++) {
      if (lane < 1u && channel < 8u) { store(places[r], channel, values[r]); }
    }
  }
  let normalizer0 = highest0 + log(max(whole0, 1e-37));
  let normalizer1 = highest1 + log(max(whole1, 1e-37));
  let normalizer2 = highest2 + log(max(whole2, 1e-37));
  let normalizer3 = highest3 + log(max(whole3, 1e-37));
  let normalizer4 = highest4 + log(max(whole4, 1e-37));
  let normalizer5 = highest5 + log(max(whole5, 1e-37));
  let normalizer6 = highest6 + log(max(whole6, 1e-37));
  let normalizer7 = highest7 + log(max(whole7, 1e-37));
  {
    var values = array<f32, 8>(normalizer0, normalizer1, normalizer2, normalizer3, normalizer4, normalizer5, normalizer6, normalizer7);
    var places = array<u32, 8>(result0, result1, result2, result3, result4, result5, result6, result7);
    for (var i = 0u; i < (8u + (u.H >> 31u)); i++) {
      if (true) { logSumExp[places[i]] = values[i]; }
    }
  }
}

fn linearGroup(id: vec3u) -> u32 { return id.x + id.y * 32768u; }

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = linearGroup(placeInGrid(group)) * 64u + lane;
  if (i < ((u.T * u.groupSize + 7u) / 8u) * (u.H / u.groupSize)) { element(i % (u.H / u.groupSize), i / (u.H / u.groupSize), 0u); }
}
