// attentionBackwardKeyValue: head size 64, subgroups of 32 with matrices of f16, 16 x 16 x 16, tile matrix32x32.

enable subgroups;
enable f16;
enable chromium_experimental_subgroup_matrix;
diagnostic(off, chromium.subgroup_matrix_uniformity);
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
alias X = vec4f;
alias XU = vec4u;
const UNIT: u32 = 4u;
const HEAD: u32 = 16u;
const SCALE: f32 = 0.125;
const NONE: u32 = 0xffffffffu;
fn fusedFour(start: u32, d: u32) -> vec4f { return fused[start + d / 4u]; }
fn dOutFour(start: u32, d: u32) -> vec4f { return dOut[start + d / 4u]; }
fn store(start: u32, d: u32, value: vec4f) {
  dFused[start + d / 4u] = value;
}
fn largest(x: X) -> f32 { return max(max(max(x.x, x.y), x.z), x.w); }
fn total(x: X) -> f32 { return (((x.x + x.y) + x.z) + x.w); }
// The first of [start, end) that is not before `least`.
fn firstFrom(start: u32, end: u32, least: u32) -> u32 {
  let first = max(start, least);
  return select(NONE, first, first < end);
}

@diagnostic(off, subgroup_uniformity)
fn lanesMax(own: f32) -> f32 {
  var x: f32 = own;
  x = max(x, subgroupShuffleXor(x, 1u));
  x = max(x, subgroupShuffleXor(x, 2u));
  x = max(x, subgroupShuffleXor(x, 4u));
  return x;
}
@diagnostic(off, subgroup_uniformity)
fn lanesSum(own: f32) -> f32 {
  var x: f32 = own;
  x += subgroupShuffleXor(x, 1u);
  x += subgroupShuffleXor(x, 2u);
  x += subgroupShuffleXor(x, 4u);
  return x;
}
var<workgroup> overRows: atomic<u32>;
@diagnostic(off, subgroup_uniformity)
fn tileLeast(own: u32, lane: u32) -> u32 {
  let ofSubgroup = subgroupMin(own);
  if (lane == 0u) { atomicStore(&overRows, NONE); }
  workgroupBarrier();
  if (lane % 32u == 0u) { atomicMin(&overRows, ofSubgroup); }
  return workgroupUniformLoad(&overRows);
}
@diagnostic(off, subgroup_uniformity)
fn tileMost(own: u32, lane: u32) -> u32 {
  let ofSubgroup = subgroupMax(own);
  if (lane == 0u) { atomicStore(&overRows, 0u); }
  workgroupBarrier();
  if (lane % 32u == 0u) { atomicMax(&overRows, ofSubgroup); }
  return workgroupUniformLoad(&overRows);
}
var<workgroup> subgroupsClaimed: atomic<u32>;

alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Sums = subgroup_matrix_result<f32, 16, 16>;
var<workgroup> highA: array<f16, 1280>;
var<workgroup> lowA: array<f16, 1280>;
var<workgroup> highB: array<f16, 1280>;
var<workgroup> lowB: array<f16, 1280>;
var<workgroup> results: array<f32, 1152>;
var<workgroup> rowStarts: array<u32, 32>;
var<workgroup> columnStarts: array<u32, 32>;
var<workgroup> largestKeyAt: atomic<u32>;
var<workgroup> largestValueAt: atomic<u32>;
var<workgroup> largestQueries: atomic<u32>;
var<workgroup> largestGradients: atomic<u32>;
var<workgroup> largestP: atomic<u32>;
var<workgroup> largestDScore: atomic<u32>;
var<workgroup> misfits: atomic<u32>;
fn queryAt(token: u32, head: u32, end: u32) -> u32 { return (min(token, end - 1u) * u.width + u.qFrom) / UNIT + head * HEAD; }
fn resultAt(token: u32, head: u32, end: u32) -> u32 { return min(token, end - 1u) * u.H + head; }
@diagnostic(off, subgroup_uniformity)
fn element(kvHead: u32, tile: u32, lane: u32) {
  var startHeld: array<u32, 2>;
  var endHeld: array<u32, 2>;
  var keyAtHeld: array<u32, 2>;
  var valueAtHeld: array<u32, 2>;
  for (var i = 0u; i < (2u + (u.H >> 31u)); i++) {
    let own = min(tile * 32u + i * 16u + lane / 8u, u.T - 1u);
    let start = own;
    let end = queryEnd[own];
    let keyAt = (own * u.width + u.kFrom) / UNIT + kvHead * HEAD;
    let valueAt = (own * u.width + u.vFrom) / UNIT + kvHead * HEAD;
    startHeld[i] = start;
    endHeld[i] = end;
    keyAtHeld[i] = keyAt;
    valueAtHeld[i] = valueAt;
  }
  let start0: u32 = startHeld[0]; let end0: u32 = endHeld[0]; let keyAt0: u32 = keyAtHeld[0]; let valueAt0: u32 = valueAtHeld[0];
  let start1: u32 = startHeld[1]; let end1: u32 = endHeld[1]; let keyAt1: u32 = keyAtHeld[1]; let valueAt1: u32 = valueAtHeld[1];
  let invocation = lane;
  let ownLane = lane % 32u;
  let partRow = lane / 32u / 2u * 16u;
  let partColumn = lane / 32u % 2u * 16u;
  var scaleKeyAt = 1.0;
  var limitKeyAt = 0.0; // the largest number that fits
  var scaleValueAt = 1.0;
  var limitValueAt = 0.0; // the largest number that fits
  var scaleQueries = 1.0;
  var limitQueries = 0.0; // the largest number that fits
  var scaleGradients = 1.0;
  var limitGradients = 0.0; // the largest number that fits
  var scaleP = 1.0;
  var limitP = 0.0; // the largest number that fits
  var scaleDScore = 1.0;
  var limitDScore = 0.0; // the largest number that fits
  var misfitsBefore = 0u;
  if (invocation == 0u) {
    atomicStore(&largestKeyAt, 0u);
    atomicStore(&largestValueAt, 0u);
    atomicStore(&largestQueries, 0u);
    atomicStore(&largestGradients, 0u);
    atomicStore(&largestP, 0u);
    atomicStore(&largestDScore, 0u);
    atomicStore(&misfits, 0u);
  }
  var dKey: array<vec4f, 4>;
  var dValue: array<vec4f, 4>;
  let last = tileMost(max(end0, end1), lane);
  // Columns of a tile: tokens times `together` heads of the group.
  let together = min(u.groupSize, 32u);
  let tokens = 32u / together;
  let column = lane % 8u * 4u + XU(0, 1, 2, 3);
  let columnToken = column / together;
  for (var firstHead = 0u; firstHead < u.groupSize; firstHead += together) {
    let columnHead = firstHead + column % together;
    let counts = (columnToken < XU(tokens)) & (columnHead < XU(u.groupSize));
    let heads = kvHead * u.groupSize + min(columnHead, XU(u.groupSize - 1u));
    var token = 0u;
    loop {
      token = tileLeast(min(firstFrom(start0, end0, token), firstFrom(start1, end1, token)), lane);
      if (token == NONE) { break; }
      let columns = token + columnToken;
      let results0: u32 = resultAt(columns.x, heads.x, last);
      let results1: u32 = resultAt(columns.y, heads.y, last);
      let results2: u32 = resultAt(columns.z, heads.z, last);
      let results3: u32 = resultAt(columns.w, heads.w, last);
      let gradients0: u32 = results0 * HEAD;
      let gradients1: u32 = results1 * HEAD;
      let gradients2: u32 = results2 * HEAD;
      let gradients3: u32 = results3 * HEAD;
      let queries0: u32 = queryAt(columns.x, heads.x, last);
      let queries1: u32 = queryAt(columns.y, heads.y, last);
      let queries2: u32 = queryAt(columns.z, heads.z, last);
      let queries3: u32 = queryAt(columns.w, heads.w, last);
      let normalizer = X(logSumExp[results0], logSumExp[results1], logSumExp[results2], logSumExp[results3]);
      let rowDelta = X(delta[results0], delta[results1], delta[results2], delta[results3]);
      var s0: X; var s1: X;
      {
        workgroupBarrier();
        if (lane % 8u == 0u) { rowStarts[0u * 16u + lane / 8u] = keyAt0; rowStarts[1u * 16u + lane / 8u] = keyAt1; }
        if (lane < 8u) { columnStarts[lane * 4u + 0u] = queries0; columnStarts[lane * 4u + 1u] = queries1; columnStarts[lane * 4u + 2u] = queries2; columnStarts[lane * 4u + 3u] = queries3; }
        var matrix0_0 = Sums();
        for (var channel = 0u; channel < 64u; channel += 32u) {
          workgroupBarrier();
          for (var attempt = 0u; attempt < (2u + (u.H >> 31u)); attempt++) {
            var mostKeyAt = 0.0;
            var mostQueries = 0.0;
            for (var i = 0u; i < 2u; i++) { let four = i * 128u + invocation;
              let line = four / 8u;
              let at = four % 8u * 4u;
              let read = fusedFour(rowStarts[line], channel + at);
              let to = line * 40u + at;
              let size = select(vec4f(), abs(read), abs(read) <= vec4f(3.4e38));
              mostKeyAt = max(mostKeyAt, max(max(size.x, size.y), max(size.z, size.w)));
              let x = scaleKeyAt * read;
              let rounded = bitcast<vec4f>((bitcast<vec4u>(x) + vec4u(0x1000u)) & vec4u(0xffffe000u));
              let high = vec4h(rounded);
              highA[to] = high[0]; highA[to + 1u] = high[1]; highA[to + 2u] = high[2]; highA[to + 3u] = high[3];
              let low = vec4h(x - rounded);
              lowA[to] = low[0]; lowA[to + 1u] = low[1]; lowA[to + 2u] = low[2]; lowA[to + 3u] = low[3];
            }
            for (var i = 0u; i < 2u; i++) { let four = i * 128u + invocation;
              let line = four / 8u;
              let at = four % 8u * 4u;
              let read = fusedFour(columnStarts[line], channel + at);
              let to = line * 40u + at;
              let size = select(vec4f(), abs(read), abs(read) <= vec4f(3.4e38));
              mostQueries = max(mostQueries, max(max(size.x, size.y), max(size.z, size.w)));
              let x = scaleQueries * read;
              let rounded = bitcast<vec4f>((bitcast<vec4u>(x) + vec4u(0x1000u)) & vec4u(0xffffe000u));
              let high = vec4h(rounded);
              highB[to] = high[0]; highB[to + 1u] = high[1]; highB[to + 2u] = high[2]; highB[to + 3u] = high[3];
              let low = vec4h(x - rounded);
              lowB[to] = low[0]; lowB[to + 1u] = low[1]; lowB[to + 2u] = low[2]; lowB[to + 3u] = low[3];
            }
            if (mostKeyAt > limitKeyAt || mostQueries > limitQueries) {
              atomicMax(&largestKeyAt, bitcast<u32>(mostKeyAt));
              atomicMax(&largestQueries, bitcast<u32>(mostQueries));
              atomicAdd(&misfits, 1u);
            }
            let found = workgroupUniformLoad(&misfits); // a barrier too
            if (found == misfitsBefore) { break; }
            misfitsBefore = found;
            var change = 1.0;
            let allKeyAt = bitcast<f32>(workgroupUniformLoad(&largestKeyAt));
            if (allKeyAt > limitKeyAt) {
              let exponent = max(i32(bitcast<u32>(allKeyAt) >> 23u) - 127, -100);
              let next = bitcast<f32>(u32(127 + 13 - exponent) << 23u);
              if (limitKeyAt > 0.0) { change *= next / scaleKeyAt; }
              scaleKeyAt = next;
              limitKeyAt = 65000.0 / next;
            }
            let allQueries = bitcast<f32>(workgroupUniformLoad(&largestQueries));
            if (allQueries > limitQueries) {
              let exponent = max(i32(bitcast<u32>(allQueries) >> 23u) - 127, -100);
              let next = bitcast<f32>(u32(127 + 13 - exponent) << 23u);
              if (limitQueries > 0.0) { change *= next / scaleQueries; }
              scaleQueries = next;
              limitQueries = 65000.0 / next;
            }
            matrix0_0 = subgroupMatrixScalarMultiply(matrix0_0, change);
          }
          for (var i = 0u; i < 2u; i++) {
            let step = i * 16u;
            let keyAt0_0 = subgroupMatrixLoad<Left, row_major>(&highA, (partRow + 0u) * 40u + step, 40u);
            let keyAt0_1 = subgroupMatrixLoad<Left, row_major>(&lowA, (partRow + 0u) * 40u + step, 40u);
            let queries0_0 = subgroupMatrixLoad<Right, col_major>(&highB, (partColumn + 0u) * 40u + step, 40u);
            let queries0_1 = subgroupMatrixLoad<Right, col_major>(&lowB, (partColumn + 0u) * 40u + step, 40u);
            matrix0_0 = subgroupMatrixMultiplyAccumulate(keyAt0_1, queries0_0, matrix0_0);
            matrix0_0 = subgroupMatrixMultiplyAccumulate(keyAt0_0, queries0_1, matrix0_0);
            matrix0_0 = subgroupMatrixMultiplyAccumulate(keyAt0_0, queries0_0, matrix0_0);
          }
        }
        subgroupMatrixStore<row_major>(&results, (partRow + 0u) * 36u + partColumn + 0u, matrix0_0, 36u);
        workgroupBarrier();
        var own: array<X, 2>;
        own[0u] = vec4f(results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 0u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 1u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 2u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 3u]) * (1.0 / scaleKeyAt) * (1.0 / scaleQueries);
        own[1u] = vec4f(results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 0u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 1u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 2u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 3u]) * (1.0 / scaleKeyAt) * (1.0 / scaleQueries);
        s0 = own[0]; s1 = own[1];
      }
      let p0: X = select(X(), exp(s0 * SCALE - normalizer), counts & (columns >= XU(start0)) & (columns < XU(end0)));
      let p1: X = select(X(), exp(s1 * SCALE - normalizer), counts & (columns >= XU(start1)) & (columns < XU(end1)));
      var along0: X; var along1: X;
      {
        workgroupBarrier();
        if (lane % 8u == 0u) { rowStarts[0u * 16u + lane / 8u] = valueAt0; rowStarts[1u * 16u + lane / 8u] = valueAt1; }
        if (lane < 8u) { columnStarts[lane * 4u + 0u] = gradients0; columnStarts[lane * 4u + 1u] = gradients1; columnStarts[lane * 4u + 2u] = gradients2; columnStarts[lane * 4u + 3u] = gradients3; }
        var matrix0_0 = Sums();
        for (var channel = 0u; channel < 64u; channel += 32u) {
          workgroupBarrier();
          for (var attempt = 0u; attempt < (2u + (u.H >> 31u)); attempt++) {
            var mostValueAt = 0.0;
            var mostGradients = 0.0;
            for (var i = 0u; i < 2u; i++) { let four = i * 128u + invocation;
              let line = four / 8u;
              let at = four % 8u * 4u;
              let read = fusedFour(rowStarts[line], channel + at);
              let to = line * 40u + at;
              let size = select(vec4f(), abs(read), abs(read) <= vec4f(3.4e38));
              mostValueAt = max(mostValueAt, max(max(size.x, size.y), max(size.z, size.w)));
              let x = scaleValueAt * read;
              let rounded = bitcast<vec4f>((bitcast<vec4u>(x) + vec4u(0x1000u)) & vec4u(0xffffe000u));
              let high = vec4h(rounded);
              highA[to] = high[0]; highA[to + 1u] = high[1]; highA[to + 2u] = high[2]; highA[to + 3u] = high[3];
              let low = vec4h(x - rounded);
              lowA[to] = low[0]; lowA[to + 1u] = low[1]; lowA[to + 2u] = low[2]; lowA[to + 3u] = low[3];
            }
            for (var i = 0u; i < 2u; i++) { let four = i * 128u + invocation;
              let line = four / 8u;
              let at = four % 8u * 4u;
              let read = dOutFour(columnStarts[line], channel + at);
              let to = line * 40u + at;
              let size = select(vec4f(), abs(read), abs(read) <= vec4f(3.4e38));
              mostGradients = max(mostGradients, max(max(size.x, size.y), max(size.z, size.w)));
              let x = scaleGradients * read;
              let rounded = bitcast<vec4f>((bitcast<vec4u>(x) + vec4u(0x1000u)) & vec4u(0xffffe000u));
              let high = vec4h(rounded);
              highB[to] = high[0]; highB[to + 1u] = high[1]; highB[to + 2u] = high[2]; highB[to + 3u] = high[3];
              let low = vec4h(x - rounded);
              lowB[to] = low[0]; lowB[to + 1u] = low[1]; lowB[to + 2u] = low[2]; lowB[to + 3u] = low[3];
            }
            if (mostValueAt > limitValueAt || mostGradients > limitGradients) {
              atomicMax(&largestValueAt, bitcast<u32>(mostValueAt));
              atomicMax(&largestGradients, bitcast<u32>(mostGradients));
              atomicAdd(&misfits, 1u);
            }
            let found = workgroupUniformLoad(&misfits); // a barrier too
            if (found == misfitsBefore) { break; }
            misfitsBefore = found;
            var change = 1.0;
            let allValueAt = bitcast<f32>(workgroupUniformLoad(&largestValueAt));
            if (allValueAt > limitValueAt) {
              let exponent = max(i32(bitcast<u32>(allValueAt) >> 23u) - 127, -100);
              let next = bitcast<f32>(u32(127 + 13 - exponent) << 23u);
              if (limitValueAt > 0.0) { change *= next / scaleValueAt; }
              scaleValueAt = next;
              limitValueAt = 65000.0 / next;
            }
            let allGradients = bitcast<f32>(workgroupUniformLoad(&largestGradients));
            if (allGradients > limitGradients) {
              let exponent = max(i32(bitcast<u32>(allGradients) >> 23u) - 127, -100);
              let next = bitcast<f32>(u32(127 + 13 - exponent) << 23u);
              if (limitGradients > 0.0) { change *= next / scaleGradients; }
              scaleGradients = next;
              limitGradients = 65000.0 / next;
            }
            matrix0_0 = subgroupMatrixScalarMultiply(matrix0_0, change);
          }
          for (var i = 0u; i < 2u; i++) {
            let step = i * 16u;
            let valueAt0_0 = subgroupMatrixLoad<Left, row_major>(&highA, (partRow + 0u) * 40u + step, 40u);
            let valueAt0_1 = subgroupMatrixLoad<Left, row_major>(&lowA, (partRow + 0u) * 40u + step, 40u);
            let gradients0_0 = subgroupMatrixLoad<Right, col_major>(&highB, (partColumn + 0u) * 40u + step, 40u);
            let gradients0_1 = subgroupMatrixLoad<Right, col_major>(&lowB, (partColumn + 0u) * 40u + step, 40u);
            matrix0_0 = subgroupMatrixMultiplyAccumulate(valueAt0_1, gradients0_0, matrix0_0);
            matrix0_0 = subgroupMatrixMultiplyAccumulate(valueAt0_0, gradients0_1, matrix0_0);
            matrix0_0 = subgroupMatrixMultiplyAccumulate(valueAt0_0, gradients0_0, matrix0_0);
          }
        }
        subgroupMatrixStore<row_major>(&results, (partRow + 0u) * 36u + partColumn + 0u, matrix0_0, 36u);
        workgroupBarrier();
        var own: array<X, 2>;
        own[0u] = vec4f(results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 0u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 1u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 2u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 3u]) * (1.0 / scaleValueAt) * (1.0 / scaleGradients);
        own[1u] = vec4f(results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 0u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 1u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 2u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 3u]) * (1.0 / scaleValueAt) * (1.0 / scaleGradients);
        along0 = own[0]; along1 = own[1];
      }
      let dScore0: X = p0 * (along0 - rowDelta) * SCALE;
      let dScore1: X = p1 * (along1 - rowDelta) * SCALE;
      {
        workgroupBarrier();
        if (lane < 8u) { columnStarts[lane * 4u + 0u] = gradients0; columnStarts[lane * 4u + 1u] = gradients1; columnStarts[lane * 4u + 2u] = gradients2; columnStarts[lane * 4u + 3u] = gradients3; }
        for (var attempt = 0u; attempt < (2u + (u.H >> 31u)); attempt++) {
          var mostP = 0.0;
          {
            var own = array<X, 2>(p0, p1);
            { let read = own[0u];
              let to = (0u * 16u + lane / 8u) * 40u + lane % 8u * 4u;
              let size = select(vec4f(), abs(read), abs(read) <= vec4f(3.4e38));
              mostP = max(mostP, max(max(size.x, size.y), max(size.z, size.w)));
              let x = scaleP * read;
              let rounded = bitcast<vec4f>((bitcast<vec4u>(x) + vec4u(0x1000u)) & vec4u(0xffffe000u));
              let high = vec4h(rounded);
              highA[to] = high[0]; highA[to + 1u] = high[1]; highA[to + 2u] = high[2]; highA[to + 3u] = high[3];
              let low = vec4h(x - rounded);
              lowA[to] = low[0]; lowA[to + 1u] = low[1]; lowA[to + 2u] = low[2]; lowA[to + 3u] = low[3]; }
            { let read = own[1u];
              let to = (1u * 16u + lane / 8u) * 40u + lane % 8u * 4u;
              let size = select(vec4f(), abs(read), abs(read) <= vec4f(3.4e38));
              mostP = max(mostP, max(max(size.x, size.y), max(size.z, size.w)));
              let x = scaleP * read;
              let rounded = bitcast<vec4f>((bitcast<vec4u>(x) + vec4u(0x1000u)) & vec4u(0xffffe000u));
              let high = vec4h(rounded);
              highA[to] = high[0]; highA[to + 1u] = high[1]; highA[to + 2u] = high[2]; highA[to + 3u] = high[3];
              let low = vec4h(x - rounded);
              lowA[to] = low[0]; lowA[to + 1u] = low[1]; lowA[to + 2u] = low[2]; lowA[to + 3u] = low[3]; }
          }
          if (mostP > limitP) {
            atomicMax(&largestP, bitcast<u32>(mostP));
            atomicAdd(&misfits, 1u);
          }
          let found = workgroupUniformLoad(&misfits); // a barrier too
          if (found == misfitsBefore) { break; }
          misfitsBefore = found;
          let allP = bitcast<f32>(workgroupUniformLoad(&largestP));
          if (allP > limitP) {
            let exponent = max(i32(bitcast<u32>(allP) >> 23u) - 127, -100);
            let next = bitcast<f32>(u32(127 + 13 - exponent) << 23u);
            scaleP = next;
            limitP = 65000.0 / next;
          }
        }
        {
          let channel = 0u * 32u;
          for (var attempt = 0u; attempt < (2u + (u.H >> 31u)); attempt++) {
            var mostGradients = 0.0;
            for (var i = 0u; i < 2u; i++) { let four = i * 128u + invocation;
              let line = four / 8u;
              let at = four % 8u * 4u;
              let read = dOutFour(columnStarts[line], channel + at);
              let to = line * 40u + at;
              let size = select(vec4f(), abs(read), abs(read) <= vec4f(3.4e38));
              mostGradients = max(mostGradients, max(max(size.x, size.y), max(size.z, size.w)));
              let x = scaleGradients * read;
              let rounded = bitcast<vec4f>((bitcast<vec4u>(x) + vec4u(0x1000u)) & vec4u(0xffffe000u));
              let high = vec4h(rounded);
              highB[to] = high[0]; highB[to + 1u] = high[1]; highB[to + 2u] = high[2]; highB[to + 3u] = high[3];
              let low = vec4h(x - rounded);
              lowB[to] = low[0]; lowB[to + 1u] = low[1]; lowB[to + 2u] = low[2]; lowB[to + 3u] = low[3];
            }
            if (mostGradients > limitGradients) {
              atomicMax(&largestGradients, bitcast<u32>(mostGradients));
              atomicAdd(&misfits, 1u);
            }
            let found = workgroupUniformLoad(&misfits); // a barrier too
            if (found == misfitsBefore) { break; }
            misfitsBefore = found;
            let allGradients = bitcast<f32>(workgroupUniformLoad(&largestGradients));
            if (allGradients > limitGradients) {
              let exponent = max(i32(bitcast<u32>(allGradients) >> 23u) - 127, -100);
              let next = bitcast<f32>(u32(127 + 13 - exponent) << 23u);
              scaleGradients = next;
              limitGradients = 65000.0 / next;
            }
          }
          var matrix0_0 = Sums();
          for (var i = 0u; i < 2u; i++) {
            let step = i * 16u;
            let p0_0 = subgroupMatrixLoad<Left, row_major>(&highA, (partRow + 0u) * 40u + step, 40u);
            let p0_1 = subgroupMatrixLoad<Left, row_major>(&lowA, (partRow + 0u) * 40u + step, 40u);
            let gradientsAcross0_0 = subgroupMatrixLoad<Right, row_major>(&highB, step * 40u + partColumn + 0u, 40u);
            let gradientsAcross0_1 = subgroupMatrixLoad<Right, row_major>(&lowB, step * 40u + partColumn + 0u, 40u);
            matrix0_0 = subgroupMatrixMultiplyAccumulate(p0_1, gradientsAcross0_0, matrix0_0);
            matrix0_0 = subgroupMatrixMultiplyAccumulate(p0_0, gradientsAcross0_1, matrix0_0);
            matrix0_0 = subgroupMatrixMultiplyAccumulate(p0_0, gradientsAcross0_0, matrix0_0);
          }
          subgroupMatrixStore<row_major>(&results, (partRow + 0u) * 36u + partColumn + 0u, matrix0_0, 36u);
          workgroupBarrier();
          dValue[0u * 2u + 0u] += vec4f(results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 0u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 1u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 2u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 3u]) * (1.0 / scaleP) * (1.0 / scaleGradients);
          dValue[0u * 2u + 1u] += vec4f(results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 0u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 1u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 2u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 3u]) * (1.0 / scaleP) * (1.0 / scaleGradients);
        }
        {
          let channel = 1u * 32u;
          for (var attempt = 0u; attempt < (2u + (u.H >> 31u)); attempt++) {
            var mostGradients = 0.0;
            for (var i = 0u; i < 2u; i++) { let four = i * 128u + invocation;
              let line = four / 8u;
              let at = four % 8u * 4u;
              let read = dOutFour(columnStarts[line], channel + at);
              let to = line * 40u + at;
              let size = select(vec4f(), abs(read), abs(read) <= vec4f(3.4e38));
              mostGradients = max(mostGradients, max(max(size.x, size.y), max(size.z, size.w)));
              let x = scaleGradients * read;
              let rounded = bitcast<vec4f>((bitcast<vec4u>(x) + vec4u(0x1000u)) & vec4u(0xffffe000u));
              let high = vec4h(rounded);
              highB[to] = high[0]; highB[to + 1u] = high[1]; highB[to + 2u] = high[2]; highB[to + 3u] = high[3];
              let low = vec4h(x - rounded);
              lowB[to] = low[0]; lowB[to + 1u] = low[1]; lowB[to + 2u] = low[2]; lowB[to + 3u] = low[3];
            }
            if (mostGradients > limitGradients) {
              atomicMax(&largestGradients, bitcast<u32>(mostGradients));
              atomicAdd(&misfits, 1u);
            }
            let found = workgroupUniformLoad(&misfits); // a barrier too
            if (found == misfitsBefore) { break; }
            misfitsBefore = found;
            let allGradients = bitcast<f32>(workgroupUniformLoad(&largestGradients));
            if (allGradients > limitGradients) {
              let exponent = max(i32(bitcast<u32>(allGradients) >> 23u) - 127, -100);
              let next = bitcast<f32>(u32(127 + 13 - exponent) << 23u);
              scaleGradients = next;
              limitGradients = 65000.0 / next;
            }
          }
          var matrix0_0 = Sums();
          for (var i = 0u; i < 2u; i++) {
            let step = i * 16u;
            let p0_0 = subgroupMatrixLoad<Left, row_major>(&highA, (partRow + 0u) * 40u + step, 40u);
            let p0_1 = subgroupMatrixLoad<Left, row_major>(&lowA, (partRow + 0u) * 40u + step, 40u);
            let gradientsAcross0_0 = subgroupMatrixLoad<Right, row_major>(&highB, step * 40u + partColumn + 0u, 40u);
            let gradientsAcross0_1 = subgroupMatrixLoad<Right, row_major>(&lowB, step * 40u + partColumn + 0u, 40u);
            matrix0_0 = subgroupMatrixMultiplyAccumulate(p0_1, gradientsAcross0_0, matrix0_0);
            matrix0_0 = subgroupMatrixMultiplyAccumulate(p0_0, gradientsAcross0_1, matrix0_0);
            matrix0_0 = subgroupMatrixMultiplyAccumulate(p0_0, gradientsAcross0_0, matrix0_0);
          }
          subgroupMatrixStore<row_major>(&results, (partRow + 0u) * 36u + partColumn + 0u, matrix0_0, 36u);
          workgroupBarrier();
          dValue[1u * 2u + 0u] += vec4f(results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 0u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 1u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 2u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 3u]) * (1.0 / scaleP) * (1.0 / scaleGradients);
          dValue[1u * 2u + 1u] += vec4f(results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 0u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 1u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 2u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 3u]) * (1.0 / scaleP) * (1.0 / scaleGradients);
        }
      }
      {
        workgroupBarrier();
        if (lane < 8u) { columnStarts[lane * 4u + 0u] = queries0; columnStarts[lane * 4u + 1u] = queries1; columnStarts[lane * 4u + 2u] = queries2; columnStarts[lane * 4u + 3u] = queries3; }
        for (var attempt = 0u; attempt < (2u + (u.H >> 31u)); attempt++) {
          var mostDScore = 0.0;
          {
            var own = array<X, 2>(dScore0, dScore1);
            { let read = own[0u];
              let to = (0u * 16u + lane / 8u) * 40u + lane % 8u * 4u;
              let size = select(vec4f(), abs(read), abs(read) <= vec4f(3.4e38));
              mostDScore = max(mostDScore, max(max(size.x, size.y), max(size.z, size.w)));
              let x = scaleDScore * read;
              let rounded = bitcast<vec4f>((bitcast<vec4u>(x) + vec4u(0x1000u)) & vec4u(0xffffe000u));
              let high = vec4h(rounded);
              highA[to] = high[0]; highA[to + 1u] = high[1]; highA[to + 2u] = high[2]; highA[to + 3u] = high[3];
              let low = vec4h(x - rounded);
              lowA[to] = low[0]; lowA[to + 1u] = low[1]; lowA[to + 2u] = low[2]; lowA[to + 3u] = low[3]; }
            { let read = own[1u];
              let to = (1u * 16u + lane / 8u) * 40u + lane % 8u * 4u;
              let size = select(vec4f(), abs(read), abs(read) <= vec4f(3.4e38));
              mostDScore = max(mostDScore, max(max(size.x, size.y), max(size.z, size.w)));
              let x = scaleDScore * read;
              let rounded = bitcast<vec4f>((bitcast<vec4u>(x) + vec4u(0x1000u)) & vec4u(0xffffe000u));
              let high = vec4h(rounded);
              highA[to] = high[0]; highA[to + 1u] = high[1]; highA[to + 2u] = high[2]; highA[to + 3u] = high[3];
              let low = vec4h(x - rounded);
              lowA[to] = low[0]; lowA[to + 1u] = low[1]; lowA[to + 2u] = low[2]; lowA[to + 3u] = low[3]; }
          }
          if (mostDScore > limitDScore) {
            atomicMax(&largestDScore, bitcast<u32>(mostDScore));
            atomicAdd(&misfits, 1u);
          }
          let found = workgroupUniformLoad(&misfits); // a barrier too
          if (found == misfitsBefore) { break; }
          misfitsBefore = found;
          let allDScore = bitcast<f32>(workgroupUniformLoad(&largestDScore));
          if (allDScore > limitDScore) {
            let exponent = max(i32(bitcast<u32>(allDScore) >> 23u) - 127, -100);
            let next = bitcast<f32>(u32(127 + 13 - exponent) << 23u);
            scaleDScore = next;
            limitDScore = 65000.0 / next;
          }
        }
        {
          let channel = 0u * 32u;
          for (var attempt = 0u; attempt < (2u + (u.H >> 31u)); attempt++) {
            var mostQueries = 0.0;
            for (var i = 0u; i < 2u; i++) { let four = i * 128u + invocation;
              let line = four / 8u;
              let at = four % 8u * 4u;
              let read = fusedFour(columnStarts[line], channel + at);
              let to = line * 40u + at;
              let size = select(vec4f(), abs(read), abs(read) <= vec4f(3.4e38));
              mostQueries = max(mostQueries, max(max(size.x, size.y), max(size.z, size.w)));
              let x = scaleQueries * read;
              let rounded = bitcast<vec4f>((bitcast<vec4u>(x) + vec4u(0x1000u)) & vec4u(0xffffe000u));
              let high = vec4h(rounded);
              highB[to] = high[0]; highB[to + 1u] = high[1]; highB[to + 2u] = high[2]; highB[to + 3u] = high[3];
              let low = vec4h(x - rounded);
              lowB[to] = low[0]; lowB[to + 1u] = low[1]; lowB[to + 2u] = low[2]; lowB[to + 3u] = low[3];
            }
            if (mostQueries > limitQueries) {
              atomicMax(&largestQueries, bitcast<u32>(mostQueries));
              atomicAdd(&misfits, 1u);
            }
            let found = workgroupUniformLoad(&misfits); // a barrier too
            if (found == misfitsBefore) { break; }
            misfitsBefore = found;
            let allQueries = bitcast<f32>(workgroupUniformLoad(&largestQueries));
            if (allQueries > limitQueries) {
              let exponent = max(i32(bitcast<u32>(allQueries) >> 23u) - 127, -100);
              let next = bitcast<f32>(u32(127 + 13 - exponent) << 23u);
              scaleQueries = next;
              limitQueries = 65000.0 / next;
            }
          }
          var matrix0_0 = Sums();
          for (var i = 0u; i < 2u; i++) {
            let step = i * 16u;
            let dScore0_0 = subgroupMatrixLoad<Left, row_major>(&highA, (partRow + 0u) * 40u + step, 40u);
            let dScore0_1 = subgroupMatrixLoad<Left, row_major>(&lowA, (partRow + 0u) * 40u + step, 40u);
            let queriesAcross0_0 = subgroupMatrixLoad<Right, row_major>(&highB, step * 40u + partColumn + 0u, 40u);
            let queriesAcross0_1 = subgroupMatrixLoad<Right, row_major>(&lowB, step * 40u + partColumn + 0u, 40u);
            matrix0_0 = subgroupMatrixMultiplyAccumulate(dScore0_1, queriesAcross0_0, matrix0_0);
            matrix0_0 = subgroupMatrixMultiplyAccumulate(dScore0_0, queriesAcross0_1, matrix0_0);
            matrix0_0 = subgroupMatrixMultiplyAccumulate(dScore0_0, queriesAcross0_0, matrix0_0);
          }
          subgroupMatrixStore<row_major>(&results, (partRow + 0u) * 36u + partColumn + 0u, matrix0_0, 36u);
          workgroupBarrier();
          dKey[0u * 2u + 0u] += vec4f(results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 0u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 1u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 2u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 3u]) * (1.0 / scaleDScore) * (1.0 / scaleQueries);
          dKey[0u * 2u + 1u] += vec4f(results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 0u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 1u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 2u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 3u]) * (1.0 / scaleDScore) * (1.0 / scaleQueries);
        }
        {
          let channel = 1u * 32u;
          for (var attempt = 0u; attempt < (2u + (u.H >> 31u)); attempt++) {
            var mostQueries = 0.0;
            for (var i = 0u; i < 2u; i++) { let four = i * 128u + invocation;
              let line = four / 8u;
              let at = four % 8u * 4u;
              let read = fusedFour(columnStarts[line], channel + at);
              let to = line * 40u + at;
              let size = select(vec4f(), abs(read), abs(read) <= vec4f(3.4e38));
              mostQueries = max(mostQueries, max(max(size.x, size.y), max(size.z, size.w)));
              let x = scaleQueries * read;
              let rounded = bitcast<vec4f>((bitcast<vec4u>(x) + vec4u(0x1000u)) & vec4u(0xffffe000u));
              let high = vec4h(rounded);
              highB[to] = high[0]; highB[to + 1u] = high[1]; highB[to + 2u] = high[2]; highB[to + 3u] = high[3];
              let low = vec4h(x - rounded);
              lowB[to] = low[0]; lowB[to + 1u] = low[1]; lowB[to + 2u] = low[2]; lowB[to + 3u] = low[3];
            }
            if (mostQueries > limitQueries) {
              atomicMax(&largestQueries, bitcast<u32>(mostQueries));
              atomicAdd(&misfits, 1u);
            }
            let found = workgroupUniformLoad(&misfits); // a barrier too
            if (found == misfitsBefore) { break; }
            misfitsBefore = found;
            let allQueries = bitcast<f32>(workgroupUniformLoad(&largestQueries));
            if (allQueries > limitQueries) {
              let exponent = max(i32(bitcast<u32>(allQueries) >> 23u) - 127, -100);
              let next = bitcast<f32>(u32(127 + 13 - exponent) << 23u);
              scaleQueries = next;
              limitQueries = 65000.0 / next;
            }
          }
          var matrix0_0 = Sums();
          for (var i = 0u; i < 2u; i++) {
            let step = i * 16u;
            let dScore0_0 = subgroupMatrixLoad<Left, row_major>(&highA, (partRow + 0u) * 40u + step, 40u);
            let dScore0_1 = subgroupMatrixLoad<Left, row_major>(&lowA, (partRow + 0u) * 40u + step, 40u);
            let queriesAcross0_0 = subgroupMatrixLoad<Right, row_major>(&highB, step * 40u + partColumn + 0u, 40u);
            let queriesAcross0_1 = subgroupMatrixLoad<Right, row_major>(&lowB, step * 40u + partColumn + 0u, 40u);
            matrix0_0 = subgroupMatrixMultiplyAccumulate(dScore0_1, queriesAcross0_0, matrix0_0);
            matrix0_0 = subgroupMatrixMultiplyAccumulate(dScore0_0, queriesAcross0_1, matrix0_0);
            matrix0_0 = subgroupMatrixMultiplyAccumulate(dScore0_0, queriesAcross0_0, matrix0_0);
          }
          subgroupMatrixStore<row_major>(&results, (partRow + 0u) * 36u + partColumn + 0u, matrix0_0, 36u);
          workgroupBarrier();
          dKey[1u * 2u + 0u] += vec4f(results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 0u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 1u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 2u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 3u]) * (1.0 / scaleDScore) * (1.0 / scaleQueries);
          dKey[1u * 2u + 1u] += vec4f(results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 0u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 1u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 2u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 3u]) * (1.0 / scaleDScore) * (1.0 / scaleQueries);
        }
      }
      token += tokens;
    }
  }
  store(keyAt0, 0u * 32u + lane % 8u * 4u, dKey[0u * 2u + 0u]);
  store(keyAt1, 0u * 32u + lane % 8u * 4u, dKey[0u * 2u + 1u]);
  store(keyAt0, 1u * 32u + lane % 8u * 4u, dKey[1u * 2u + 0u]);
  store(keyAt1, 1u * 32u + lane % 8u * 4u, dKey[1u * 2u + 1u]);
  store(valueAt0, 0u * 32u + lane % 8u * 4u, dValue[0u * 2u + 0u]);
  store(valueAt1, 0u * 32u + lane % 8u * 4u, dValue[0u * 2u + 1u]);
  store(valueAt0, 1u * 32u + lane % 8u * 4u, dValue[1u * 2u + 0u]);
  store(valueAt1, 1u * 32u + lane % 8u * 4u, dValue[1u * 2u + 1u]);
}

fn linearGroup(id: vec3u) -> u32 { return id.x + id.y * 32768u; }

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) invocation: u32, @builtin(subgroup_invocation_id) ownLane: u32) {
  var claim: u32 = 0u;
  if (subgroupElect()) { claim = atomicAdd(&subgroupsClaimed, 1u); }
  let subgroup = subgroupBroadcastFirst(claim);
  let tiles = ((u.T + 31u) / 32u);
  let index = linearGroup(placeInGrid(group));
  if (index >= tiles * (u.H / u.groupSize)) { return; }
  element(index / tiles, index % tiles, subgroup * 32u + ownLane);
}
