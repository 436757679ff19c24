// matmulNT: 1 x 64 x 64 in f32, subgroups of 32 on a GPU, tile row4.

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
fn alongLane(part: vec4f) -> f32 { return (part.x + part.y) + (part.z + part.w); }

fn store(row: u32, column: u32, product: vec4f) {
  if (column >= u.N) { return; }
  let i = (row * u.outWidth + u.outFrom + column) / 4u;
  var value = product * u.scale;
  if (u.hasBias != 0u) { value += vec4f(bias[column], bias[column + 1u], bias[column + 2u], bias[column + 3u]); }
  if (u.hasResidual != 0u) { value += residual[(row * u.N + column) / 4u]; }
  if (u.accumulate != 0u) { value += out[i]; }
  out[i] = value;
}

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let origin = placeInGrid(group);
  let place = select(origin.xy, origin.yx, u.N >= u.M);
  let firstRow = place.y * 1u;
  let firstColumn = place.x * 4u;
  let ownFirst = firstRow;
  var part0 = vec4f(); var part1 = vec4f(); var part2 = vec4f(); var part3 = vec4f();
  for (var k = 4u * lane; k < u.K; k += 128u) {
    let a = readA(firstRow, k);
    part0 = fma(a, readB(firstColumn + 0u, k), part0);
    part1 = fma(a, readB(firstColumn + 1u, k), part1);
    part2 = fma(a, readB(firstColumn + 2u, k), part2);
    part3 = fma(a, readB(firstColumn + 3u, k), part3);
  }
  let own0: vec4f = vec4f(alongLane(part0), alongLane(part1), alongLane(part2), alongLane(part3));
  let total0 = subgroupAdd(own0);
  // A lane stores four columns; those beyond the tile's have none.
  let column = select(u.N, firstColumn + 4u * lane, lane < 1u);
  let sum0 = total0;
  var sums = array<vec4f, 1>(sum0);
  for (var row = ownFirst; row < min(ownFirst + 1u, u.M); row++) {
    let value = sums[row - ownFirst];
    store(row, column, value);
  }
}
