// attentionForward: head size 64, subgroups of 32 with matrices of f16, 16 x 16 x 16, tile matrix32x32.

enable subgroups;
enable f16;
enable chromium_experimental_subgroup_matrix;
diagnostic(off, chromium.subgroup_matrix_uniformity);
struct Uniforms { T: u32, S: u32, H: u32, groupSize: u32, qWidth: u32, kWidth: u32, vWidth: u32, qFrom: u32, kFrom: u32, vFrom: u32, keysPerRow: f32, firstGroupX: u32, firstGroupY: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> q: array<vec4f>;
@group(0) @binding(2) var<storage, read> k: array<vec4f>;
@group(0) @binding(3) var<storage, read> v: array<vec4f>;
@group(0) @binding(4) var<storage, read> ranges: array<vec4u>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4f>;
@group(0) @binding(6) var<storage, read_write> logSumExp: array<f32>;
fn placeInGrid(group: vec3u) -> vec3u { return group + vec3u(u.firstGroupX, u.firstGroupY, 0u); }

alias E = vec4f;
alias X = vec4f;
alias XU = vec4u;
const UNIT: u32 = 4u;
const HEAD: u32 = 16u;
const SCALE: f32 = 0.125;
const NONE: u32 = 0xffffffffu;
fn qFour(start: u32, d: u32) -> vec4f { return q[start + d / 4u]; }
fn kFour(start: u32, d: u32) -> vec4f { return k[start + d / 4u]; }
fn vFour(start: u32, d: u32) -> vec4f { return v[start + d / 4u]; }
fn store(start: u32, d: u32, value: vec4f) {
  out[start + d / 4u] = value;
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
var<workgroup> largestKeys: atomic<u32>;
var<workgroup> largestValues: atomic<u32>;
var<workgroup> largestP: atomic<u32>;
var<workgroup> misfits: atomic<u32>;

const LOW: f32 = -2.0e38;
const MASKED: f32 = -3.0e38;

// Where a key or value row starts; past the end the last one, whose score is then masked.
fn keyAt(key: u32, kvHead: u32, end: u32) -> u32 { return (min(key, end - 1u) * u.kWidth + u.kFrom) / UNIT + kvHead * HEAD; }
fn valueAt(key: u32, kvHead: u32, end: u32) -> u32 { return (min(key, end - 1u) * u.vWidth + u.vFrom) / UNIT + kvHead * HEAD; }
@diagnostic(off, subgroup_uniformity)
fn element(kvHead: u32, tile: u32, lane: u32) {
  var queryHeld: array<u32, 2>;
  var resultHeld: array<u32, 2>;
  var outAtHeld: array<u32, 2>;
  var seenHeld: array<vec4u, 2>;
  for (var i = 0u; i < (2u + (u.H >> 31u)); i++) {
    let own = min(tile * 32u + i * 16u + lane / 8u, u.T * u.groupSize - 1u);
    let token = own / u.groupSize;
    let head = kvHead * u.groupSize + own % u.groupSize;
    let result = token * u.H + head;
    let query = (token * u.qWidth + u.qFrom) / UNIT + head * HEAD;
    let outAt = result * HEAD;
    let seen = ranges[token];
    queryHeld[i] = query;
    resultHeld[i] = result;
    outAtHeld[i] = outAt;
    seenHeld[i] = seen;
  }
  let query0: u32 = queryHeld[0]; let result0: u32 = resultHeld[0]; let outAt0: u32 = outAtHeld[0]; let seen0: vec4u = seenHeld[0];
  let query1: u32 = queryHeld[1]; let result1: u32 = resultHeld[1]; let outAt1: u32 = outAtHeld[1]; let seen1: vec4u = seenHeld[1];
  let invocation = lane;
  let ownLane = lane % 32u;
  let partRow = lane / 32u / 2u * 16u;
  let partColumn = lane / 32u % 2u * 16u;
  var scaleQuery = 1.0;
  var limitQuery = 0.0; // the largest number that fits
  var scaleKeys = 1.0;
  var limitKeys = 0.0; // the largest number that fits
  var scaleValues = 1.0;
  var limitValues = 0.0; // the largest number that fits
  var scaleP = 1.0;
  var limitP = 0.0; // the largest number that fits
  var misfitsBefore = 0u;
  if (invocation == 0u) {
    atomicStore(&largestQuery, 0u);
    atomicStore(&largestKeys, 0u);
    atomicStore(&largestValues, 0u);
    atomicStore(&largestP, 0u);
    atomicStore(&misfits, 0u);
  }
  var sum: array<vec4f, 4>;
  var highest0 = LOW; var weight0 = 0.0;
  var highest1 = LOW; var weight1 = 0.0;
  for (var part = 0u; part < 2u; part++) {
    let start0: u32 = select(seen0.x, seen0.z, part == 1u); let end0: u32 = select(seen0.y, seen0.w, part == 1u);
    let start1: u32 = select(seen1.x, seen1.z, part == 1u); let end1: u32 = select(seen1.y, seen1.w, part == 1u);
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
              let read = qFour(rowStarts[line], channel + at);
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
              let read = kFour(columnStarts[line], channel + at);
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
      let score0 = select(X(MASKED), s0 * SCALE, (columns >= XU(start0)) & (columns < XU(end0)));
      let score1 = select(X(MASKED), s1 * SCALE, (columns >= XU(start1)) & (columns < XU(end1)));
      let most0 = lanesMax(largest(score0));
      let most1 = lanesMax(largest(score1));
      let next0 = max(highest0, most0);
      let shrink0 = exp(highest0 - next0);
      highest0 = next0;
      let p0: X = exp(score0 - next0);
      weight0 = weight0 * shrink0 + total(p0);
      sum[0u * 2u + 0u] *= shrink0;
      sum[1u * 2u + 0u] *= shrink0;
      let next1 = max(highest1, most1);
      let shrink1 = exp(highest1 - next1);
      highest1 = next1;
      let p1: X = exp(score1 - next1);
      weight1 = weight1 * shrink1 + total(p1);
      sum[0u * 2u + 1u] *= shrink1;
      sum[1u * 2u + 1u] *= shrink1;
      {
        workgroupBarrier();
        if (lane < 8u) { columnStarts[lane * 4u + 0u] = values0; columnStarts[lane * 4u + 1u] = values1; columnStarts[lane * 4u + 2u] = values2; columnStarts[lane * 4u + 3u] = values3; }
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
            var mostValues = 0.0;
            for (var i = 0u; i < 2u; i++) { let four = i * 128u + invocation;
              let line = four / 8u;
              let at = four % 8u * 4u;
              let read = vFour(columnStarts[line], channel + at);
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
            if (mostValues > limitValues) {
              atomicMax(&largestValues, bitcast<u32>(mostValues));
              atomicAdd(&misfits, 1u);
            }
            let found = workgroupUniformLoad(&misfits); // a barrier too
            if (found == misfitsBefore) { break; }
            misfitsBefore = found;
            let allValues = bitcast<f32>(workgroupUniformLoad(&largestValues));
            if (allValues > limitValues) {
              let exponent = max(i32(bitcast<u32>(allValues) >> 23u) - 127, -100);
              let next = bitcast<f32>(u32(127 + 13 - exponent) << 23u);
              scaleValues = next;
              limitValues = 65000.0 / next;
            }
          }
          var matrix0_0 = Sums();
          for (var i = 0u; i < 2u; i++) {
            let step = i * 16u;
            let p0_0 = subgroupMatrixLoad<Left, row_major>(&highA, (partRow + 0u) * 40u + step, 40u);
            let p0_1 = subgroupMatrixLoad<Left, row_major>(&lowA, (partRow + 0u) * 40u + step, 40u);
            let valuesAcross0_0 = subgroupMatrixLoad<Right, row_major>(&highB, step * 40u + partColumn + 0u, 40u);
            let valuesAcross0_1 = subgroupMatrixLoad<Right, row_major>(&lowB, step * 40u + partColumn + 0u, 40u);
            matrix0_0 = subgroupMatrixMultiplyAccumulate(p0_1, valuesAcross0_0, matrix0_0);
            matrix0_0 = subgroupMatrixMultiplyAccumulate(p0_0, valuesAcross0_1, matrix0_0);
            matrix0_0 = subgroupMatrixMultiplyAccumulate(p0_0, valuesAcross0_0, matrix0_0);
          }
          subgroupMatrixStore<row_major>(&results, (partRow + 0u) * 36u + partColumn + 0u, matrix0_0, 36u);
          workgroupBarrier();
          sum[0u * 2u + 0u] += vec4f(results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 0u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 1u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 2u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 3u]) * (1.0 / scaleP) * (1.0 / scaleValues);
          sum[0u * 2u + 1u] += vec4f(results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 0u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 1u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 2u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 3u]) * (1.0 / scaleP) * (1.0 / scaleValues);
        }
        {
          let channel = 1u * 32u;
          for (var attempt = 0u; attempt < (2u + (u.H >> 31u)); attempt++) {
            var mostValues = 0.0;
            for (var i = 0u; i < 2u; i++) { let four = i * 128u + invocation;
              let line = four / 8u;
              let at = four % 8u * 4u;
              let read = vFour(columnStarts[line], channel + at);
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
            if (mostValues > limitValues) {
              atomicMax(&largestValues, bitcast<u32>(mostValues));
              atomicAdd(&misfits, 1u);
            }
            let found = workgroupUniformLoad(&misfits); // a barrier too
            if (found == misfitsBefore) { break; }
            misfitsBefore = found;
            let allValues = bitcast<f32>(workgroupUniformLoad(&largestValues));
            if (allValues > limitValues) {
              let exponent = max(i32(bitcast<u32>(allValues) >> 23u) - 127, -100);
              let next = bitcast<f32>(u32(127 + 13 - exponent) << 23u);
              scaleValues = next;
              limitValues = 65000.0 / next;
            }
          }
          var matrix0_0 = Sums();
          for (var i = 0u; i < 2u; i++) {
            let step = i * 16u;
            let p0_0 = subgroupMatrixLoad<Left, row_major>(&highA, (partRow + 0u) * 40u + step, 40u);
            let p0_1 = subgroupMatrixLoad<Left, row_major>(&lowA, (partRow + 0u) * 40u + step, 40u);
            let valuesAcross0_0 = subgroupMatrixLoad<Right, row_major>(&highB, step * 40u + partColumn + 0u, 40u);
            let valuesAcross0_1 = subgroupMatrixLoad<Right, row_major>(&lowB, step * 40u + partColumn + 0u, 40u);
            matrix0_0 = subgroupMatrixMultiplyAccumulate(p0_1, valuesAcross0_0, matrix0_0);
            matrix0_0 = subgroupMatrixMultiplyAccumulate(p0_0, valuesAcross0_1, matrix0_0);
            matrix0_0 = subgroupMatrixMultiplyAccumulate(p0_0, valuesAcross0_0, matrix0_0);
          }
          subgroupMatrixStore<row_major>(&results, (partRow + 0u) * 36u + partColumn + 0u, matrix0_0, 36u);
          workgroupBarrier();
          sum[1u * 2u + 0u] += vec4f(results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 0u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 1u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 2u], results[(0u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 3u]) * (1.0 / scaleP) * (1.0 / scaleValues);
          sum[1u * 2u + 1u] += vec4f(results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 0u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 1u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 2u], results[(1u * 16u + lane / 8u) * 36u + lane % 8u * 4u + 3u]) * (1.0 / scaleP) * (1.0 / scaleValues);
        }
      }
      key += 32u;
    }
  }
  let whole0 = lanesSum(weight0);
  let whole1 = lanesSum(weight1);
  let inverse0 = select(0.0, 1.0 / whole0, whole0 > 0.0);
  let inverse1 = select(0.0, 1.0 / whole1, whole1 > 0.0);
  store(outAt0, 0u * 32u + lane % 8u * 4u, sum[0u * 2u + 0u] * inverse0);
  store(outAt1, 0u * 32u + lane % 8u * 4u, sum[0u * 2u + 1u] * inverse1);
  store(outAt0, 1u * 32u + lane % 8u * 4u, sum[1u * 2u + 0u] * inverse0);
  store(outAt1, 1u * 32u + lane % 8u * 4u, sum[1u * 2u + 1u] * inverse1);
  let normalizer0 = highest0 + log(max(whole0, 1e-37));
  let normalizer1 = highest1 + log(max(whole1, 1e-37));
  {
    var values = array<f32, 2>(normalizer0, normalizer1);
    var places = array<u32, 2>(result0, result1);
    for (var i = 0u; i < (2u + (u.H >> 31u)); i++) {
      if (lane % 8u == 0u) { logSumExp[places[i]] = values[i]; }
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
