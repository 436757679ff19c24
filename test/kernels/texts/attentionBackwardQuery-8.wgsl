// attentionBackwardQuery: head size 8, a lane alone, software adapter, many rows.

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
const HEAD: u32 = 2u;
const SCALE: f32 = 0.35355339059327373;
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

fn keyAt(key: u32, kvHead: u32, end: u32) -> u32 { return (min(key, end - 1u) * u.width + u.kFrom) / UNIT + kvHead * HEAD; }
fn valueAt(key: u32, kvHead: u32, end: u32) -> u32 { return (min(key, end - 1u) * u.width + u.vFrom) / UNIT + kvHead * HEAD; }

fn element(kvHead: u32, tile: u32, lane: u32) {
  var queryHeld: array<u32, 8>;
  var gradientHeld: array<u32, 8>;
  var resultHeld: array<u32, 8>;
  var normalizerHeld: array<f32, 8>;
  var startHeld: array<u32, 8>;
  var endHeld: array<u32, 8>;
  var rowDeltaHeld: array<f32, 8>;
  var queryRow: array<vec4f, 16>;
  var gradientRow: array<vec4f, 16>;
  for (var i = 0u; i < (8u + (u.H >> 31u)); i++) {
    let own = min(tile * 8u + i, u.T * u.groupSize - 1u);
    let token = own / u.groupSize;
    let head = kvHead * u.groupSize + own % u.groupSize;
    let result = token * u.H + head;
    let query = (token * u.width + u.qFrom) / UNIT + head * HEAD;
    let gradient = result * HEAD;
    let normalizer = logSumExp[result];
    let start = ranges[token].z;
    let end = ranges[token].w;
    var rowDelta = 0.0;
    for (var d = 0u; d < (8u + (u.H >> 31u)); d += 4u) { rowDelta += dot(dOutFour(gradient, d), outFour(gradient, d)); }
    queryHeld[i] = query;
    gradientHeld[i] = gradient;
    resultHeld[i] = result;
    normalizerHeld[i] = normalizer;
    startHeld[i] = start;
    endHeld[i] = end;
    rowDeltaHeld[i] = rowDelta;
    for (var chunk = 0u; chunk < (2u + (u.H >> 31u)); chunk++) {
      queryRow[i * 2u + chunk] = fusedFour(query, 4u * chunk);
      gradientRow[i * 2u + chunk] = dOutFour(gradient, 4u * chunk);
    }
  }
  let query0: u32 = queryHeld[0]; let gradient0: u32 = gradientHeld[0]; let result0: u32 = resultHeld[0]; let normalizer0: f32 = normalizerHeld[0]; let start0: u32 = startHeld[0]; let end0: u32 = endHeld[0]; let rowDelta0: f32 = rowDeltaHeld[0];
  let query1: u32 = queryHeld[1]; let gradient1: u32 = gradientHeld[1]; let result1: u32 = resultHeld[1]; let normalizer1: f32 = normalizerHeld[1]; let start1: u32 = startHeld[1]; let end1: u32 = endHeld[1]; let rowDelta1: f32 = rowDeltaHeld[1];
  let query2: u32 = queryHeld[2]; let gradient2: u32 = gradientHeld[2]; let result2: u32 = resultHeld[2]; let normalizer2: f32 = normalizerHeld[2]; let start2: u32 = startHeld[2]; let end2: u32 = endHeld[2]; let rowDelta2: f32 = rowDeltaHeld[2];
  let query3: u32 = queryHeld[3]; let gradient3: u32 = gradientHeld[3]; let result3: u32 = resultHeld[3]; let normalizer3: f32 = normalizerHeld[3]; let start3: u32 = startHeld[3]; let end3: u32 = endHeld[3]; let rowDelta3: f32 = rowDeltaHeld[3];
  let query4: u32 = queryHeld[4]; let gradient4: u32 = gradientHeld[4]; let result4: u32 = resultHeld[4]; let normalizer4: f32 = normalizerHeld[4]; let start4: u32 = startHeld[4]; let end4: u32 = endHeld[4]; let rowDelta4: f32 = rowDeltaHeld[4];
  let query5: u32 = queryHeld[5]; let gradient5: u32 = gradientHeld[5]; let result5: u32 = resultHeld[5]; let normalizer5: f32 = normalizerHeld[5]; let start5: u32 = startHeld[5]; let end5: u32 = endHeld[5]; let rowDelta5: f32 = rowDeltaHeld[5];
  let query6: u32 = queryHeld[6]; let gradient6: u32 = gradientHeld[6]; let result6: u32 = resultHeld[6]; let normalizer6: f32 = normalizerHeld[6]; let start6: u32 = startHeld[6]; let end6: u32 = endHeld[6]; let rowDelta6: f32 = rowDeltaHeld[6];
  let query7: u32 = queryHeld[7]; let gradient7: u32 = gradientHeld[7]; let result7: u32 = resultHeld[7]; let normalizer7: f32 = normalizerHeld[7]; let start7: u32 = startHeld[7]; let end7: u32 = endHeld[7]; let rowDelta7: f32 = rowDeltaHeld[7];
  let queryRow0x0 = queryRow[0]; let queryRow1x0 = queryRow[1];
  let queryRow0x1 = queryRow[2]; let queryRow1x1 = queryRow[3];
  let queryRow0x2 = queryRow[4]; let queryRow1x2 = queryRow[5];
  let queryRow0x3 = queryRow[6]; let queryRow1x3 = queryRow[7];
  let queryRow0x4 = queryRow[8]; let queryRow1x4 = queryRow[9];
  let queryRow0x5 = queryRow[10]; let queryRow1x5 = queryRow[11];
  let queryRow0x6 = queryRow[12]; let queryRow1x6 = queryRow[13];
  let queryRow0x7 = queryRow[14]; let queryRow1x7 = queryRow[15];
  let gradientRow0x0 = gradientRow[0]; let gradientRow1x0 = gradientRow[1];
  let gradientRow0x1 = gradientRow[2]; let gradientRow1x1 = gradientRow[3];
  let gradientRow0x2 = gradientRow[4]; let gradientRow1x2 = gradientRow[5];
  let gradientRow0x3 = gradientRow[6]; let gradientRow1x3 = gradientRow[7];
  let gradientRow0x4 = gradientRow[8]; let gradientRow1x4 = gradientRow[9];
  let gradientRow0x5 = gradientRow[10]; let gradientRow1x5 = gradientRow[11];
  let gradientRow0x6 = gradientRow[12]; let gradientRow1x6 = gradientRow[13];
  let gradientRow0x7 = gradientRow[14]; let gradientRow1x7 = gradientRow[15];
  var sum0x0: vec4f; var sum1x0: vec4f;
  var sum0x1: vec4f; var sum1x1: vec4f;
  var sum0x2: vec4f; var sum1x2: vec4f;
  var sum0x3: vec4f; var sum1x3: vec4f;
  var sum0x4: vec4f; var sum1x4: vec4f;
  var sum0x5: vec4f; var sum1x5: vec4f;
  var sum0x6: vec4f; var sum1x6: vec4f;
  var sum0x7: vec4f; var sum1x7: vec4f;
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
      let t0 = fusedFour(keys0, 0u);
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
      let t0 = fusedFour(keys0, 4u);
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
    let p0: X = select(X(), exp(s0 * SCALE - normalizer0), (columns >= XU(start0)) & (columns < XU(end0)));
    let p1: X = select(X(), exp(s1 * SCALE - normalizer1), (columns >= XU(start1)) & (columns < XU(end1)));
    let p2: X = select(X(), exp(s2 * SCALE - normalizer2), (columns >= XU(start2)) & (columns < XU(end2)));
    let p3: X = select(X(), exp(s3 * SCALE - normalizer3), (columns >= XU(start3)) & (columns < XU(end3)));
    let p4: X = select(X(), exp(s4 * SCALE - normalizer4), (columns >= XU(start4)) & (columns < XU(end4)));
    let p5: X = select(X(), exp(s5 * SCALE - normalizer5), (columns >= XU(start5)) & (columns < XU(end5)));
    let p6: X = select(X(), exp(s6 * SCALE - normalizer6), (columns >= XU(start6)) & (columns < XU(end6)));
    let p7: X = select(X(), exp(s7 * SCALE - normalizer7), (columns >= XU(start7)) & (columns < XU(end7)));
    var along0 = X();
    var along1 = X();
    var along2 = X();
    var along3 = X();
    var along4 = X();
    var along5 = X();
    var along6 = X();
    var along7 = X();
    {
      let t0 = fusedFour(values0, 0u);
      let b0 = X(t0.x); let b1 = X(t0.y); let b2 = X(t0.z); let b3 = X(t0.w);
      { let a = gradientRow0x0; along0 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along0)))); }
      { let a = gradientRow0x1; along1 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along1)))); }
      { let a = gradientRow0x2; along2 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along2)))); }
      { let a = gradientRow0x3; along3 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along3)))); }
      { let a = gradientRow0x4; along4 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along4)))); }
      { let a = gradientRow0x5; along5 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along5)))); }
      { let a = gradientRow0x6; along6 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along6)))); }
      { let a = gradientRow0x7; along7 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along7)))); }
    }
    {
      let t0 = fusedFour(values0, 4u);
      let b0 = X(t0.x); let b1 = X(t0.y); let b2 = X(t0.z); let b3 = X(t0.w);
      { let a = gradientRow1x0; along0 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along0)))); }
      { let a = gradientRow1x1; along1 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along1)))); }
      { let a = gradientRow1x2; along2 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along2)))); }
      { let a = gradientRow1x3; along3 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along3)))); }
      { let a = gradientRow1x4; along4 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along4)))); }
      { let a = gradientRow1x5; along5 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along5)))); }
      { let a = gradientRow1x6; along6 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along6)))); }
      { let a = gradientRow1x7; along7 = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, along7)))); }
    }
    let dScore0: X = p0 * (along0 - rowDelta0) * SCALE;
    let dScore1: X = p1 * (along1 - rowDelta1) * SCALE;
    let dScore2: X = p2 * (along2 - rowDelta2) * SCALE;
    let dScore3: X = p3 * (along3 - rowDelta3) * SCALE;
    let dScore4: X = p4 * (along4 - rowDelta4) * SCALE;
    let dScore5: X = p5 * (along5 - rowDelta5) * SCALE;
    let dScore6: X = p6 * (along6 - rowDelta6) * SCALE;
    let dScore7: X = p7 * (along7 - rowDelta7) * SCALE;
    {
      let start0 = keys0;
      let a0 = dScore0; let a1 = dScore1; let a2 = dScore2; let a3 = dScore3; let a4 = dScore4; let a5 = dScore5; let a6 = dScore6; let a7 = dScore7;
      {
        let b0 = fusedFour(start0, 0u);
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
        let b0 = fusedFour(start0, 4u);
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
  {
    let channel = 0u + lane * 4u;
    var values = array<vec4f, 8>(sum0x0, sum0x1, sum0x2, sum0x3, sum0x4, sum0x5, sum0x6, sum0x7);
    var places = array<u32, 8>(query0, query1, query2, query3, query4, query5, query6, query7);
    for (var r = 0u; r < (8u + (u.H >> 31u)); r++) {
      if (lane < 1u && channel < 8u) { store(places[r], channel, values[r]); }
    }
  }
  {
    let channel = 4u + lane * 4u;
    var values = array<vec4f, 8>(sum1x0, sum1x1, sum1x2, sum1x3, sum1x4, sum1x5, sum1x6, sum1x7);
    var places = array<u32, 8>(query0, query1, query2, query3, query4, query5, query6, query7);
    for (var r = 0u; r < (8u + (u.H >> 31u)); r++) {
      if (lane < 1u && channel < 8u) { store(places[r], channel, values[r]); }
    }
  }
  {
    var values = array<f32, 8>(rowDelta0, rowDelta1, rowDelta2, rowDelta3, rowDelta4, rowDelta5, rowDelta6, rowDelta7);
    var places = array<u32, 8>(result0, result1, result2, result3, result4, result5, result6, result7);
    for (var i = 0u; i < (8u + (u.H >> 31u)); i++) {
      if (true) { delta[places[i]] = values[i]; }
    }
  }
}

fn linearGroup(id: vec3u) -> u32 { return id.x + id.y * 32768u; }

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = linearGroup(placeInGrid(group)) * 64u + lane;
  if (i < ((u.T * u.groupSize + 7u) / 8u) * (u.H / u.groupSize)) { element(i % (u.H / u.groupSize), i / (u.H / u.groupSize), 0u); }
}
