// matmulNT: 1 x 64 x 64 in f32, subgroups of 8 on a software adapter, tile column4.

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
  let four = (min(line, u.M - 1u) * u.aWidth + u.aFrom + min(at, u.K - 4u)) / 4u;
  return a[four];
}

fn readB(line: u32, at: u32) -> vec4f {
  let four = (min(line, u.N - 1u) * u.K + min(at, u.K - 4u)) / 4u;
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
  let place = select(origin.xy, origin.yx, u.N >= u.M);
  let firstRow = place.y * 1u;
  let firstColumn = place.x * 32u;
  let ownFirst = firstRow;
  let column = firstColumn + lane * 4u;
  var sum0 = vec4f();
  for (var start = 0u; start < u.K; start += 32u) {
    let ahead: vec4f = readA(firstRow, start + 4u * lane);
    for (var k = start; k < min(start + 32u, u.K); k += 4u) {
      let a = subgroupShuffle(ahead, (k - start) / 4u);
      let t0 = readB(column + 0u, k);
      let t1 = readB(column + 1u, k);
      let t2 = readB(column + 2u, k);
      let t3 = readB(column + 3u, k);
      let b0 = vec4f(t0.x, t1.x, t2.x, t3.x);
      let b1 = vec4f(t0.y, t1.y, t2.y, t3.y);
      let b2 = vec4f(t0.z, t1.z, t2.z, t3.z);
      let b3 = vec4f(t0.w, t1.w, t2.w, t3.w);
      sum0 = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum0))));
    }
  }
  var sums = array<vec4f, 1>(sum0);
  for (var row = ownFirst; row < min(ownFirst + 1u, u.M); row++) {
    let value = sums[row - ownFirst];
    store(row, column, value);
  }
}
