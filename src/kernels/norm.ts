/**
 * RMSNorm and LayerNorm over the channels of each row.
 *
 *   RMSNorm     y = x inverse weight [+ residual]         inverse = 1 / sqrt(mean(x^2) + epsilon)
 *   LayerNorm   y = (x - mean) inverse weight + bias      inverse = 1 / sqrt(variance + epsilon)
 *
 * With xhat = (x - mean) inverse and g = dy weight:
 *   dx = inverse (g - xhat mean(g xhat) [- mean(g), LayerNorm only]),  dWeight = sum dy xhat,  dBias = sum dy.
 *
 * With `unitOffset` RMSNorm's weight is stored around 0 and 1 is added to it (Gemma); dWeight is the same.
 *
 * x is the residual stream, f32; y is an activation in any format. Forward keeps [mean, inverse] per row. dx is added
 * to the gradient that the residual stream already carries. The weight gradients sum over rows in two passes, since
 * workgroups have no order among themselves: partial sums per block of rows here, then `addColumnSums`.
 */
import { kernel } from "./kernel.ts";
import {
  type AdapterFacts,
  inVectors,
  type Lanes,
  linearGrid,
  linearGroup,
  memoized,
  ofActivations,
  reduction,
  rowElements,
  rowElementsGrid,
} from "./wgsl.ts";

/** One workgroup per row; `row`, `lane`, `base` (first element of the row) and its `width` in elements are in scope. */
function rowKernel(facts: AdapterFacts, lanes: Lanes, body: string): { enable: readonly string[]; wgsl: string } {
  const reduce = reduction(facts);
  return {
    enable: reduce.enable,
    wgsl: /* wgsl */ `${lanes.wgsl}${linearGroup}${reduce.wgsl}
@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = linearGroup(group);
  if (row >= u.T) { return; }
  let width = u.C / LANES;
  let base = row * width;
${body}
}`,
  };
}

/** WGSL: a weight of RMSNorm by its index, as it is stored or with 1 added. */
export type Gain = (index: string) => string;

const plainGain: Gain = (index) => `weight[${index}]`;

/** A kernel of RMSNorm for weights as they are and one for weights that 1 is added to, each for every kind of adapter. */
export function byOffset<T>(build: (gain: Gain) => (facts: AdapterFacts) => T) {
  const plain = memoized(build(plainGain));
  const offset = memoized(build((index) => `(1.0 + weight[${index}])`));
  return (facts: AdapterFacts, unitOffset = false): T => (unitOffset ? offset : plain)(facts);
}

/** The body of RMSNorm's forward pass; `result` is what is stored of the normed value, WGSL. */
const rmsBody = (gain: Gain, result: (normed: string) => string) => /* wgsl */ `
  var squares = E();
  for (var c = lane; c < width; c += GROUP) { squares += x[base + c] * x[base + c]; }
  let inverse = inverseSqrt(reduceSum(total(squares), lane) / f32(u.C) + u.epsilon);
  for (var c = lane; c < width; c += GROUP) { y[base + c] = ${result(`x[base + c] * inverse * ${gain("c")}`)}; }
  if (lane == 0u) {
    stats[2u * row] = 0.0;
    stats[2u * row + 1u] = inverse;
  }`;

/** x [T, C], weight [C] -> y [T, C], stats [T, 2] = (0, inverse RMS). */
export const rmsNormForward = byOffset(
  (gain) => (facts) =>
    ofActivations(
      ({ C }) => [C],
      (lanes) =>
        kernel({
          name: "rmsNormForward",
          read: { x: `f32[T, C]${lanes.view}`, weight: `f32[C]${lanes.view}` },
          write: { y: lanes.activations("T, C"), stats: "f32[T, 2]" },
          uniforms: { T: "u32", C: "u32", epsilon: "f32" },
          ...rowKernel(
            facts,
            lanes,
            rmsBody(gain, (normed) => `A(${normed})`),
          ),
          grid: ({ T = 0 }) => linearGrid(T),
          cost: ({ T = 0, C = 0 }) => ({ flops: 4 * T * C, bytes: (4 + lanes.activationBytes) * T * C }),
        }),
    ),
);

/** x [T, C], weight [C], residual [T, C] -> y [T, C] = residual + RMSNorm(x), f32, and stats as `rmsNormForward`'s. */
export const rmsNormResidual = byOffset(
  (gain) => (facts) =>
    inVectors(
      ({ C }) => [C],
      (lanes) =>
        kernel({
          name: "rmsNormResidual",
          read: {
            x: `f32[T, C]${lanes.view}`,
            weight: `f32[C]${lanes.view}`,
            residual: `f32[T, C]${lanes.view}`,
          },
          write: { y: `f32[T, C]${lanes.view}`, stats: "f32[T, 2]" },
          uniforms: { T: "u32", C: "u32", epsilon: "f32" },
          ...rowKernel(
            facts,
            lanes,
            rmsBody(gain, (normed) => `residual[base + c] + ${normed}`),
          ),
          grid: ({ T = 0 }) => linearGrid(T),
          cost: ({ T = 0, C = 0 }) => ({ flops: 5 * T * C, bytes: 12 * T * C }),
        }),
    ),
);

