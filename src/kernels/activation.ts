/**
 * The nonlinearities of the MLP.
 *
 *   SwiGLU   y = silu(gate) up,  silu(x) = x sigmoid(x)       fused rows [gate | up] of width 2 I
 *   GELU     y = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))    the tanh form of GPT-2
 */
import { kernel } from "./kernel.ts";
import { inVectors, rowElements, rowElementsGrid, safeTanh, sigmoid } from "./wgsl.ts";

/** gateUp [T, 2 I] -> y [T, I]. */
export const swigluForward = inVectors(
  ({ I }) => [I],
  ({ count, view, wgsl }) =>
    kernel({
      name: "swigluForward",
      read: { gateUp: `f32[T, 2*I]${view}` },
      write: { y: `f32[T, I]${view}` },
      uniforms: { T: "u32", I: "u32" },
      wgsl: /* wgsl */ `${wgsl}${sigmoid("E")}
fn element(row: u32, column: u32) {
  let width = u.I / LANES;
  let i = row * width + column;
  let at = 2u * row * width + column;
  let gate = gateUp[at];
  y[i] = gate * sigmoid(gate) * gateUp[at + width];
}
${rowElements("u.T", "u.I / LANES")}`,
      grid: ({ T = 0, I = 0 }) => rowElementsGrid(T, I / count),
      cost: ({ T = 0, I = 0 }) => ({ flops: 6 * T * I, bytes: 12 * T * I }),
    }),
);

/** dy [T, I], gateUp [T, 2 I] -> dGateUp [T, 2 I]. */
export const swigluBackward = inVectors(
  ({ I }) => [I],
  ({ count, view, wgsl }) =>
    kernel({
      name: "swigluBackward",
      read: { dy: `f32[T, I]${view}`, gateUp: `f32[T, 2*I]${view}` },
      write: { dGateUp: `f32[T, 2*I]${view}` },
      uniforms: { T: "u32", I: "u32" },
      wgsl: /* wgsl */ `${wgsl}${sigmoid("E")}
fn element(row: u32, column: u32) {
  let width = u.I / LANES;
  let i = row * width + column;
  let at = 2u * row * width + column;
  let gate = gateUp[at];
  let up = gateUp[at + width];
  let s = sigmoid(gate);
  dGateUp[at] = dy[i] * up * s * (1.0 + gate * (1.0 - s));
  dGateUp[at + width] = dy[i] * gate * s;
}
${rowElements("u.T", "u.I / LANES")}`,
      grid: ({ T = 0, I = 0 }) => rowElementsGrid(T, I / count),
      cost: ({ T = 0, I = 0 }) => ({ flops: 11 * T * I, bytes: 20 * T * I }),
    }),
);

const geluConstants = /* wgsl */ `
const ROOT_2_OVER_PI: f32 = 0.7978845608028654;
const CUBIC: f32 = 0.044715;
`;

/** x [T, I] -> y [T, I]. */
export const geluForward = inVectors(
  ({ I }) => [I],
  ({ count, view, wgsl }) =>
    kernel({
      name: "geluForward",
      read: { x: `f32[T, I]${view}` },
      write: { y: `f32[T, I]${view}` },
      uniforms: { T: "u32", I: "u32" },
      wgsl: /* wgsl */ `${wgsl}${safeTanh}${geluConstants}
fn element(row: u32, column: u32) {
  let width = u.I / LANES;
  let i = row * width + column;
  let value = x[i];
  y[i] = 0.5 * value * (1.0 + safeTanh(ROOT_2_OVER_PI * (value + CUBIC * value * value * value)));
}
${rowElements("u.T", "u.I / LANES")}`,
      grid: ({ T = 0, I = 0 }) => rowElementsGrid(T, I / count),
      cost: ({ T = 0, I = 0 }) => ({ flops: 9 * T * I, bytes: 8 * T * I }),
    }),
);

/** dy [T, I], x [T, I] -> dx [T, I]. */
export const geluBackward = inVectors(
  ({ I }) => [I],
  ({ count, view, wgsl }) =>
    kernel({
      name: "geluBackward",
      read: { dy: `f32[T, I]${view}`, x: `f32[T, I]${view}` },
      write: { dx: `f32[T, I]${view}` },
      uniforms: { T: "u32", I: "u32" },
      wgsl: /* wgsl */ `${wgsl}${safeTanh}${geluConstants}
fn element(row: u32, column: u32) {
  let width = u.I / LANES;
  let i = row * width + column;
  let value = x[i];
  let t = safeTanh(ROOT_2_OVER_PI * (value + CUBIC * value * value * value));
  let slope = ROOT_2_OVER_PI * (1.0 + 3.0 * CUBIC * value * value);
  dx[i] = dy[i] * 0.5 * (1.0 + t + value * (1.0 - t * t) * slope);
}
${rowElements("u.T", "u.I / LANES")}`,
      grid: ({ T = 0, I = 0 }) => rowElementsGrid(T, I / count),
      cost: ({ T = 0, I = 0 }) => ({ flops: 16 * T * I, bytes: 12 * T * I }),
    }),
);
