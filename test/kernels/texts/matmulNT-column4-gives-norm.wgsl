// matmulNT: 1 x 64 x 64 in f32, a norm behind it, subgroups of 8 on a software adapter, tile column4.

enable subgroups;
struct Uniforms { M: u32, N: u32, K: u32, aWidth: u32, aFrom: u32, outWidth: u32, outFrom: u32, scale: f32, hasBias: u32, hasResidual: u32, accumulate: u32, tiles: u32, gainOffset: f32, firstGroupX: u32, firstGroupY: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> a: array<vec4f>;
@group(0) @binding(2) var<storage, read> b: array<vec4f>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<vec4f>;
@group(0) @binding(5) var<storage, read> gain: array<vec4f>;
@group(0) @binding(6) var<storage, read_write> out: array<vec4f>;
@group(0) @binding(7) var<storage, read_write> scaled: array<vec4f>;
@group(0) @binding(8) var<storage, read_write> squares: array<f32>;
fn placeInGrid(group: vec3u) -> vec3u { return group + vec3u(u.firstGroupX, u.firstGroupY, 0u); }

fn readA(line: u32, at: u32) -> vec4f {
  let four = (min(line, u.M - 1u) * u.aWidth + u.aFrom + min(at, u.K - 4u)) / 4u;
  return a[four];
}

fn readB(line: u32, at: u32) -> vec4f {
  let four = (min(line, u.N - 1u) * u.K + min(at, u.K - 4u)) / 4u;
  return b[four];
}
fn alongLane(part: vec4f) -> f32 { return (part.x + part.y) + (part.z + part.w); }
fn columnsMax(value: f32, lane: u32) -> f32 { return subgroupMax(value); }
fn columnsSum(value: f32, lane: u32) -> f32 { return subgroupAdd(value); }

fn store(row: u32, column: u32, product: vec4f) -> f32 {
  if (column >= u.N) { return 0.0; }
  let i = (row * u.outWidth + u.outFrom + column) / 4u;
  var value = product * u.scale;
  if (u.hasBias != 0u) { value += vec4f(bias[column], bias[column + 1u], bias[column + 2u], bias[column + 3u]); }
  if (u.hasResidual != 0u) { value += residual[(row * u.N + column) / 4u]; }
  if (u.accumulate != 0u) { value += out[i]; }
  out[i] = value;
  scaled[(row * u.N + column) / 4u] = value * (u.gainOffset + gain[column / 4u]);
  return dot(value, value);
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let origin = placeInGrid(group);
  let place = select(origin.xy, origin.yx, u.N >= u.M);
  let firstRow = place.y * 1u;
  let firstColumn = place.x * 32u;
  let ownFirst = firstRow;
  var total0 = 0.0; var total1 = 0.0; var total2 = 0.0; var total3 = 0.0;
  for (var here = 0u; here < (4u + (u.M >> 31u)); here++) {
    let column = firstColumn + here * 8u + lane;
    var part = vec4f();
    for (var start = 0u; start < u.K; start += 32u) {
      var ahead: vec4f = readA(firstRow, start + 4u * lane);
      ahead = select(vec4f(), ahead, start + 4u * lane < u.K);
      for (var k = start; k < min(start + 32u, u.K); k += 16u) {
        let b0 = readB(column, k + 0u);
        let b1 = readB(column, k + 4u);
        let b2 = readB(column, k + 8u);
        let b3 = readB(column, k + 12u);
        part = fma(b0, subgroupShuffle(ahead, (k - start) / 4u + 0u), part);
        part = fma(b1, subgroupShuffle(ahead, (k - start) / 4u + 1u), part);
        part = fma(b2, subgroupShuffle(ahead, (k - start) / 4u + 2u), part);
        part = fma(b3, subgroupShuffle(ahead, (k - start) / 4u + 3u), part);
      }
    }
    let own = alongLane(part);
    total0 = select(total0, own, here == 0u); total1 = select(total1, own, here == 1u); total2 = select(total2, own, here == 2u); total3 = select(total3, own, here == 3u);
  }
  // A lane stores four neighbours of one set, from its lane `first` on.
  let owner = 4u * lane / 8u;
  let first = 4u * lane % 8u;
  let column = firstColumn + 4u * lane;
  let sum0 = vec4f(select(select(select(subgroupShuffle(total3, first + 0u), subgroupShuffle(total2, first + 0u), owner == 2u), subgroupShuffle(total1, first + 0u), owner == 1u), subgroupShuffle(total0, first + 0u), owner == 0u), select(select(select(subgroupShuffle(total3, first + 1u), subgroupShuffle(total2, first + 1u), owner == 2u), subgroupShuffle(total1, first + 1u), owner == 1u), subgroupShuffle(total0, first + 1u), owner == 0u), select(select(select(subgroupShuffle(total3, first + 2u), subgroupShuffle(total2, first + 2u), owner == 2u), subgroupShuffle(total1, first + 2u), owner == 1u), subgroupShuffle(total0, first + 2u), owner == 0u), select(select(select(subgroupShuffle(total3, first + 3u), subgroupShuffle(total2, first + 3u), owner == 2u), subgroupShuffle(total1, first + 3u), owner == 1u), subgroupShuffle(total0, first + 3u), owner == 0u));
  var sums = array<vec4f, 1>(sum0);
  for (var row = ownFirst; row < min(ownFirst + 1u, u.M); row++) {
    var squared = 0.0;
    let value = sums[row - ownFirst];
    squared += store(row, column, value);
    let all = columnsSum(squared, lane);
    if (lane == 0u) { squares[row * u.tiles + firstColumn / 32u] = all; }
  }
}
