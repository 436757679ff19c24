// logSoftmaxGatherGradient: 64 x 64 x 64 in f32, subgroups of 8 on a software adapter, soft cap 50, tile subgroup32.

enable subgroups;
struct Uniforms { M: u32, N: u32, K: u32, aWidth: u32, aFrom: u32, S: u32, windowStart: u32, firstGroupX: u32, firstGroupY: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> a: array<vec4f>;
@group(0) @binding(2) var<storage, read> b: array<vec4f>;
@group(0) @binding(3) var<storage, read> targets: array<u32>;
@group(0) @binding(4) var<storage, read> sequences: array<u32>;
@group(0) @binding(5) var<storage, read> logSumExp: array<f32>;
@group(0) @binding(6) var<storage, read> coefficients: array<f32>;
@group(0) @binding(7) var<storage, read_write> dLogits: array<vec4f>;
fn placeInGrid(group: vec3u) -> vec3u { return group + vec3u(u.firstGroupX, u.firstGroupY, 0u); }

fn readA(line: u32, at: u32) -> vec4f {
  let four = (min(line, u.M - 1u) * u.aWidth + u.aFrom + min(at, u.K - 4u)) / 4u;
  return a[four];
}

fn readB(line: u32, at: u32) -> vec4f {
  let four = (min(line, u.N - 1u) * u.K + min(at, u.K - 4u)) / 4u;
  return b[four];
}
const CAP: f32 = 50;
fn softCapped(x: vec4f) -> vec4f { return CAP * tanh(clamp(x / CAP, vec4f(-9.01), vec4f(9.01))); }
fn softCapSlope(y: vec4f) -> vec4f { return 1.0 - (y / CAP) * (y / CAP); }

fn store(row: u32, column: u32, product: vec4f) {
  let logits = softCapped(product);
  var coefficient = 0.0;
  if (sequences[row] < u.S) { coefficient = coefficients[sequences[row]]; }
  let goal = targets[row] - u.windowStart;
  let hit = vec4u(column, column + 1u, column + 2u, column + 3u) == vec4u(goal);
  let value = coefficient * (select(vec4f(), vec4f(1.0), hit) - exp(logits - logSumExp[row])) * softCapSlope(logits);
  if (column < u.N) { dLogits[(row * u.N + column) / 4u] = value; }
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let origin = placeInGrid(group);
  let place = select(origin.xy, origin.yx, u.N >= u.M);
  let firstRow = place.y * 32u;
  let firstColumn = place.x * 32u;
  let ownFirst = firstRow;
  let loadRow = firstRow + lane % 8u;
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
  var sums = array<vec4f, 32>(sum0, sum1, sum2, sum3, sum4, sum5, sum6, sum7, sum8, sum9, sum10, sum11, sum12, sum13, sum14, sum15, sum16, sum17, sum18, sum19, sum20, sum21, sum22, sum23, sum24, sum25, sum26, sum27, sum28, sum29, sum30, sum31);
  for (var row = ownFirst; row < min(ownFirst + 32u, u.M); row++) {
    let value = sums[row - ownFirst];
    store(row, column, value);
  }
}
