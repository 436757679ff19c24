/**
 * Sums over rows and over everything: bias gradients, the global norm of the gradients and the decision of a step.
 * Two passes each, partial sums then their sum in a fixed order, so that the bits do not depend on scheduling.
 */
import { kernel } from "./kernel.ts";
import {
  type AdapterFacts,
  elementwise,
  elementwiseGrid,
  inVectors,
  memoized,
  reduction,
  rowElements,
  rowElementsGrid,
} from "./wgsl.ts";

/** partials [G, C]: per block of rows the sum over rows of the C columns of dy [T, W] from `firstColumn` on. */
export const columnPartials = inVectors(
  ({ C, W, firstColumn }) => [C, W, firstColumn],
  (lanes) =>
    kernel({
      name: "columnPartials",
      read: { dy: `f32[T, W]${lanes.view}` },
      write: { partials: `f32[G, C]${lanes.view}` },
      uniforms: { T: "u32", W: "u32", C: "u32", G: "u32", firstColumn: "u32" },
      wgsl: /* wgsl */ `${lanes.wgsl}
fn element(block: u32, c: u32) {
  let width = u.C / LANES;
  let rowsPerBlock = (u.T + u.G - 1u) / u.G;
  let first = block * rowsPerBlock;
  var sum = E();
  for (var row = first; row < min(first + rowsPerBlock, u.T); row++) { sum += dy[(row * u.W + u.firstColumn) / LANES + c]; }
  partials[block * width + c] = sum;
}
${rowElements("u.G", "u.C / LANES")}`,
      grid: ({ G = 0, C = 0 }) => rowElementsGrid(G, C / lanes.count),
      cost: ({ T = 0, C = 0 }) => ({ flops: T * C, bytes: 4 * T * C }),
    }),
);

/** out [C] += sum over blocks of partials [G, C]. */
export const addColumnSums = kernel({
  name: "addColumnSums",
  read: { partials: "f32[G, C]" },
  write: { out: "f32[C]" },
  uniforms: { G: "u32", C: "u32" },
  wgsl: /* wgsl */ `
fn element(c: u32) {
  var sum = 0.0;
  for (var block = 0u; block < u.G; block++) { sum += partials[block * u.C + c]; }
  out[c] += sum;
}
${elementwise("u.C")}`,
  grid: ({ C = 0 }) => elementwiseGrid(C),
  cost: ({ G = 0, C = 0 }) => ({ flops: G * C, bytes: 4 * G * C }),
});

/** Number of partial sums of squares that add up to the global norm. */
export const NORM_PARTIALS = 256;

/** Numbers in `sums` of `squarePartials`: as many as its invocations add up, of each of four neighbouring numbers. */
export const normSums = (facts: AdapterFacts) => 4 * NORM_PARTIALS * reduction(facts).groupSize;

/**
 * partials [256] = sums of squares of x [n] and of what was summed before; `first` starts over. An array may be passed
 * in several parts: `sums` [`normSums`] keeps the sum of every invocation, and x begins `skipped` elements (fours where
 * n is a multiple of 4, which it is then in every part) behind the array's start, so that each invocation adds the same
 * numbers in the same order whatever the parts are.
 */
export const squarePartials = memoized((facts) => {
  const reduce = reduction(facts);
  return inVectors(
    ({ n }) => [n],
    (lanes) =>
      kernel({
        name: "squarePartials",
        read: { x: `f32[n]${lanes.view}` },
        write: { sums: `f32[s]${lanes.view}`, partials: `f32[${NORM_PARTIALS}]` },
        uniforms: { n: "u32", first: "u32", skipped: "u32" },
        enable: reduce.enable,
        wgsl: /* wgsl */ `${lanes.wgsl}${reduce.wgsl}
const STEP: u32 = GROUP * ${NORM_PARTIALS}u;
@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let own = group.x * GROUP + lane;
  var sum = sums[own];
  if (u.first != 0u) { sum = E(); }
  // The first element of x that is this invocation's in the whole array.
  for (var i = (own + STEP - u.skipped % STEP) % STEP; i < u.n / LANES; i += STEP) { sum += x[i] * x[i]; }
  sums[own] = sum;
  let here = reduceSum(total(sum), lane);
  if (lane == 0u) { partials[group.x] = here; }
}`,
        grid: () => [NORM_PARTIALS],
        cost: ({ n = 0 }) => ({ flops: 2 * n, bytes: 4 * n }),
      }),
  );
});

/**
 * Places in the optimizer's state on the device, f32[8]. `correction1` and `correction2` are 1 - beta^t, kept by the
 * recurrence c <- c beta + (1 - beta), which loses no digits where 1 - pow(beta, t) would.
 */
export const OPTIMIZER_STATE = {
  gradientNorm: 0,
  /** min(1, maxNorm / (norm + 1e-6)), the factor on every gradient. */
  clipScale: 1,
  /** 1 if this step's gradients are not finite and the update is left out. */
  skipped: 2,
  correction1: 3,
  correction2: 4,
  stepsTaken: 5,
  stepsSkipped: 6,
  /** Steps skipped since the last one that was taken. */
  skippedInRow: 7,
  size: 8,
} as const;

/**
 * From the partial sums: the global norm sqrt(sum g^2), torch's clip factor, and whether the step can be taken. A norm
 * that is not finite (tested by bits: compilers may assume finite maths) leaves the optimizer as it was and is counted.
 */
export const clipAndAdvance = kernel({
  name: "clipAndAdvance",
  read: { partials: `f32[${NORM_PARTIALS}]` },
  write: { state: `f32[${OPTIMIZER_STATE.size}]` },
  uniforms: { maxNorm: "f32", beta1: "f32", beta2: "f32", complement1: "f32", complement2: "f32" },
  wgsl: /* wgsl */ `
@compute @workgroup_size(1)
fn main() {
  var sum = 0.0;
  for (var i = 0u; i < ${NORM_PARTIALS}u; i++) { sum += partials[i]; }
  let finite = (bitcast<u32>(sum) & 0x7f800000u) != 0x7f800000u;
  let norm = sqrt(sum);
  state[${OPTIMIZER_STATE.gradientNorm}] = norm;
  state[${OPTIMIZER_STATE.skipped}] = select(1.0, 0.0, finite);
  if (!finite) {
    state[${OPTIMIZER_STATE.clipScale}] = 0.0;
    state[${OPTIMIZER_STATE.stepsSkipped}] += 1.0;
    state[${OPTIMIZER_STATE.skippedInRow}] += 1.0;
    return;
  }
  state[${OPTIMIZER_STATE.skippedInRow}] = 0.0;
  state[${OPTIMIZER_STATE.clipScale}] = select(1.0, min(1.0, u.maxNorm / (norm + 1e-6)), u.maxNorm > 0.0);
  state[${OPTIMIZER_STATE.correction1}] = state[${OPTIMIZER_STATE.correction1}] * u.beta1 + u.complement1;
  state[${OPTIMIZER_STATE.correction2}] = state[${OPTIMIZER_STATE.correction2}] * u.beta2 + u.complement2;
  state[${OPTIMIZER_STATE.stepsTaken}] += 1.0;
}`,
  grid: () => [1],
  cost: () => ({ flops: NORM_PARTIALS, bytes: 4 * NORM_PARTIALS }),
});
