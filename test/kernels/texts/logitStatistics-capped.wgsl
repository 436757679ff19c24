// logitStatistics: 64 x 64 x 64 in f32, subgroups of 8 on a software adapter, soft cap 50, tile subgroup32.

enable subgroups;
struct Uniforms { M: u32, N: u32, K: u32, aWidth: u32, aFrom: u32, splits: u32, firstSplit: u32, splitColumns: u32, firstGroupX: u32, firstGroupY: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> a: array<vec4f>;
@group(0) @binding(2) var<storage, read> b: array<vec4f>;
@group(0) @binding(3) var<storage, read> logSumExp: array<f32>;
@group(0) @binding(4) var<storage, read_write> partials: array<f32>;
fn placeInGrid(group: vec3u) -> vec3u { return group + vec3u(u.firstGroupX, u.firstGroupY, 0u); }

struct Kept { entropy: f32, logits: f32 }
const NOTHING = Kept(0.0, 0.0);

const CAP: f32 = 50;
fn softCapped(x: vec4f) -> vec4f { return CAP * tanh(clamp(x / CAP, vec4f(-9.01), vec4f(9.01))); }
fn softCapSlope(y: vec4f) -> vec4f { return 1.0 - (y / CAP) * (y / CAP); }

/// `total` is the row's log-sum-exp.
fn take(kept: Kept, product: vec4f, column: u32, end: u32, total: f32) -> Kept {
  let logits = softCapped(product);
  let inside = vec4u(column, column + 1u, column + 2u, column + 3u) < vec4u(end);
  let surprise = select(vec4f(), total - logits, inside); // -log p, in nats
  return Kept(
    kept.entropy + dot(exp(-surprise), surprise),
    kept.logits + dot(select(vec4f(), logits, inside), vec4f(1.0)),
  );
}

fn readA(line: u32, at: u32) -> vec4f {
  let four = (min(line, u.M - 1u) * u.aWidth + u.aFrom + min(at, u.K - 4u)) / 4u;
  return a[four];
}

fn readB(line: u32, at: u32) -> vec4f {
  let four = (min(line, u.N - 1u) * u.K + min(at, u.K - 4u)) / 4u;
  return b[four];
}

fn columnsMax(value: f32, lane: u32) -> f32 { return subgroupMax(value); }
fn columnsSum(value: f32, lane: u32) -> f32 { return subgroupAdd(value); }

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  // Rows first, so that a split's part of the table is read once into the caches.
  let place = placeInGrid(group);
  let firstRow = place.x * 32u;
  let start = place.y * u.splitColumns;
  let end = min(start + u.splitColumns, u.N);
  let ownFirst = firstRow;
  let loadRow = firstRow + lane % 8u;
  var allGiven: array<f32, 32>;
  for (var r = 0u; r < (32u + (u.M >> 31u)); r++) {
    let row = min(ownFirst + r, u.M - 1u);
    allGiven[r] = logSumExp[row];
  }
  var kept0 = NOTHING; let given0 = allGiven[0];
  var kept1 = NOTHING; let given1 = allGiven[1];
  var kept2 = NOTHING; let given2 = allGiven[2];
  var kept3 = NOTHING; let given3 = allGiven[3];
  var kept4 = NOTHING; let given4 = allGiven[4];
  var kept5 = NOTHING; let given5 = allGiven[5];
  var kept6 = NOTHING; let given6 = allGiven[6];
  var kept7 = NOTHING; let given7 = allGiven[7];
  var kept8 = NOTHING; let given8 = allGiven[8];
  var kept9 = NOTHING; let given9 = allGiven[9];
  var kept10 = NOTHING; let given10 = allGiven[10];
  var kept11 = NOTHING; let given11 = allGiven[11];
  var kept12 = NOTHING; let given12 = allGiven[12];
  var kept13 = NOTHING; let given13 = allGiven[13];
  var kept14 = NOTHING; let given14 = allGiven[14];
  var kept15 = NOTHING; let given15 = allGiven[15];
  var kept16 = NOTHING; let given16 = allGiven[16];
  var kept17 = NOTHING; let given17 = allGiven[17];
  var kept18 = NOTHING; let given18 = allGiven[18];
  var kept19 = NOTHING; let given19 = allGiven[19];
  var kept20 = NOTHING; let given20 = allGiven[20];
  var kept21 = NOTHING; let given21 = allGiven[21];
  var kept22 = NOTHING; let given22 = allGiven[22];
  var kept23 = NOTHING; let given23 = allGiven[23];
  var kept24 = NOTHING; let given24 = allGiven[24];
  var kept25 = NOTHING; let given25 = allGiven[25];
  var kept26 = NOTHING; let given26 = allGiven[26];
  var kept27 = NOTHING; let given27 = allGiven[27];
  var kept28 = NOTHING; let given28 = allGiven[28];
  var kept29 = NOTHING; let given29 = allGiven[29];
  var kept30 = NOTHING; let given30 = allGiven[30];
  var kept31 = NOTHING; let given31 = allGiven[31];
  for (var firstColumn = start; firstColumn < end; firstColumn += 32u) {
    let column = firstColumn + lane * 4u;
    var sum0 = vec4f();
    var sum1 = vec4f();
    var sum2 = vec4f();
    var sum3 = vec4f();
    var sum4 = vec4f();
    var sum5 = vec4f();
    var sum6 = vec4f();
    var sum7 = vec4f();
    var sum8 = vec4f();
    var sum9 = vec4f();
    var sum10 = vec4f();
    var sum11 = vec4f();
    var sum12 = vec4f();
    var sum13 = vec4f();
    var sum14 = vec4f();
    var sum15 = vec4f();
    var sum16 = vec4f();
    var sum17 = vec4f();
    var sum18 = vec4f();
    var sum19 = vec4f();
    var sum20 = vec4f();
    var sum21 = vec4f();
    var sum22 = vec4f();
    var sum23 = vec4f();
    var sum24 = vec4f();
    var sum25 = vec4f();
    var sum26 = vec4f();
    var sum27 = vec4f();
    var sum28 = vec4f();
    var sum29 = vec4f();
    var sum30 = vec4f();
    var sum31 = vec4f();
    for (var k = 0u; k < u.K; k += 4u) {
      let a0: vec4f = readA(loadRow + 0u, k);
      let a1: vec4f = readA(loadRow + 8u, k);
      let a2: vec4f = readA(loadRow + 16u, k);
      let a3: vec4f = readA(loadRow + 24u, k);
      let t0 = readB(column + 0u, k);
      let t1 = readB(column + 1u, k);
      let t2 = readB(column + 2u, k);
      let t3 = readB(column + 3u, k);
      let b0 = vec4f(t0.x, t1.x, t2.x, t3.x);
      let b1 = vec4f(t0.y, t1.y, t2.y, t3.y);
      let b2 = vec4f(t0.z, t1.z, t2.z, t3.z);
      let b3 = vec4f(t0.w, t1.w, t2.w, t3.w);
      { let a = subgroupShuffle(a0, 0u); sum0 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum0)))); }
      { let a = subgroupShuffle(a0, 1u); sum1 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum1)))); }
      { let a = subgroupShuffle(a0, 2u); sum2 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum2)))); }
      { let a = subgroupShuffle(a0, 3u); sum3 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum3)))); }
      { let a = subgroupShuffle(a0, 4u); sum4 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum4)))); }
      { let a = subgroupShuffle(a0, 5u); sum5 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum5)))); }
      { let a = subgroupShuffle(a0, 6u); sum6 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum6)))); }
      { let a = subgroupShuffle(a0, 7u); sum7 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum7)))); }
      { let a = subgroupShuffle(a1, 0u); sum8 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum8)))); }
      { let a = subgroupShuffle(a1, 1u); sum9 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum9)))); }
      { let a = subgroupShuffle(a1, 2u); sum10 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum10)))); }
      { let a = subgroupShuffle(a1, 3u); sum11 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum11)))); }
      { let a = subgroupShuffle(a1, 4u); sum12 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum12)))); }
      { let a = subgroupShuffle(a1, 5u); sum13 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum13)))); }
      { let a = subgroupShuffle(a1, 6u); sum14 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum14)))); }
      { let a = subgroupShuffle(a1, 7u); sum15 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum15)))); }
      { let a = subgroupShuffle(a2, 0u); sum16 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum16)))); }
      { let a = subgroupShuffle(a2, 1u); sum17 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum17)))); }
      { let a = subgroupShuffle(a2, 2u); sum18 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum18)))); }
      { let a = subgroupShuffle(a2, 3u); sum19 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum19)))); }
      { let a = subgroupShuffle(a2, 4u); sum20 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum20)))); }
      { let a = subgroupShuffle(a2, 5u); sum21 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum21)))); }
      { let a = subgroupShuffle(a2, 6u); sum22 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum22)))); }
      { let a = subgroupShuffle(a2, 7u); sum23 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum23)))); }
      { let a = subgroupShuffle(a3, 0u); sum24 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum24)))); }
      { let a = subgroupShuffle(a3, 1u); sum25 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum25)))); }
      { let a = subgroupShuffle(a3, 2u); sum26 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum26)))); }
      { let a = subgroupShuffle(a3, 3u); sum27 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum27)))); }
      { let a = subgroupShuffle(a3, 4u); sum28 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum28)))); }
      { let a = subgroupShuffle(a3, 5u); sum29 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum29)))); }
      { let a = subgroupShuffle(a3, 6u); sum30 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum30)))); }
      { let a = subgroupShuffle(a3, 7u); sum31 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum31)))); }
    }
    kept0 = take(kept0, sum0, column, end, given0);
    kept1 = take(kept1, sum1, column, end, given1);
    kept2 = take(kept2, sum2, column, end, given2);
    kept3 = take(kept3, sum3, column, end, given3);
    kept4 = take(kept4, sum4, column, end, given4);
    kept5 = take(kept5, sum5, column, end, given5);
    kept6 = take(kept6, sum6, column, end, given6);
    kept7 = take(kept7, sum7, column, end, given7);
    kept8 = take(kept8, sum8, column, end, given8);
    kept9 = take(kept9, sum9, column, end, given9);
    kept10 = take(kept10, sum10, column, end, given10);
    kept11 = take(kept11, sum11, column, end, given11);
    kept12 = take(kept12, sum12, column, end, given12);
    kept13 = take(kept13, sum13, column, end, given13);
    kept14 = take(kept14, sum14, column, end, given14);
    kept15 = take(kept15, sum15, column, end, given15);
    kept16 = take(kept16, sum16, column, end, given16);
    kept17 = take(kept17, sum17, column, end, given17);
    kept18 = take(kept18, sum18, column, end, given18);
    kept19 = take(kept19, sum19, column, end, given19);
    kept20 = take(kept20, sum20, column, end, given20);
    kept21 = take(kept21, sum21, column, end, given21);
    kept22 = take(kept22, sum22, column, end, given22);
    kept23 = take(kept23, sum23, column, end, given23);
    kept24 = take(kept24, sum24, column, end, given24);
    kept25 = take(kept25, sum25, column, end, given25);
    kept26 = take(kept26, sum26, column, end, given26);
    kept27 = take(kept27, sum27, column, end, given27);
    kept28 = take(kept28, sum28, column, end, given28);
    kept29 = take(kept29, sum29, column, end, given29);
    kept30 = take(kept30, sum30, column, end, given30);
    kept31 = take(kept31, sum31, column, end, given31);
  }
  var allKept = array<Kept, 32>(kept0, kept1, kept2, kept3, kept4, kept5, kept6, kept7, kept8, kept9, kept10, kept11, kept12, kept13, kept14, kept15, kept16, kept17, kept18, kept19, kept20, kept21, kept22, kept23, kept24, kept25, kept26, kept27, kept28, kept29, kept30, kept31);
  for (var r = 0u; r < (32u + (u.M >> 31u)); r++) {
    let row = ownFirst + r;
    let kept = allKept[r];
    let given = allGiven[r];
    let entropy = columnsSum(kept.entropy, lane); let logits = columnsSum(kept.logits, lane);
    if (lane == 0u && row < u.M) {
      let at = (u.firstSplit + place.y) * u.M + row;
      partials[2u * at] = entropy; partials[2u * at + 1u] = logits;
    }
  }
}
