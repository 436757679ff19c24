// matmulNT: 16 x 64 x 64 in f32, gates, a norm before it, subgroups of 8 on a software adapter, tile subgroup16.

enable subgroups;
struct Uniforms { M: u32, N: u32, K: u32, aWidth: u32, aFrom: u32, outWidth: u32, outFrom: u32, scale: f32, hasBias: u32, hasResidual: u32, accumulate: u32, tiles: u32, epsilon: f32, firstGroupX: u32, firstGroupY: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> a: array<vec4f>;
@group(0) @binding(2) var<storage, read> b: array<vec4f>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<vec4f>;
@group(0) @binding(5) var<storage, read> squares: array<f32>;
@group(0) @binding(6) var<storage, read_write> out: array<vec4f>;
fn placeInGrid(group: vec3u) -> vec3u { return group + vec3u(u.firstGroupX, u.firstGroupY, 0u); }

fn readA(line: u32, at: u32) -> vec4f {
  let four = (min(line, u.M - 1u) * u.aWidth + u.aFrom + min(at, u.K - 4u)) / 4u;
  return a[four];
}

fn readB(line: u32, at: u32) -> vec4f {
  let four = (min(line, (2u * u.N) - 1u) * u.K + min(at, u.K - 4u)) / 4u;
  return b[four];
}
fn rowFactor(row: u32) -> f32 {
  let first = min(row, u.M - 1u) * u.tiles;
  var squared = 0.0;
  for (var tile = 0u; tile < u.tiles; tile++) { squared += squares[first + tile]; }
  return inverseSqrt(squared / f32(u.K) + u.epsilon);
}

alias E = vec4f;
fn sigmoid(x: E) -> E {
  let e = exp(-abs(x));
  return select(e, E(1.0), x >= E()) / (1.0 + e);
}

fn store(row: u32, column: u32, product: vec4f) {
  if (column >= u.N) { return; }
  let i = (row * u.outWidth + u.outFrom + column) / 4u;
  var value = product * u.scale;
  if (u.hasBias != 0u) { value += vec4f(bias[column], bias[column + 1u], bias[column + 2u], bias[column + 3u]); }
  if (u.hasResidual != 0u) { value += residual[(row * u.N + column) / 4u]; }
  if (u.accumulate != 0u) { value += out[i]; }
  out[i] = value;
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let origin = placeInGrid(group);
  let place = select(origin.xy, origin.yx, u.N >= u.M);
  let firstRow = place.y * 16u;
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
    let t0_0 = readB(column + 0u, k);
    let t0_1 = readB(column + 1u, k);
    let t0_2 = readB(column + 2u, k);
    let t0_3 = readB(column + 3u, k);
    let b0_0 = vec4f(t0_0.x, t0_1.x, t0_2.x, t0_3.x);
    let b0_1 = vec4f(t0_0.y, t0_1.y, t0_2.y, t0_3.y);
    let b0_2 = vec4f(t0_0.z, t0_1.z, t0_2.z, t0_3.z);
    let b0_3 = vec4f(t0_0.w, t0_1.w, t0_2.w, t0_3.w);
    let t1_0 = readB(column + u.N + 0u, k);
    let t1_1 = readB(column + u.N + 1u, k);
    let t1_2 = readB(column + u.N + 2u, k);
    let t1_3 = readB(column + u.N + 3u, k);
    let b1_0 = vec4f(t1_0.x, t1_1.x, t1_2.x, t1_3.x);
    let b1_1 = vec4f(t1_0.y, t1_1.y, t1_2.y, t1_3.y);
    let b1_2 = vec4f(t1_0.z, t1_1.z, t1_2.z, t1_3.z);
    let b1_3 = vec4f(t1_0.w, t1_1.w, t1_2.w, t1_3.w);
    { let a = subgroupShuffle(a0, 0u); sum0 = fma(a.xxxx, b0_0, fma(a.yyyy, b0_1, fma(a.zzzz, b0_2, fma(a.wwww, b0_3, sum0)))); sum1 = fma(a.xxxx, b1_0, fma(a.yyyy, b1_1, fma(a.zzzz, b1_2, fma(a.wwww, b1_3, sum1)))); }
    { let a = subgroupShuffle(a0, 1u); sum2 = fma(a.xxxx, b0_0, fma(a.yyyy, b0_1, fma(a.zzzz, b0_2, fma(a.wwww, b0_3, sum2)))); sum3 = fma(a.xxxx, b1_0, fma(a.yyyy, b1_1, fma(a.zzzz, b1_2, fma(a.wwww, b1_3, sum3)))); }
    { let a = subgroupShuffle(a0, 2u); sum4 = fma(a.xxxx, b0_0, fma(a.yyyy, b0_1, fma(a.zzzz, b0_2, fma(a.wwww, b0_3, sum4)))); sum5 = fma(a.xxxx, b1_0, fma(a.yyyy, b1_1, fma(a.zzzz, b1_2, fma(a.wwww, b1_3, sum5)))); }
    { let a = subgroupShuffle(a0, 3u); sum6 = fma(a.xxxx, b0_0, fma(a.yyyy, b0_1, fma(a.zzzz, b0_2, fma(a.wwww, b0_3, sum6)))); sum7 = fma(a.xxxx, b1_0, fma(a.yyyy, b1_1, fma(a.zzzz, b1_2, fma(a.wwww, b1_3, sum7)))); }
    { let a = subgroupShuffle(a0, 4u); sum8 = fma(a.xxxx, b0_0, fma(a.yyyy, b0_1, fma(a.zzzz, b0_2, fma(a.wwww, b0_3, sum8)))); sum9 = fma(a.xxxx, b1_0, fma(a.yyyy, b1_1, fma(a.zzzz, b1_2, fma(a.wwww, b1_3, sum9)))); }
    { let a = subgroupShuffle(a0, 5u); sum10 = fma(a.xxxx, b0_0, fma(a.yyyy, b0_1, fma(a.zzzz, b0_2, fma(a.wwww, b0_3, sum10)))); sum11 = fma(a.xxxx, b1_0, fma(a.yyyy, b1_1, fma(a.zzzz, b1_2, fma(a.wwww, b1_3, sum11)))); }
    { let a = subgroupShuffle(a0, 6u); sum12 = fma(a.xxxx, b0_0, fma(a.yyyy, b0_1, fma(a.zzzz, b0_2, fma(a.wwww, b0_3, sum12)))); sum13 = fma(a.xxxx, b1_0, fma(a.yyyy, b1_1, fma(a.zzzz, b1_2, fma(a.wwww, b1_3, sum13)))); }
    { let a = subgroupShuffle(a0, 7u); sum14 = fma(a.xxxx, b0_0, fma(a.yyyy, b0_1, fma(a.zzzz, b0_2, fma(a.wwww, b0_3, sum14)))); sum15 = fma(a.xxxx, b1_0, fma(a.yyyy, b1_1, fma(a.zzzz, b1_2, fma(a.wwww, b1_3, sum15)))); }
    { let a = subgroupShuffle(a1, 0u); sum16 = fma(a.xxxx, b0_0, fma(a.yyyy, b0_1, fma(a.zzzz, b0_2, fma(a.wwww, b0_3, sum16)))); sum17 = fma(a.xxxx, b1_0, fma(a.yyyy, b1_1, fma(a.zzzz, b1_2, fma(a.wwww, b1_3, sum17)))); }
    { let a = subgroupShuffle(a1, 1u); sum18 = fma(a.xxxx, b0_0, fma(a.yyyy, b0_1, fma(a.zzzz, b0_2, fma(a.wwww, b0_3, sum18)))); sum19 = fma(a.xxxx, b1_0, fma(a.yyyy, b1_1, fma(a.zzzz, b1_2, fma(a.wwww, b1_3, sum19)))); }
    { let a = subgroupShuffle(a1, 2u); sum20 = fma(a.xxxx, b0_0, fma(a.yyyy, b0_1, fma(a.zzzz, b0_2, fma(a.wwww, b0_3, sum20)))); sum21 = fma(a.xxxx, b1_0, fma(a.yyyy, b1_1, fma(a.zzzz, b1_2, fma(a.wwww, b1_3, sum21)))); }
    { let a = subgroupShuffle(a1, 3u); sum22 = fma(a.xxxx, b0_0, fma(a.yyyy, b0_1, fma(a.zzzz, b0_2, fma(a.wwww, b0_3, sum22)))); sum23 = fma(a.xxxx, b1_0, fma(a.yyyy, b1_1, fma(a.zzzz, b1_2, fma(a.wwww, b1_3, sum23)))); }
    { let a = subgroupShuffle(a1, 4u); sum24 = fma(a.xxxx, b0_0, fma(a.yyyy, b0_1, fma(a.zzzz, b0_2, fma(a.wwww, b0_3, sum24)))); sum25 = fma(a.xxxx, b1_0, fma(a.yyyy, b1_1, fma(a.zzzz, b1_2, fma(a.wwww, b1_3, sum25)))); }
    { let a = subgroupShuffle(a1, 5u); sum26 = fma(a.xxxx, b0_0, fma(a.yyyy, b0_1, fma(a.zzzz, b0_2, fma(a.wwww, b0_3, sum26)))); sum27 = fma(a.xxxx, b1_0, fma(a.yyyy, b1_1, fma(a.zzzz, b1_2, fma(a.wwww, b1_3, sum27)))); }
    { let a = subgroupShuffle(a1, 6u); sum28 = fma(a.xxxx, b0_0, fma(a.yyyy, b0_1, fma(a.zzzz, b0_2, fma(a.wwww, b0_3, sum28)))); sum29 = fma(a.xxxx, b1_0, fma(a.yyyy, b1_1, fma(a.zzzz, b1_2, fma(a.wwww, b1_3, sum29)))); }
    { let a = subgroupShuffle(a1, 7u); sum30 = fma(a.xxxx, b0_0, fma(a.yyyy, b0_1, fma(a.zzzz, b0_2, fma(a.wwww, b0_3, sum30)))); sum31 = fma(a.xxxx, b1_0, fma(a.yyyy, b1_1, fma(a.zzzz, b1_2, fma(a.wwww, b1_3, sum31)))); }
  }
  let factor0: f32 = rowFactor(loadRow + 0u); let factor1: f32 = rowFactor(loadRow + 8u);
  { let factor = subgroupShuffle(factor0, 0u); sum0 *= factor; sum1 *= factor; }
  { let factor = subgroupShuffle(factor0, 1u); sum2 *= factor; sum3 *= factor; }
  { let factor = subgroupShuffle(factor0, 2u); sum4 *= factor; sum5 *= factor; }
  { let factor = subgroupShuffle(factor0, 3u); sum6 *= factor; sum7 *= factor; }
  { let factor = subgroupShuffle(factor0, 4u); sum8 *= factor; sum9 *= factor; }
  { let factor = subgroupShuffle(factor0, 5u); sum10 *= factor; sum11 *= factor; }
  { let factor = subgroupShuffle(factor0, 6u); sum12 *= factor; sum13 *= factor; }
  { let factor = subgroupShuffle(factor0, 7u); sum14 *= factor; sum15 *= factor; }
  { let factor = subgroupShuffle(factor1, 0u); sum16 *= factor; sum17 *= factor; }
  { let factor = subgroupShuffle(factor1, 1u); sum18 *= factor; sum19 *= factor; }
  { let factor = subgroupShuffle(factor1, 2u); sum20 *= factor; sum21 *= factor; }
  { let factor = subgroupShuffle(factor1, 3u); sum22 *= factor; sum23 *= factor; }
  { let factor = subgroupShuffle(factor1, 4u); sum24 *= factor; sum25 *= factor; }
  { let factor = subgroupShuffle(factor1, 5u); sum26 *= factor; sum27 *= factor; }
  { let factor = subgroupShuffle(factor1, 6u); sum28 *= factor; sum29 *= factor; }
  { let factor = subgroupShuffle(factor1, 7u); sum30 *= factor; sum31 *= factor; }
  sum0 = sum0 * sigmoid(sum0) * sum1;
  sum1 = sum2 * sigmoid(sum2) * sum3;
  sum2 = sum4 * sigmoid(sum4) * sum5;
  sum3 = sum6 * sigmoid(sum6) * sum7;
  sum4 = sum8 * sigmoid(sum8) * sum9;
  sum5 = sum10 * sigmoid(sum10) * sum11;
  sum6 = sum12 * sigmoid(sum12) * sum13;
  sum7 = sum14 * sigmoid(sum14) * sum15;
  sum8 = sum16 * sigmoid(sum16) * sum17;
  sum9 = sum18 * sigmoid(sum18) * sum19;
  sum10 = sum20 * sigmoid(sum20) * sum21;
  sum11 = sum22 * sigmoid(sum22) * sum23;
  sum12 = sum24 * sigmoid(sum24) * sum25;
  sum13 = sum26 * sigmoid(sum26) * sum27;
  sum14 = sum28 * sigmoid(sum28) * sum29;
  sum15 = sum30 * sigmoid(sum30) * sum31;
  var sums = array<vec4f, 16>(sum0, sum1, sum2, sum3, sum4, sum5, sum6, sum7, sum8, sum9, sum10, sum11, sum12, sum13, sum14, sum15);
  for (var row = ownFirst; row < min(ownFirst + 16u, u.M); row++) {
    let value = sums[row - ownFirst];
    store(row, column, value);
  }
}
