/**
 * AdamW with decoupled weight decay (Loshchilov and Hutter, 2019), in torch's order:
 *
 *   p <- p (1 - lr decay)
 *   m <- beta1 m + (1 - beta1) g,   v <- beta2 v + (1 - beta2) g^2,   g = clipScale gradient
 *   p <- p - lr (m / correction1) / (sqrt(v / correction2) + epsilon)
 *
 * One pass over a range of the parameter arena. What changes from step to step comes from two small buffers: the
 * learning rate from the host, clip factor, bias corrections and the skip flag from `clipAndAdvance`.
 */
import { kernel } from "./kernel.ts";
import { OPTIMIZER_STATE } from "./reduce.ts";
import { elementwise, elementwiseGrid, inVectors } from "./wgsl.ts";

/** Places in the host's numbers of a step, f32[4]. */
export const STEP_NUMBERS = {
  learningRate: 0,
  /**
   * Factor on the coefficients of a microbatch: 1 / microbatches of the update where their losses are averaged, 1 / its
   * completion tokens where every token weighs the same, 1 where every row of the update does.
   */
  microbatchWeight: 1,
  /** Rows of the update, all its microbatches together. */
  updateRows: 2,
  size: 4,
} as const;

export const adamw = inVectors(
  ({ n }) => [n],
  (lanes) =>
    kernel({
      name: "adamw",
      read: {
        gradient: `f32[n]${lanes.view}`,
        state: `f32[${OPTIMIZER_STATE.size}]`,
        step: `f32[${STEP_NUMBERS.size}]`,
      },
      write: { parameter: `f32[n]${lanes.view}`, first: `f32[n]${lanes.view}`, second: `f32[n]${lanes.view}` },
      uniforms: {
        n: "u32",
        beta1: "f32",
        beta2: "f32",
        complement1: "f32",
        complement2: "f32",
        epsilon: "f32",
        weightDecay: "f32",
      },
      wgsl: /* wgsl */ `${lanes.wgsl}
fn element(i: u32) {
  if (state[${OPTIMIZER_STATE.skipped}] != 0.0) { return; }
  let learningRate = step[${STEP_NUMBERS.learningRate}];
  let g = gradient[i] * state[${OPTIMIZER_STATE.clipScale}];
  let m = u.beta1 * first[i] + u.complement1 * g;
  let v = u.beta2 * second[i] + u.complement2 * g * g;
  first[i] = m;
  second[i] = v;
  let direction = (m / state[${OPTIMIZER_STATE.correction1}])
    / (sqrt(v / state[${OPTIMIZER_STATE.correction2}]) + u.epsilon);
  parameter[i] = parameter[i] * (1.0 - learningRate * u.weightDecay) - learningRate * direction;
}
${elementwise("u.n / LANES")}`,
      grid: ({ n = 0 }) => elementwiseGrid(n / lanes.count),
      cost: ({ n = 0 }) => ({ flops: 14 * n, bytes: 28 * n }),
    }),
);
