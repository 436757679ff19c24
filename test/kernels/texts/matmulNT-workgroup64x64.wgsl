// matmulNT: 64 x 64 x 64 in f32, any adapter without subgroups, tile workgroup64x64.

struct Uniforms { M: u32, N: u32, K: u32, aWidth: u32, aFrom: u32, outWidth: u32, outFrom: u32, scale: f32, hasBias: u32, hasResidual: u32, accumulate: u32, firstGroupX: u32, firstGroupY: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> a: array<vec4f>;
@group(0) @binding(2) var<storage, read> b: array<vec4f>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4f>;
fn placeInGrid(group: vec3u) -> vec3u { return group + vec3u(u.firstGroupX, u.firstGroupY, 0u); }

fn readA(line: u32, at: u32) -> vec4f {
  let four = (min(line, u.M - 1u) * u.aWidth + u.aFrom + min(at, u.K - 4u)) / 4u;
  return a[four];
}

fn readB(line: u32, at: u32) -> vec4f {
  let four = (min(line, u.N - 1u) * u.K + min(at, u.K - 4u)) / 4u;
  return b[four];
}
var<workgroup> tileA: array<vec4f, 256>;
var<workgroup> tileB: array<vec4f, 256>;

fn store(row: u32, column: u32, product: vec4f) {
  if (column >= u.N) { return; }
  let i = (row * u.outWidth + u.outFrom + column) / 4u;
  var value = product * u.scale;
  if (u.hasBias != 0u) { value += vec4f(bias[column], bias[column + 1u], bias[column + 2u], bias[column + 3u]); }
  if (u.hasResidual != 0u) { value += residual[(row * u.N + column) / 4u]; }
  if (u.accumulate != 0u) { value += out[i]; }
  out[i] = value;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) invocation: u32) {
  let origin = placeInGrid(group);
  let place = select(origin.xy, origin.yx, u.N >= u.M);
  let firstRow = place.y * 64u;
  let firstColumn = place.x * 64u;
  let lane = invocation;
  let ownQuad = invocation / 8u * 2u;
  let ownFour = invocation % 8u;
  let ownFirst = firstRow + 4u * ownQuad;
  let column = firstColumn + 4u * ownFour;
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
  for (var k = 0u; k < u.K; k += 16u) {
    workgroupBarrier();
    for (var i = 0u; i < 1u; i++) {
      let block = i * 64u + invocation;
      let quad = block / 4u;
      let step = block % 4u * 4u;
      let t0 = select(vec4f(), readA(firstRow + 4u * quad + 0u, k + step), k + step < u.K);
      let t1 = select(vec4f(), readA(firstRow + 4u * quad + 1u, k + step), k + step < u.K);
      let t2 = select(vec4f(), readA(firstRow + 4u * quad + 2u, k + step), k + step < u.K);
      let t3 = select(vec4f(), readA(firstRow + 4u * quad + 3u, k + step), k + step < u.K);
      tileA[(step + 0u) * 16u + quad] = vec4f(t0.x, t1.x, t2.x, t3.x);
      tileA[(step + 1u) * 16u + quad] = vec4f(t0.y, t1.y, t2.y, t3.y);
      tileA[(step + 2u) * 16u + quad] = vec4f(t0.z, t1.z, t2.z, t3.z);
      tileA[(step + 3u) * 16u + quad] = vec4f(t0.w, t1.w, t2.w, t3.w);
    }
    for (var i = 0u; i < 1u; i++) {
      let block = i * 64u + invocation;
      let quad = block / 4u;
      let step = block % 4u * 4u;
      let t0 = select(vec4f(), readB(firstColumn + 4u * quad + 0u, k + step), k + step < u.K);
      let t1 = select(vec4f(), readB(firstColumn + 4u * quad + 1u, k + step), k + step < u.K);
      let t2 = select(vec4f(), readB(firstColumn + 4u * quad + 2u, k + step), k + step < u.K);
      let t3 = select(vec4f(), readB(firstColumn + 4u * quad + 3u, k + step), k + step < u.K);
      tileB[(step + 0u) * 16u + quad] = vec4f(t0.x, t1.x, t2.x, t3.x);
      tileB[(step + 1u) * 16u + quad] = vec4f(t0.y, t1.y, t2.y, t3.y);
      tileB[(step + 2u) * 16u + quad] = vec4f(t0.z, t1.z, t2.z, t3.z);
      tileB[(step + 3u) * 16u + quad] = vec4f(t0.w, t1.w, t2.w, t3.w);
    }
    workgroupBarrier();
    for (var i = 0u; i < 16u; i++) {
      let a0 = tileA[i * 16u + ownQuad + 0u];
      let a1 = tileA[i * 16u + ownQuad + 1u];
      let b0 = tileB[i * 16u + 0u + ownFour];
      let b1 = tileB[i * 16u + 8u + ownFour];
      sum0 = fma(vec4f(a0.x), b0, sum0);
      sum1 = fma(vec4f(a0.x), b1, sum1);
      sum2 = fma(vec4f(a0.y), b0, sum2);
      sum3 = fma(vec4f(a0.y), b1, sum3);
      sum4 = fma(vec4f(a0.z), b0, sum4);
      sum5 = fma(vec4f(a0.z), b1, sum5);
      sum6 = fma(vec4f(a0.w), b0, sum6);
      sum7 = fma(vec4f(a0.w), b1, sum7);
      sum8 = fma(vec4f(a1.x), b0, sum8);
      sum9 = fma(vec4f(a1.x), b1, sum9);
      sum10 = fma(vec4f(a1.y), b0, sum10);
      sum11 = fma(vec4f(a1.y), b1, sum11);
      sum12 = fma(vec4f(a1.z), b0, sum12);
      sum13 = fma(vec4f(a1.z), b1, sum13);
      sum14 = fma(vec4f(a1.w), b0, sum14);
      sum15 = fma(vec4f(a1.w), b1, sum15);
    }
  }
  var sums = array<vec4f, 16>(sum0, sum1, sum2, sum3, sum4, sum5, sum6, sum7, sum8, sum9, sum10, sum11, sum12, sum13, sum14, sum15);
  let firstOwnColumn = column;
  for (var row = ownFirst; row < min(ownFirst + 8u, u.M); row++) {
    for (var four = 0u; four < (2u + (u.M >> 31u)); four++) {
      let value = sums[(row - ownFirst) * 2u + four];
      let column = firstOwnColumn + four * 32u;
      store(row, column, value);
    }
  }
}
