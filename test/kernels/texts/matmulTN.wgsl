// matmulTN: 64 x 64 x 64 in f32, subgroups of 8 on a software adapter, tile subgroup32.

enable subgroups;
struct Uniforms { M: u32, N: u32, K: u32, aWidth: u32, aFrom: u32, outWidth: u32, outFrom: u32, scale: f32, hasBias: u32, hasResidual: u32, accumulate: u32, firstGroupX: u32, firstGroupY: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> a: array<vec4f>;
@group(0) @binding(2) var<storage, read> b: array<vec4f>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4f>;
fn placeInGrid(group: vec3u) -> vec3u { return group + vec3u(u.firstGroupX, u.firstGroupY, 0u); }

fn readA(line: u32, at: u32) -> vec4f {
  let four = (min(line, u.K - 1u) * u.aWidth + u.aFrom + min(at, u.M - 4u)) / 4u;
  return a[four];
}

fn readB(line: u32, at: u32) -> vec4f {
  let four = (min(line, u.K - 1u) * u.N + min(at, u.N - 4u)) / 4u;
  return b[four];
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
  let place = select(origin.xy, origin.yx, u.N > u.M);
  let firstRow = place.y * 32u;
  let firstColumn = place.x * 32u;
  let ownFirst = firstRow;
  let loadRow = firstRow + (lane % 8u) * 4u;
  let loadStep = (lane / 8u) % 1u;
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
    let a0: vec4f = readA(k + 0u + loadStep, loadRow);
    let a1: vec4f = readA(k + 1u + loadStep, loadRow);
    let a2: vec4f = readA(k + 2u + loadStep, loadRow);
    let a3: vec4f = readA(k + 3u + loadStep, loadRow);
    let b0 = readB(k + 0u, column);
    let b1 = readB(k + 1u, column);
    let b2 = readB(k + 2u, column);
    let b3 = readB(k + 3u, column);
    {
      let s0 = subgroupShuffle(a0, 0u); let s1 = subgroupShuffle(a1, 0u); let s2 = subgroupShuffle(a2, 0u); let s3 = subgroupShuffle(a3, 0u);
      { let a = vec4f(s0.x, s1.x, s2.x, s3.x); sum0 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum0)))); }
      { let a = vec4f(s0.y, s1.y, s2.y, s3.y); sum1 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum1)))); }
      { let a = vec4f(s0.z, s1.z, s2.z, s3.z); sum2 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum2)))); }
      { let a = vec4f(s0.w, s1.w, s2.w, s3.w); sum3 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum3)))); }
    }
    {
      let s0 = subgroupShuffle(a0, 1u); let s1 = subgroupShuffle(a1, 1u); let s2 = subgroupShuffle(a2, 1u); let s3 = subgroupShuffle(a3, 1u);
      { let a = vec4f(s0.x, s1.x, s2.x, s3.x); sum4 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum4)))); }
      { let a = vec4f(s0.y, s1.y, s2.y, s3.y); sum5 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum5)))); }
      { let a = vec4f(s0.z, s1.z, s2.z, s3.z); sum6 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum6)))); }
      { let a = vec4f(s0.w, s1.w, s2.w, s3.w); sum7 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum7)))); }
    }
    {
      let s0 = subgroupShuffle(a0, 2u); let s1 = subgroupShuffle(a1, 2u); let s2 = subgroupShuffle(a2, 2u); let s3 = subgroupShuffle(a3, 2u);
      { let a = vec4f(s0.x, s1.x, s2.x, s3.x); sum8 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum8)))); }
      { let a = vec4f(s0.y, s1.y, s2.y, s3.y); sum9 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum9)))); }
      { let a = vec4f(s0.z, s1.z, s2.z, s3.z); sum10 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum10)))); }
      { let a = vec4f(s0.w, s1.w, s2.w, s3.w); sum11 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum11)))); }
    }
    {
      let s0 = subgroupShuffle(a0, 3u); let s1 = subgroupShuffle(a1, 3u); let s2 = subgroupShuffle(a2, 3u); let s3 = subgroupShuffle(a3, 3u);
      { let a = vec4f(s0.x, s1.x, s2.x, s3.x); sum12 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum12)))); }
      { let a = vec4f(s0.y, s1.y, s2.y, s3.y); sum13 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum13)))); }
      { let a = vec4f(s0.z, s1.z, s2.z, s3.z); sum14 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum14)))); }
      { let a = vec4f(s0.w, s1.w, s2.w, s3.w); sum15 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum15)))); }
    }
    {
      let s0 = subgroupShuffle(a0, 4u); let s1 = subgroupShuffle(a1, 4u); let s2 = subgroupShuffle(a2, 4u); let s3 = subgroupShuffle(a3, 4u);
      { let a = vec4f(s0.x, s1.x, s2.x, s3.x); sum16 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum16)))); }
      { let a = vec4f(s0.y, s1.y, s2.y, s3.y); sum17 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum17)))); }
      { let a = vec4f(s0.z, s1.z, s2.z, s3.z); sum18 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum18)))); }
      { let a = vec4f(s0.w, s1.w, s2.w, s3.w); sum19 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum19)))); }
    }
    {
      let s0 = subgroupShuffle(a0, 5u); let s1 = subgroupShuffle(a1, 5u); let s2 = subgroupShuffle(a2, 5u); let s3 = subgroupShuffle(a3, 5u);
      { let a = vec4f(s0.x, s1.x, s2.x, s3.x); sum20 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum20)))); }
      { let a = vec4f(s0.y, s1.y, s2.y, s3.y); sum21 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum21)))); }
      { let a = vec4f(s0.z, s1.z, s2.z, s3.z); sum22 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum22)))); }
      { let a = vec4f(s0.w, s1.w, s2.w, s3.w); sum23 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum23)))); }
    }
    {
      let s0 = subgroupShuffle(a0, 6u); let s1 = subgroupShuffle(a1, 6u); let s2 = subgroupShuffle(a2, 6u); let s3 = subgroupShuffle(a3, 6u);
      { let a = vec4f(s0.x, s1.x, s2.x, s3.x); sum24 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum24)))); }
      { let a = vec4f(s0.y, s1.y, s2.y, s3.y); sum25 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum25)))); }
      { let a = vec4f(s0.z, s1.z, s2.z, s3.z); sum26 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum26)))); }
      { let a = vec4f(s0.w, s1.w, s2.w, s3.w); sum27 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum27)))); }
    }
    {
      let s0 = subgroupShuffle(a0, 7u); let s1 = subgroupShuffle(a1, 7u); let s2 = subgroupShuffle(a2, 7u); let s3 = subgroupShuffle(a3, 7u);
      { let a = vec4f(s0.x, s1.x, s2.x, s3.x); sum28 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum28)))); }
      { let a = vec4f(s0.y, s1.y, s2.y, s3.y); sum29 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum29)))); }
      { let a = vec4f(s0.z, s1.z, s2.z, s3.z); sum30 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum30)))); }
      { let a = vec4f(s0.w, s1.w, s2.w, s3.w); sum31 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum31)))); }
    }
  }
  var sums = array<vec4f, 32>(sum0, sum1, sum2, sum3, sum4, sum5, sum6, sum7, sum8, sum9, sum10, sum11, sum12, sum13, sum14, sum15, sum16, sum17, sum18, sum19, sum20, sum21, sum22, sum23, sum24, sum25, sum26, sum27, sum28, sum29, sum30, sum31);
  for (var row = ownFirst; row < min(ownFirst + 32u, u.M); row++) {
    let value = sums[row - ownFirst];
    store(row, column, value);
  }
}