/** x [T, C], weight [C], bias [C] -> y [T, C], stats [T, 2] = (mean, inverse standard deviation). */
export const layerNormForward = memoized((facts) =>
  ofActivations(
    ({ C }) => [C],
    (lanes) =>
      kernel({
        name: "layerNormForward",
        read: { x: `f32[T, C]${lanes.view}`, weight: `f32[C]${lanes.view}`, bias: `f32[C]${lanes.view}` },
        write: { y: lanes.activations("T, C"), stats: "f32[T, 2]" },
        uniforms: { T: "u32", C: "u32", epsilon: "f32" },
        ...rowKernel(
          facts,
          lanes,
          /* wgsl */ `
  var sum = E();
  for (var c = lane; c < width; c += GROUP) { sum += x[base + c]; }
  let mean = reduceSum(total(sum), lane) / f32(u.C);
  var squares = E();
  for (var c = lane; c < width; c += GROUP) {
    let centred = x[base + c] - mean;
    squares += centred * centred;
  }
  let inverse = inverseSqrt(reduceSum(total(squares), lane) / f32(u.C) + u.epsilon);
  for (var c = lane; c < width; c += GROUP) { y[base + c] = A((x[base + c] - mean) * inverse * weight[c] + bias[c]); }
  if (lane == 0u) {
    stats[2u * row] = mean;
    stats[2u * row + 1u] = inverse;
  }`,
        ),
        grid: ({ T = 0 }) => linearGrid(T),
        cost: ({ T = 0, C = 0 }) => ({ flops: 7 * T * C, bytes: (4 + lanes.activationBytes) * T * C }),
      }),
  ),
);

const normBackward = (name: string, meanOfGradient: string, gain: Gain) => (facts: AdapterFacts) =>
  inVectors(
    ({ C }) => [C],
    (lanes) =>
      kernel({
        name,
        read: {
          dy: `f32[T, C]${lanes.view}`,
          x: `f32[T, C]${lanes.view}`,
          weight: `f32[C]${lanes.view}`,
          stats: "f32[T, 2]",
        },
        write: { dx: `f32[T, C]${lanes.view}` },
        uniforms: { T: "u32", C: "u32" },
        ...rowKernel(
          facts,
          lanes,
          /* wgsl */ `
  let mean = stats[2u * row];
  let inverse = stats[2u * row + 1u];
  var sum = E();
  var along = E();
  for (var c = lane; c < width; c += GROUP) {
    let g = dy[base + c] * ${gain("c")};
    sum += g;
    along += g * (x[base + c] - mean) * inverse;
  }
  let meanAlong = reduceSum(total(along), lane) / f32(u.C);
  let meanGradient = ${meanOfGradient};
  for (var c = lane; c < width; c += GROUP) {
    let g = dy[base + c] * ${gain("c")};
    let xhat = (x[base + c] - mean) * inverse;
    dx[base + c] += inverse * (g - meanGradient - xhat * meanAlong);
  }`,
        ),
        grid: ({ T = 0 }) => linearGrid(T),
        cost: ({ T = 0, C = 0 }) => ({ flops: 12 * T * C, bytes: 16 * T * C }),
      }),
  );

/** dx [T, C] += the gradient through RMSNorm of dy [T, C]. */
export const rmsNormBackward = byOffset((gain) => normBackward("rmsNormBackward", "0.0", gain));

/** dx [T, C] += the gradient through LayerNorm of dy [T, C]. */
export const layerNormBackward = memoized(
  normBackward("layerNormBackward", "reduceSum(total(sum), lane) / f32(u.C)", plainGain),
);

/** Number of blocks that T rows are summed in. */
export function rowBlocks(rows: number): number {
  return Math.max(1, Math.min(64, Math.ceil(rows / 32)));
}

/** partials [G, C]: per block of rows the sum of dy xhat, the gradient of a norm's weight. */
export const normWeightPartials = inVectors(
  ({ C }) => [C],
  (lanes) =>
    kernel({
      name: "normWeightPartials",
      read: { dy: `f32[T, C]${lanes.view}`, x: `f32[T, C]${lanes.view}`, stats: "f32[T, 2]" },
      write: { partials: `f32[G, C]${lanes.view}` },
      uniforms: { T: "u32", C: "u32", G: "u32" },
      wgsl: /* wgsl */ `${lanes.wgsl}
fn element(block: u32, c: u32) {
  let width = u.C / LANES;
  let rowsPerBlock = (u.T + u.G - 1u) / u.G;
  let first = block * rowsPerBlock;
  var sum = E();
  for (var row = first; row < min(first + rowsPerBlock, u.T); row++) {
    sum += dy[row * width + c] * (x[row * width + c] - stats[2u * row]) * stats[2u * row + 1u];
  }
  partials[block * width + c] = sum;
}
${rowElements("u.G", "u.C / LANES")}`,
      grid: ({ G = 0, C = 0 }) => rowElementsGrid(G, C / lanes.count),
      cost: ({ T = 0, C = 0 }) => ({ flops: 4 * T * C, bytes: 8 * T * C }),
    }),
);
