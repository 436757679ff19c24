// matmulNT: 64 x 64 x 64 in f32, subgroups of 32 with matrices of f16, 16 x 16 x 16, tile matrix64x64.

enable subgroups;
enable f16;
enable chromium_experimental_subgroup_matrix;
diagnostic(off, chromium.subgroup_matrix_uniformity);
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
alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Sums = subgroup_matrix_result<f32, 16, 16>;
var<workgroup> highA: array<f16, 1536>;
var<workgroup> lowA: array<f16, 1536>;
var<workgroup> highB: array<f16, 1536>;
var<workgroup> lowB: array<f16, 1536>;
var<workgroup> results: array<f32, 2048>;
var<workgroup> largestA: atomic<u32>;
var<workgroup> largestB: atomic<u32>;
var<workgroup> misfits: atomic<u32>;
var<workgroup> subgroupsClaimed: atomic<u32>;

fn store(row: u32, column: u32, product: vec4f) {
  if (column >= u.N) { return; }
  let i = (row * u.outWidth + u.outFrom + column) / 4u;
  var value = product * u.scale;
  if (u.hasBias != 0u) { value += vec4f(bias[column], bias[column + 1u], bias[column + 2u], bias[column + 3u]); }
  if (u.hasResidual != 0u) { value += residual[(row * u.N + column) / 4u]; }
  if (u.accumulate != 0u) { value += out[i]; }
  out[i] = value;
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) invocation: u32, @builtin(subgroup_invocation_id) ownLane: u32) {
  let origin = placeInGrid(group);
  let place = select(origin.xy, origin.yx, u.N >= u.M);
  let firstRow = place.y * 64u;
  let firstColumn = place.x * 64u;
  var claim: u32 = 0u;
  if (subgroupElect()) { claim = atomicAdd(&subgroupsClaimed, 1u); }
  let subgroup = subgroupBroadcastFirst(claim);
  let partRow = subgroup / 2u * 32u;
  let partColumn = subgroup % 2u * 32u;
  let ownFirst = firstRow + partRow + ownLane / 8u;
  // Invocations that share rows are neighbours by this number.
  let lane = (subgroup / 2u * 4u + ownLane / 8u) * 16u + subgroup % 2u * 8u + ownLane % 8u;
  let column = firstColumn + partColumn + ownLane % 8u * 4u;
  var matrix0_0 = Sums(); var matrix0_1 = Sums(); var matrix1_0 = Sums(); var matrix1_1 = Sums();
  var scaleA = 1.0;
  var limitA = 0.0; // the largest number that fits
  var scaleB = 1.0;
  var limitB = 0.0; // the largest number that fits
  var misfitsBefore = 0u;
  if (invocation == 0u) {
    atomicStore(&largestA, 0u);
    atomicStore(&largestB, 0u);
    atomicStore(&misfits, 0u);
  }
  for (var k = 0u; k < u.K; k += 16u) {
    workgroupBarrier();
    for (var attempt = 0u; attempt < (2u + (u.K >> 31u)); attempt++) {
      var mostA = 0.0;
      var mostB = 0.0;
      for (var i = 0u; i < 2u; i++) { let four = i * 128u + invocation;
        let line = four / 4u;
        let at = four % 4u * 4u;
        let row = firstRow + line;
        let column = k + at;
        let inside = (vec4u(column, column + 1u, column + 2u, column + 3u) < vec4u(u.K)) & vec4<bool>(row < u.M);
        let read = select(vec4f(), readA(row, column), inside);
        let to = line * 24u + at;
        let size = select(vec4f(), abs(read), abs(read) <= vec4f(3.4e38));
        mostA = max(mostA, max(max(size.x, size.y), max(size.z, size.w)));
        let x = scaleA * read;
        let rounded = bitcast<vec4f>((bitcast<vec4u>(x) + vec4u(0x1000u)) & vec4u(0xffffe000u));
        let high = vec4h(rounded);
        highA[to] = high[0]; highA[to + 1u] = high[1]; highA[to + 2u] = high[2]; highA[to + 3u] = high[3];
        let low = vec4h(x - rounded);
        lowA[to] = low[0]; lowA[to + 1u] = low[1]; lowA[to + 2u] = low[2]; lowA[to + 3u] = low[3];
      }
      for (var i = 0u; i < 2u; i++) { let four = i * 128u + invocation;
        let line = four / 4u;
        let at = four % 4u * 4u;
        let row = firstColumn + line;
        let column = k + at;
        let inside = (vec4u(column, column + 1u, column + 2u, column + 3u) < vec4u(u.K)) & vec4<bool>(row < u.N);
        let read = select(vec4f(), readB(row, column), inside);
        let to = line * 24u + at;
        let size = select(vec4f(), abs(read), abs(read) <= vec4f(3.4e38));
        mostB = max(mostB, max(max(size.x, size.y), max(size.z, size.w)));
        let x = scaleB * read;
        let rounded = bitcast<vec4f>((bitcast<vec4u>(x) + vec4u(0x1000u)) & vec4u(0xffffe000u));
        let high = vec4h(rounded);
        highB[to] = high[0]; highB[to + 1u] = high[1]; highB[to + 2u] = high[2]; highB[to + 3u] = high[3];
        let low = vec4h(x - rounded);
        lowB[to] = low[0]; lowB[to + 1u] = low[1]; lowB[to + 2u] = low[2]; lowB[to + 3u] = low[3];
      }
      if (mostA > limitA || mostB > limitB) {
        atomicMax(&largestA, bitcast<u32>(mostA));
        atomicMax(&largestB, bitcast<u32>(mostB));
        atomicAdd(&misfits, 1u);
      }
      let found = workgroupUniformLoad(&misfits); // a barrier too
      if (found == misfitsBefore) { break; }
      misfitsBefore = found;
      var change = 1.0;
      let allA = bitcast<f32>(workgroupUniformLoad(&largestA));
      if (allA > limitA) {
        let exponent = max(i32(bitcast<u32>(allA) >> 23u) - 127, -100);
        let next = bitcast<f32>(u32(127 + 13 - exponent) << 23u);
        if (limitA > 0.0) { change *= next / scaleA; }
        scaleA = next;
        limitA = 65000.0 / next;
      }
      let allB = bitcast<f32>(workgroupUniformLoad(&largestB));
      if (allB > limitB) {
        let exponent = max(i32(bitcast<u32>(allB) >> 23u) - 127, -100);
        let next = bitcast<f32>(u32(127 + 13 - exponent) << 23u);
        if (limitB > 0.0) { change *= next / scaleB; }
        scaleB = next;
        limitB = 65000.0 / next;
      }
      matrix0_0 = subgroupMatrixScalarMultiply(matrix0_0, change);
      matrix0_1 = subgroupMatrixScalarMultiply(matrix0_1, change);
      matrix1_0 = subgroupMatrixScalarMultiply(matrix1_0, change);
      matrix1_1 = subgroupMatrixScalarMultiply(matrix1_1, change);
    }
    for (var i = 0u; i < 1u; i++) {
      let step = i * 16u;
      let A0_0 = subgroupMatrixLoad<Left, row_major>(&highA, (partRow + 0u) * 24u + step, 24u);
      let A0_1 = subgroupMatrixLoad<Left, row_major>(&lowA, (partRow + 0u) * 24u + step, 24u);
      let A1_0 = subgroupMatrixLoad<Left, row_major>(&highA, (partRow + 16u) * 24u + step, 24u);
      let A1_1 = subgroupMatrixLoad<Left, row_major>(&lowA, (partRow + 16u) * 24u + step, 24u);
      let B0_0 = subgroupMatrixLoad<Right, col_major>(&highB, (partColumn + 0u) * 24u + step, 24u);
      let B0_1 = subgroupMatrixLoad<Right, col_major>(&lowB, (partColumn + 0u) * 24u + step, 24u);
      matrix0_0 = subgroupMatrixMultiplyAccumulate(A0_1, B0_0, matrix0_0);
      matrix0_0 = subgroupMatrixMultiplyAccumulate(A0_0, B0_1, matrix0_0);
      matrix0_0 = subgroupMatrixMultiplyAccumulate(A0_0, B0_0, matrix0_0);
      matrix1_0 = subgroupMatrixMultiplyAccumulate(A1_1, B0_0, matrix1_0);
      matrix1_0 = subgroupMatrixMultiplyAccumulate(A1_0, B0_1, matrix1_0);
      matrix1_0 = subgroupMatrixMultiplyAccumulate(A1_0, B0_0, matrix1_0);
      let B1_0 = subgroupMatrixLoad<Right, col_major>(&highB, (partColumn + 16u) * 24u + step, 24u);
      let B1_1 = subgroupMatrixLoad<Right, col_major>(&lowB, (partColumn + 16u) * 24u + step, 24u);
      matrix0_1 = subgroupMatrixMultiplyAccumulate(A0_1, B1_0, matrix0_1);
      matrix0_1 = subgroupMatrixMultiplyAccumulate(A0_0, B1_1, matrix0_1);
      matrix0_1 = subgroupMatrixMultiplyAccumulate(A0_0, B1_0, matrix0_1);
      matrix1_1 = subgroupMatrixMultiplyAccumulate(A1_1, B1_0, matrix1_1);
      matrix1_1 = subgroupMatrixMultiplyAccumulate(A1_0, B1_1, matrix1_1);
      matrix1_1 = subgroupMatrixMultiplyAccumulate(A1_0, B1_0, matrix1_1);
    }
  }
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&results, subgroup * 512u + 0u, matrix0_0, 32u);
  subgroupMatrixStore<row_major>(&results, subgroup * 512u + 16u, matrix0_1, 32u);
  workgroupBarrier();
  let from0 = subgroup * 512u + ownLane / 8u * 32u + ownLane % 8u * 4u;
  let sum0 = vec4f(results[from0 + 0u], results[from0 + 0u + 1u], results[from0 + 0u + 2u], results[from0 + 0u + 3u]) * (1.0 / scaleA) * (1.0 / scaleB);
  let sum1 = vec4f(results[from0 + 128u], results[from0 + 128u + 1u], results[from0 + 128u + 2u], results[from0 + 128u + 3u]) * (1.0 / scaleA) * (1.0 / scaleB);
  let sum2 = vec4f(results[from0 + 256u], results[from0 + 256u + 1u], results[from0 + 256u + 2u], results[from0 + 256u + 3u]) * (1.0 / scaleA) * (1.0 / scaleB);
  let sum3 = vec4f(results[from0 + 384u], results[from0 + 384u + 1u], results[from0 + 384u + 2u], results[from0 + 384u + 3u]) * (1.0 / scaleA) * (1.0 / scaleB);
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&results, subgroup * 512u + 0u, matrix1_0, 32u);
  subgroupMatrixStore<row_major>(&results, subgroup * 512u + 16u, matrix1_1, 32u);
  workgroupBarrier();
  let from1 = subgroup * 512u + ownLane / 8u * 32u + ownLane % 8u * 4u;
  let sum4 = vec4f(results[from1 + 0u], results[from1 + 0u + 1u], results[from1 + 0u + 2u], results[from1 + 0u + 3u]) * (1.0 / scaleA) * (1.0 / scaleB);
  let sum5 = vec4f(results[from1 + 128u], results[from1 + 128u + 1u], results[from1 + 128u + 2u], results[from1 + 128u + 3u]) * (1.0 / scaleA) * (1.0 / scaleB);
  let sum6 = vec4f(results[from1 + 256u], results[from1 + 256u + 1u], results[from1 + 256u + 2u], results[from1 + 256u + 3u]) * (1.0 / scaleA) * (1.0 / scaleB);
  let sum7 = vec4f(results[from1 + 384u], results[from1 + 384u + 1u], results[from1 + 384u + 2u], results[from1 + 384u + 3u]) * (1.0 / scaleA) * (1.0 / scaleB);
  var sums = array<vec4f, 8>(sum0, sum1, sum2, sum3, sum4, sum5, sum6, sum7);
  for (var row = ownFirst; row < min(ownFirst + 32u, u.M); row += 4u) {
    let value = sums[(row - ownFirst) / 4u];
    store(row, column, value);
  }
}
