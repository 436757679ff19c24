/**
 * RMSNorm of every head, gated by SiLU, which ends Qwen3.5's DeltaNet layers: all heads share one weight of D numbers,
 * and the gate z has as many numbers as x.
 *
 *   y = xhat weight silu(z),   xhat = x inverse,   inverse = 1 / sqrt(mean_d(x^2) + epsilon),   silu(z) = z sigmoid(z)
 *   dx = inverse (g - xhat mean_d(g xhat)),   g = dy weight silu(z),   dz = dy xhat weight silu'(z)
 *   dWeight = sum over rows and heads of dy xhat silu(z)
 *
 * x comes from a recurrence in f32; y and z are activations, z in columns of wider rows [T, G], from `zFrom` on. x of
 * the first rows of a sequence may be small, so that inverse is large: it is kept in f32.
 */
import { kernel } from "./kernel.ts";
import {
  type AdapterFacts,
  type Lanes,
  linearGrid,
  linearGroup,
  memoized,
  ofActivations,
  reduction,
  rowElements,
  rowElementsGrid,
  sigmoid,
} from "./wgsl.ts";

/** One workgroup for each head of a row; its number `index`, first elements `at` and `gateAt`, `size` in elements. */
function headKernel(facts: AdapterFacts, lanes: Lanes, body: string): { enable: readonly string[]; wgsl: string } {
  const reduce = reduction(facts);
  return {
    enable: reduce.enable,
    wgsl: /* wgsl */ `${lanes.wgsl}${sigmoid("E")}${linearGroup}${reduce.wgsl}
@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let index = linearGroup(group);
  if (index >= u.T * u.heads) { return; }
  let row = index / u.heads;
  let size = u.D / LANES;
  let at = index * size;
  let gateAt = (row * u.G + u.zFrom) / LANES + (index - row * u.heads) * size;
${body}
}`,
  };
}

const UNIFORMS = { T: "u32", G: "u32", D: "u32", heads: "u32", zFrom: "u32" } as const;

/** weight [D], x [T, heads D], gates [T, G] -> y [T, heads D], inverse [T, heads]. */
export const gatedNormForward = memoized((facts) =>
  ofActivations(
    ({ D, G, zFrom }) => [D, G, zFrom],
    (lanes) =>
      kernel({
        name: "gatedNormForward",
        read: { weight: `f32[D]${lanes.view}`, x: `f32[T, heads*D]${lanes.view}`, gates: lanes.activations("T, G") },
        write: { y: lanes.activations("T, heads*D"), inverse: "f32[T, heads]" },
        uniforms: { ...UNIFORMS, epsilon: "f32" },
        ...headKernel(
          facts,
          lanes,
          /* wgsl */ `
  var squares = E();
  for (var d = lane; d < size; d += GROUP) { squares += x[at + d] * x[at + d]; }
  let scale = inverseSqrt(reduceSum(total(squares), lane) / f32(u.D) + u.epsilon);
  for (var d = lane; d < size; d += GROUP) {
    let z = E(gates[gateAt + d]);
    y[at + d] = A(x[at + d] * scale * weight[d] * z * sigmoid(z));
  }
  if (lane == 0u) { inverse[index] = scale; }`,
        ),
        grid: ({ T = 0, heads = 0 }) => linearGrid(T * heads),
        cost: ({ T = 0, heads = 0, D = 0 }) => ({
          flops: 10 * T * heads * D,
          bytes: (4 + 2 * lanes.activationBytes) * T * heads * D,
        }),
      }),
  ),
);

/** dy [T, heads D] -> dx [T, heads D], and the gates' columns of dGates [T, G]. */
export const gatedNormBackward = memoized((facts) =>
  ofActivations(
    ({ D, G, zFrom }) => [D, G, zFrom],
    (lanes) =>
      kernel({
        name: "gatedNormBackward",
        read: {
          weight: `f32[D]${lanes.view}`,
          dy: `f32[T, heads*D]${lanes.view}`,
          x: `f32[T, heads*D]${lanes.view}`,
          gates: lanes.activations("T, G"),
          inverse: "f32[T, heads]",
        },
        write: { dx: `f32[T, heads*D]${lanes.view}`, dGates: `f32[T, G]${lanes.view}` },
        uniforms: UNIFORMS,
        ...headKernel(
          facts,
          lanes,
          /* wgsl */ `
  let scale = inverse[index];
  var along = E();
  for (var d = lane; d < size; d += GROUP) {
    let z = E(gates[gateAt + d]);
    let s = sigmoid(z);
    let xhat = x[at + d] * scale;
    let g = dy[at + d] * weight[d];
    along += g * z * s * xhat;
    dGates[gateAt + d] = g * xhat * s * (1.0 + z * (1.0 - s));
  }
  let meanAlong = reduceSum(total(along), lane) / f32(u.D);
  for (var d = lane; d < size; d += GROUP) {
    let z = E(gates[gateAt + d]);
    let g = dy[at + d] * weight[d] * z * sigmoid(z);
    dx[at + d] = scale * (g - x[at + d] * scale * meanAlong);
  }`,
        ),
        grid: ({ T = 0, heads = 0 }) => linearGrid(T * heads),
        cost: ({ T = 0, heads = 0, D = 0 }) => ({
          flops: 24 * T * heads * D,
          bytes: (16 + lanes.activationBytes) * T * heads * D,
        }),
      }),
  ),
);

/** partials [blocks, D]: per block of rows the sum over its rows and heads of dy xhat silu(z), the weight's gradient. */
export const gatedNormWeightPartials = ofActivations(
  ({ D, G, zFrom }) => [D, G, zFrom],
  (lanes) =>
    kernel({
      name: "gatedNormWeightPartials",
      read: {
        inverse: "f32[T, heads]",
        dy: `f32[T, heads*D]${lanes.view}`,
        x: `f32[T, heads*D]${lanes.view}`,
        gates: lanes.activations("T, G"),
      },
      write: { partials: `f32[blocks, D]${lanes.view}` },
      uniforms: { ...UNIFORMS, blocks: "u32" },
      wgsl: /* wgsl */ `${lanes.wgsl}${sigmoid("E")}
fn element(block: u32, d: u32) {
  let size = u.D / LANES;
  let rowsPerBlock = (u.T + u.blocks - 1u) / u.blocks;
  let first = block * rowsPerBlock;
  var sum = E();
  for (var row = first; row < min(first + rowsPerBlock, u.T); row++) {
    for (var head = 0u; head < u.heads; head++) {
      let index = row * u.heads + head;
      let z = E(gates[(row * u.G + u.zFrom) / LANES + head * size + d]);
      sum += dy[index * size + d] * x[index * size + d] * inverse[index] * z * sigmoid(z);
    }
  }
  partials[block * size + d] = sum;
}
${rowElements("u.blocks", "u.D / LANES")}`,
      grid: ({ blocks = 0, D = 0 }) => rowElementsGrid(blocks, D / lanes.count),
      cost: ({ T = 0, heads = 0, D = 0 }) => ({
        flops: 9 * T * heads * D,
        bytes: (8 + lanes.activationBytes) * T * heads * D,
      }),
    }),
);
