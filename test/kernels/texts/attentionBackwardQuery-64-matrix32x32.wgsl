// attentionBackwardQuery: head size 64, subgroups of 32 with matrices of f16, 16 x 16 x 16, tile matrix32x32.

enable subgroups;
enable f16;
enable chromium_experimental_subgroup_matrix;
diagnostic(off, chromium.subgroup_matrix_uniformity);
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
alias X = vec4f;
alias XU = vec4u;
const UNIT: u32 = 4u;
const HEAD: u32 = 16u;
const SCALE: f32 = 0.125;
const NONE: u32 = 0xffffffffu;
fn fusedFour(start: u32, d: u32) -> vec4f { return fused[start + d / 4u]; }
fn outFour(start: u32, d: u32) -> vec4f { return out[start + d / 4u]; }
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
var<workgroup> largestQuery: atomic<u32>;
var<workgroup> largestGradient: atomic<u32>;
var<workgroup> largestKeys: atomic<u32>;
var<workgroup> largestValues: atomic<u32>;
var<workgroup> largestDScore: atomic<u32>;
var<workgroup> misfits: atomic<u32>;
fn keyAt(key: u32, kvHead: u32, end: u32) -> u32 { return (min(key, end - 1u) * u.width + u.kFrom) / UNIT + kvHead * HEAD; }
fn valueAt(key: u32, kvHead: u32, end: u32) -> u32 { return (min(key, end - 1u) * u.width + u.vFrom) / UNIT + kvHead * HEAD; }
@diagnostic(off, subgroup_uniformity)
fn element(kvHead: u32, tile: u32, lane: u32) {
  var queryHeld: array<u32, 2>;
  var gradientHeld: array<u32, 2>;
  var resultHeld: array<u32, 2>;
  var normalizerHeld: array<f32, 2>;
  var startHeld: array<u32, 2>;
  var endHeld: array<u32, 2>;
  var rowDeltaHeld: array<f32, 2>;
  for (var i = 0u; i < (2u + (u.H >> 31u)); i++) {
    let own = min(tile * 32u + i * 16u + lane / 8u, u.T * u.groupSize - 1u);
    let token = own / u.groupSize;
    let head = kvHead * u.groupSize + own % u.groupSize;
    let result = token * u.H + head;
    let query = (token * u.width + u.qFrom) / UNIT + head * HEAD;
    let gradient = result * HEAD;
    let normalizer = logSumExp[result];
    let start = ranges[token].z;
    let end = ranges[token].w;
    var rowDelta = 0.0;
    for (var d = 0u; d < (64u + (u.H >> 31u)); d += 4u) { rowDelta += dot(dOutFour(gradient, d), outFour(gradient, d)); }
    queryHeld[i] = query;
    gradientHeld[i] = gradient;
    resultHeld[i] = result;
    normalizerHeld[i] = normalizer;
    startHeld[i] = start;
    endHeld[i] = end;
    rowDeltaHeld[i] = rowDelta;
  }
  let query0: u32 = queryHeld[0]; let gradient0: u32 = gradientHeld[0]; let result0: u32 = resultHeld[0]; let normalizer0: f32 = normalizerHeld[0]; let start0: u32 = startHeld[0]; let end0: u32 = endHeld[0]; let rowDelta0: f32 = rowDeltaHeld[0];
  let query1: u32 = queryHeld[1]; let gradient1: u32 = gradientHeld[1]; let result1: u32 = resultHeld[1]; let normalizer1: f32 = normalizerHeld[1]; let start1: u32 = startHeld[1]; let end1: u32 = endHeld[1]; let rowDelta1: f32 = rowDeltaHeld[1];
  let invocation = lane;
  let ownLane = lane % 32u;
  let partRow = lane / 32u / 2u * 16u;
  let partColumn = lane / 32u % 2u * 16u;
  var scaleQuery = 1.0;
  var limitQuery = 0.0; // the largest number that fits
  var scaleGradient = 1.0;
  var limitGradient = 0.0; // the largest number that fits
  var scaleKeys = 1.0;
  var limitKeys = 0.0; // the largest number that fits
  var scaleValues = 1.0;
  var limitValues = 0.0; // the largest number that fits
  var scaleDScore = 1.0;
  var limitDScore = 0.0; // the largest number that fits
  var misfitsBefore = 0u;
  if (invocation == 0u) {
    atomicStore(&largestQuery, 0u);
    atomicStore(&largestGradient, 0u);
    atomicStore(&largestKeys, 0u);
    atomicStore(&largestValues, 0u);
    atomicStore(&largestDScore, 0u);
    atomicStore(&misfits, 0u);
  }
  var sum: array<vec4f, 4>;
  let last = tileMost(max(end0, end1), lane);
  var key = 0u;
  loop {
    key = tileLeast(min(firstFrom(start0, end0, key), firstFrom(start1, end1, key)), lane);
    if (key == NONE) { break; }
    let columns = key + lane % 8u * 4u + XU(0, 1, 2, 3);
    let keys0: u32 = keyAt(columns.x, kvHead, last);
    let keys1: u32 = keyAt(columns.y, kvHead, last);
    let keys2: u32 = keyAt(columns.z, kvHead, last);
    let keys3: u32 = keyAt(columns.w, kvHead, last);
    let values0: u32 = valueAt(columns.x, kvHead, last);
    let values1: u32 = valueAt(columns.y, kvHead, last);
    let values2: u32 = valueAt(columns.z, kvHead, last);
    let values3: u32 = valueAt(columns.w, kvHead, last);
    var s0: X; var s1: X;
    {
      workgroupBarrier();
      if (lane % 8u == 0u) { rowStarts[0u * 16u + lane / 8u] = query0; rowStarts[1u * 16u + lane / 8u] = query1; }
      if (lane < 8u) { columnStarts[lane * 4u + 0u] = keys0; columnStarts[lane * 4u + 1u] = keys1; columnStarts[lane * 4u + 2u] = keys2; columnStarts[lane * 4u + 3u] = keys3; }
      var matrix0_0 = Sums();
      for (var channel = 0u; channel < 64u; channel += 32u) {
        workgroupBarrier();
        for (var attempt = 0u; attempt < (2u + (u.H >> 31u)); attempt++) {
          var mostQuery = 0.0;
          var mostKeys = 0.0;
          for (var i = 0u; i < 2u; i++) { let four = i * 128u + invocation;
            let line = four / 8u;
            let at = four % 8u * 4u;
            let read = fusedFour(rowStarts[line], channel + at);
            let to = line * 40u + at;
            let size = select(vec4f(), abs(read), abs(read) <= vec4f(3.4e38));
            mostQuery = max(mostQuery, max(max(size.x, size.y), max(size.z, size.w)));
            let x = scaleQuery * read;
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
            mostKeys = max(mostKeys, max(max(size.x, size.y), max(size.z, size.w)));
            let x = scaleKeys * read;
            let rounded = bitcast<vec4f>((bitcast<vec4u>(x) + vec4u(0x1000u)) & vec4u(0xffffe000u));
            let high = vec4h(rounded);
            highB[to] = high[0]; highB[to + 1u] = high[1]; highB[to + 2u] = high[2]; highB[to + 3u] = high[3];
            let low = vec4h(x - rounded);
            lowB[to] = low[0]; lowB[to + 1u] = low[1]; lowB[to + 2u] = low[2]; lowB[to + 3u] = low[3];
          }
          if (mostQuery > limitQuery || mostKeys > limitKeys) {
            atomicMax(&largestQuery, bitcast<u32>(mostQuery));
            atomicMax(&largestKeys, bitcast<u32>(mostKeys));
            atomicAdd(&misfits, 1u);
          }
          let found = workgroupUniformLoad(&misfits); // a barrier too
          if (found == misfitsBefore) { break; }
          misfitsBefore = found;
          var change = 1.0;
          let allQuery = bitcast<f32>(workgroupUniformLoad(&largestQuery));
          if (allQuery > limitQuery) {
            let exponent = max(i32(bitcast<u32>(allQuery) >> 23u) - 127, -100);
            let next = bitcast<f32>(u32(127 + 13 - exponent) << 23u);
            if (limitQuery > 0.0) { change *= next / scaleQuery; }
            scaleQuery = next;
            limitQuery = 65000.0 / next;
          }
          let allKeys = bitcast<f32>(workgroupUniformLoad(&largestKeys));
          if (allKeys > limitKeys) {
            let exponent = max(i32(bitcast<u32>(allKeys) >> 23u) - 127, -100);
            let next = bitcast<f32>(u32(127 + 13 - exponent) << 23u);
            if (limitKeys > 0.0) { change *= next / scaleKeys; }
            scaleKeys = next;
            limitKeys = 65000.0 / next;
          }
          matrix0_0 = subgroupMatrixScalarMultiply(matrix0_0, change);
        }
        for (var i = 0u; i < 2u; i++) {
          let step = i * 16u;
          let query0_0 = subgroupMatrixLoad<Left, row_major>(&highA, (partRow + 0u) * 40u + step, 40u);
          let query0_1 = subgroupMatrixLoad<Left, row_major>(&lowA, (partRow + 0u) * 40u + step, 40u);
          let keys0_0 = subgroupMatrixLoad<Right, col_major>(&highB, (partColumn + 0u) * 40u + step, 40u);
          let keys0_1 = subgroupMatrixLoad<Right, col_major>(&lowB, (partColumn + 0u) * 40u + step, 40u);
          matrix0_0 = subgroupMatrixMultiplyAccumulate(query0_1, keys0_0, matrix0_0);
          matrix0_0 = subgroupMatrixMultiplyAccumulate(query0_0, keys0_1, matrix0_0);
          matrix0_0 = subgroupMatrixMultiplyAccumulate(query0_0, keys0_0, matrix0_0);
        }
      }
      subgroupMatrixStore<row_major>(&results, (partRow + 0u) * 36u + partColumn + 0u, matrix0_0, 36u);
      workgroupBarrier();
      var own: array<X, 2>;
      own[0u] = vec4f(results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 0u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 1u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 2u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 3u]) * (1.0 / scaleQuery) * (1.0 / scaleKeys);
      own[1u] = vec4f(results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 0u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 1u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 2u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 3u]) * (1.0 / scaleQuery) * (1.0 / scaleKeys);
      s0 = own[0]; s1 = own[1];
    }
    let p0: X = select(X(), exp(s0 * SCALE - normalizer0), (columns >= XU(start0)) & (columns < XU(end0)));
    let p1: X = select(X(), exp(s1 * SCALE - normalizer1), (columns >= XU(start1)) & (columns < XU(end1)));
    var along0: X; var along1: X;
    {
      workgroupBarrier();
      if (lane % 8u == 0u) { rowStarts[0u * 16u + lane / 8u] = gradient0; rowStarts[1u * 16u + lane / 8u] = gradient1; }
      if (lane < 8u) { columnStarts[lane * 4u + 0u] = values0; columnStarts[lane * 4u + 1u] = values1; columnStarts[lane * 4u + 2u] = values2; columnStarts[lane * 4u + 3u] = values3; }
      var matrix0_0 = Sums();
      for (var channel = 0u; channel < 64u; channel += 32u) {
        workgroupBarrier();
        for (var attempt = 0u; attempt < (2u + (u.H >> 31u)); attempt++) {
          var mostGradient = 0.0;
          var mostValues = 0.0;
          for (var i = 0u; i < 2u; i++) { let four = i * 128u + invocation;
            let line = four / 8u;
            let at = four % 8u * 4u;
            let read = dOutFour(rowStarts[line], channel + at);
            let to = line * 40u + at;
            let size = select(vec4f(), abs(read), abs(read) <= vec4f(3.4e38));
            mostGradient = max(mostGradient, max(max(size.x, size.y), max(size.z, size.w)));
            let x = scaleGradient * read;
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
            mostValues = max(mostValues, max(max(size.x, size.y), max(size.z, size.w)));
            let x = scaleValues * read;
            let rounded = bitcast<vec4f>((bitcast<vec4u>(x) + vec4u(0x1000u)) & vec4u(0xffffe000u));
            let high = vec4h(rounded);
            highB[to] = high[0]; highB[to + 1u] = high[1]; highB[to + 2u] = high[2]; highB[to + 3u] = high[3];
            let low = vec4h(x - rounded);
            lowB[to] = low[0]; lowB[to + 1u] = low[1]; lowB[to + 2u] = low[2]; lowB[to + 3u] = low[3];
          }
          if (mostGradient > limitGradient || mostValues > limitValues) {
            atomicMax(&largestGradient, bitcast<u32>(mostGradient));
            atomicMax(&largestValues, bitcast<u32>(mostValues));
            atomicAdd(&misfits, 1u);
          }
          let found = workgroupUniformLoad(&misfits); // a barrier too
          if (found == misfitsBefore) { break; }
          misfitsBefore = found;
          var change = 1.0;
          let allGradient = bitcast<f32>(workgroupUniformLoad(&largestGradient));
          if (allGradient > limitGradient) {
            let exponent = max(i32(bitcast<u32>(allGradient) >> 23u) - 127, -100);
            let next = bitcast<f32>(u32(127 + 13 - exponent) << 23u);
            if (limitGradient > 0.0) { change *= next / scaleGradient; }
            scaleGradient = next;
            limitGradient = 65000.0 / next;
          }
          let allValues = bitcast<f32>(workgroupUniformLoad(&largestValues));
          if (allValues > limitValues) {
            let exponent = max(i32(bitcast<u32>(allValues) >> 23u) - 127, -100);
            let next = bitcast<f32>(u32(127 + 13 - exponent) << 23u);
            if (limitValues > 0.0) { change *= next / scaleValues; }
            scaleValues = next;
            limitValues = 65000.0 / next;
          }
          matrix0_0 = subgroupMatrixScalarMultiply(matrix0_0, change);
        }
        for (var i = 0u; i < 2u; i++) {
          let step = i * 16u;
          let gradient0_0 = subgroupMatrixLoad<Left, row_major>(&highA, (partRow + 0u) * 40u + step, 40u);
          let gradient0_1 = subgroupMatrixLoad<Left, row_major>(&lowA, (partRow + 0u) * 40u + step, 40u);
          let values0_0 = subgroupMatrixLoad<Right, col_major>(&highB, (partColumn + 0u) * 40u + step, 40u);
          let values0_1 = subgroupMatrixLoad<Right, col_major>(&lowB, (partColumn + 0u) * 40u + step, 40u);
          matrix0_0 = subgroupMatrixMultiplyAccumulate(gradient0_1, values0_0, matrix0_0);
          matrix0_0 = subgroupMatrixMultiplyAccumulate(gradient0_0, values0_1, matrix0_0);
          matrix0_0 = subgroupMatrixMultiplyAccumulate(gradient0_0, values0_0, matrix0_0);
        }
      }
      subgroupMatrixStore<row_major>(&results, (partRow + 0u) * 36u + partColumn + 0u, matrix0_0, 36u);
      workgroupBarrier();
      var own: array<X, 2>;
      own[0u] = vec4f(results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 0u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 1u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 2u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 3u]) * (1.0 / scaleGradient) * (1.0 / scaleValues);
      own[1u] = vec4f(results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 0u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 1u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 2u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 3u]) * (1.0 / scaleGradient) * (1.0 / scaleValues);
      along0 = own[0]; along1 = own[1];
    }
    let dScore0: X = p0 * (along0 - rowDelta0) * SCALE;
    let dScore1: X = p1 * (along1 - rowDelta1) * SCALE;
    {
      workgroupBarrier();
      if (lane < 8u) { columnStarts[lane * 4u + 0u] = keys0; columnStarts[lane * 4u + 1u] = keys1; columnStarts[lane * 4u + 2u] = keys2; columnStarts[lane * 4u + 3u] = keys3; }
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
          var mostKeys = 0.0;
          for (var i = 0u; i < 2u; i++) { let four = i * 128u + invocation;
            let line = four / 8u;
            let at = four % 8u * 4u;
            let read = fusedFour(columnStarts[line], channel + at);
            let to = line * 40u + at;
            let size = select(vec4f(), abs(read), abs(read) <= vec4f(3.4e38));
            mostKeys = max(mostKeys, max(max(size.x, size.y), max(size.z, size.w)));
            let x = scaleKeys * read;
            let rounded = bitcast<vec4f>((bitcast<vec4u>(x) + vec4u(0x1000u)) & vec4u(0xffffe000u));
            let high = vec4h(rounded);
            highB[to] = high[0]; highB[to + 1u] = high[1]; highB[to + 2u] = high[2]; highB[to + 3u] = high[3];
            let low = vec4h(x - rounded);
            lowB[to] = low[0]; lowB[to + 1u] = low[1]; lowB[to + 2u] = low[2]; lowB[to + 3u] = low[3];
          }
          if (mostKeys > limitKeys) {
            atomicMax(&largestKeys, bitcast<u32>(mostKeys));
            atomicAdd(&misfits, 1u);
          }
          let found = workgroupUniformLoad(&misfits); // a barrier too
          if (found == misfitsBefore) { break; }
          misfitsBefore = found;
          let allKeys = bitcast<f32>(workgroupUniformLoad(&largestKeys));
          if (allKeys > limitKeys) {
            let exponent = max(i32(bitcast<u32>(allKeys) >> 23u) - 127, -100);
            let next = bitcast<f32>(u32(127 + 13 - exponent) << 23u);
            scaleKeys = next;
            limitKeys = 65000.0 / next;
          }
        }
        var matrix0_0 = Sums();
        for (var i = 0u; i < 2u; i++) {
          let step = i * 16u;
          let dScore0_0 = subgroupMatrixLoad<Left, row_major>(&highA, (partRow + 0u) * 40u + step, 40u);
          let dScore0_1 = subgroupMatrixLoad<Left, row_major>(&lowA, (partRow + 0u) * 40u + step, 40u);
          let keysAcross0_0 = subgroupMatrixLoad<Right, row_major>(&highB, step * 40u + partColumn + 0u, 40u);
          let keysAcross0_1 = subgroupMatrixLoad<Right, row_major>(&lowB, step * 40u + partColumn + 0u, 40u);
          matrix0_0 = subgroupMatrixMultiplyAccumulate(dScore0_1, keysAcross0_0, matrix0_0);
          matrix0_0 = subgroupMatrixMultiplyAccumulate(dScore0_0, keysAcross0_1, matrix0_0);
          matrix0_0 = subgroupMatrixMultiplyAccumulate(dScore0_0, keysAcross0_0, matrix0_0);
        }
        subgroupMatrixStore<row_major>(&results, (partRow + 0u) * 36u + partColumn + 0u, matrix0_0, 36u);
        workgroupBarrier();
        sum[0u * 2u + 0u] += vec4f(results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 0u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 1u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 2u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 3u]) * (1.0 / scaleDScore) * (1.0 / scaleKeys);
        sum[0u * 2u + 1u] += vec4f(results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 0u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 1u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 2u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 3u]) * (1.0 / scaleDScore) * (1.0 / scaleKeys);
      }
      {
        let channel = 1u * 32u;
        for (var attempt = 0u; attempt < (2u + (u.H >> 31u)); attempt++) {
          var mostKeys = 0.0;
          for (var i = 0u; i < 2u; i++) { let four = i * 128u + invocation;
            let line = four / 8u;
            let at = four % 8u * 4u;
            let read = fusedFour(columnStarts[line], channel + at);
            let to = line * 40u + at;
            let size = select(vec4f(), abs(read), abs(read) <= vec4f(3.4e38));
            mostKeys = max(mostKeys, max(max(size.x, size.y), max(size.z, size.w)));
            let x = scaleKeys * read;
            let rounded = bitcast<vec4f>((bitcast<vec4u>(x) + vec4u(0x1000u)) & vec4u(0xffffe000u));
            let high = vec4h(rounded);
            highB[to] = high[0]; highB[to + 1u] = high[1]; highB[to + 2u] = high[2]; highB[to + 3u] = high[3];
            let low = vec4h(x - rounded);
            lowB[to] = low[0]; lowB[to + 1u] = low[1]; lowB[to + 2u] = low[2]; lowB[to + 3u] = low[3];
          }
          if (mostKeys > limitKeys) {
            atomicMax(&largestKeys, bitcast<u32>(mostKeys));
            atomicAdd(&misfits, 1u);
          }
          let found = workgroupUniformLoad(&misfits); // a barrier too
          if (found == misfitsBefore) { break; }
          misfitsBefore = found;
          let allKeys = bitcast<f32>(workgroupUniformLoad(&largestKeys));
          if (allKeys > limitKeys) {
            let exponent = max(i32(bitcast<u32>(allKeys) >> 23u) - 127, -100);
            let next = bitcast<f32>(u32(127 + 13 - exponent) << 23u);
            scaleKeys = next;
            limitKeys = 65000.0 / next;
          }
        }
        var matrix0_0 = Sums();
        for (var i = 0u; i < 2u; i++) {
          let step = i * 16u;
          let dScore0_0 = subgroupMatrixLoad<Left, row_major>(&highA, (partRow + 0u) * 40u + step, 40u);
          let dScore0_1 = subgroupMatrixLoad<Left, row_major>(&lowA, (partRow + 0u) * 40u + step, 40u);
          let keysAcross0_0 = subgroupMatrixLoad<Right, row_major>(&highB, step * 40u + partColumn + 0u, 40u);
          let keysAcross0_1 = subgroupMatrixLoad<Right, row_major>(&lowB, step * 40u + partColumn + 0u, 40u);
          matrix0_0 = subgroupMatrixMultiplyAccumulate(dScore0_1, keysAcross0_0, matrix0_0);
          matrix0_0 = subgroupMatrixMultiplyAccumulate(dScore0_0, keysAcross0_1, matrix0_0);
          matrix0_0 = subgroupMatrixMultiplyAccumulate(dScore0_0, keysAcross0_0, matrix0_0);
        }
        subgroupMatrixStore<row_major>(&results, (partRow + 0u) * 36u + partColumn + 0u, matrix0_0, 36u);
        workgroupBarrier();
        sum[1u * 2u + 0u] += vec4f(results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 0u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 1u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 2u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 3u]) * (1.0 / scaleDScore) * (1.0 / scaleKeys);
        sum[1u * 2u + 1u] += vec4f(results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 0u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 1u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 2u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 3u]) * (1.0 / scaleDScore) * (1.0 / scaleKeys);
      }
    }
    key += 32u;
  }
  store(query0, 0u * 32u + lane % 8u * 4u, sum[0u * 2u + 0u]);
  store(query1, 0u * 32u + lane % 8u * 4u, sum[0u * 2u + 1u]);
  store(query0, 1u * 32u + lane % 8u * 4u, sum[1u * 2u + 0u]);
  store(query1, 1u * 32u + lane % 8u * 4u, sum[1u * 2u + 1u]);
  {
    var values = array<f32, 2>(rowDelta0, rowDelta1);
    var places = array<u32, 2>(result0, result1);
    for (var i = 0u; i < (2u + (u.H >> 31u)); i++) {
      if (lane % 8u == 0u) { delta[places[i]] = values[i]; }
    }
  }
}

fn linearGroup(id: vec3u) -> u32 { return id.x + id.y * 32768u; }

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) invocation: u32, @builtin(subgroup_invocation_id) ownLane: u32) {
  var claim: u32 = 0u;
  if (subgroupElect()) { claim = atomicAdd(&subgroupsClaimed, 1u); }
  let subgroup = subgroupBroadcastFirst(claim);
  let tiles = ((u.T * u.groupSize + 31u) / 32u);
  let index = linearGroup(placeInGrid(group));
  if (index >= tiles * (u.H / u.groupSize)) { return; }
  element(index / tiles, index % tiles, subgroup * 32u + ownLane);
}
