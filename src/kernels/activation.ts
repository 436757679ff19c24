/**
 * The nonlinearities of the MLP.
 *
 *   SwiGLU   y = silu(gate) up,  silu(x) = x sigmoid(x)       fused rows [gate | up] of width 2 I
 *   GELU     y = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))    the tanh form of GPT-2
 *   GeGLU    y = gelu(gate) up                                    fused rows as SwiGLU's (Gemma)
 *
 * Their arguments and results are activations, in any format; gradients are f32.
 */
import { kernel } from "./kernel.ts";
import { ofActivations, rowElements, rowElementsGrid, safeTanh, sigmoid } from "./wgsl.ts";

/** gateUp [T, 2 I] -> y [T, I]. */
export const swigluForward = ofActivations(
  ({ I }) => [I],
  (lanes) =>
    kernel({
      name: "swigluForward",
      read: { gateUp: lanes.activations("T, 2*I") },
      write: { y: lanes.activations("T, I") },
      uniforms: { T: "u32", I: "u32" },
      wgsl: /* wgsl */ `${lanes.wgsl}${sigmoid("E")}
fn element(row: u32, column: u32) {
  let width = u.I / LANES;
  let i = row * width + column;
  let at = 2u * row * width + column;
  let gate = E(gateUp[at]);
  y[i] = A(gate * sigmoid(gate) * E(gateUp[at + width]));
}
${rowElements("u.T", "u.I / LANES")}`,
      grid: ({ T = 0, I = 0 }) => rowElementsGrid(T, I / lanes.count),
      cost: ({ T = 0, I = 0 }) => ({ flops: 6 * T * I, bytes: 3 * lanes.activationBytes * T * I }),
    }),
);

/** dy [T, I], gateUp [T, 2 I] -> dGateUp [T, 2 I]. */
export const swigluBackward = ofActivations(
  ({ I }) => [I],
  (lanes) =>
    kernel({
      name: "swigluBackward",
      read: { dy: `f32[T, I]${lanes.view}`, gateUp: lanes.activations("T, 2*I") },
      write: { dGateUp: `f32[T, 2*I]${lanes.view}` },
      uniforms: { T: "u32", I: "u32" },
      wgsl: /* wgsl */ `${lanes.wgsl}${sigmoid("E")}
fn element(row: u32, column: u32) {
  let width = u.I / LANES;
  let i = row * width + column;
  let at = 2u * row * width + column;
  let gate = E(gateUp[at]);
  let up = E(gateUp[at + width]);
  let s = sigmoid(gate);
  dGateUp[at] = dy[i] * up * s * (1.0 + gate * (1.0 - s));
  dGateUp[at + width] = dy[i] * gate * s;
}
${rowElements("u.T", "u.I / LANES")}`,
      grid: ({ T = 0, I = 0 }) => rowElementsGrid(T, I / lanes.count),
      cost: ({ T = 0, I = 0 }) => ({ flops: 11 * T * I, bytes: (12 + 2 * lanes.activationBytes) * T * I }),
    }),
);

const geluConstants = /* wgsl */ `
const ROOT_2_OVER_PI: f32 = 0.7978845608028654;
const CUBIC: f32 = 0.044715;
`;

/** x [T, I] -> y [T, I]. */
export const geluForward = ofActivations(
  ({ I }) => [I],
  (lanes) =>
    kernel({
      name: "geluForward",
      read: { x: lanes.activations("T, I") },
      write: { y: lanes.activations("T, I") },
      uniforms: { T: "u32", I: "u32" },
      wgsl: /* wgsl */ `${lanes.wgsl}${safeTanh}${geluConstants}
fn element(row: u32, column: u32) {
  let width = u.I / LANES;
  let i = row * width + column;
  let value = E(x[i]);
  y[i] = A(0.5 * value * (1.0 + safeTanh(ROOT_2_OVER_PI * (value + CUBIC * value * value * value))));
}
${rowElements("u.T", "u.I / LANES")}`,
      grid: ({ T = 0, I = 0 }) => rowElementsGrid(T, I / lanes.count),
      cost: ({ T = 0, I = 0 }) => ({ flops: 9 * T * I, bytes: 2 * lanes.activationBytes * T * I }),
    }),
);

/** dy [T, I], x [T, I] -> dx [T, I]. */
export const geluBackward = ofActivations(
  ({ I }) => [I],
  (lanes) =>
    kernel({
      name: "geluBackward",
      read: { dy: `f32[T, I]${lanes.view}`, x: lanes.activations("T, I") },
      write: { dx: `f32[T, I]${lanes.view}` },
      uniforms: { T: "u32", I: "u32" },
      wgsl: /* wgsl */ `${lanes.wgsl}${safeTanh}${geluConstants}
fn element(row: u32, column: u32) {
  let width = u.I / LANES;
  let i = row * width + column;
  let value = E(x[i]);
  let t = safeTanh(ROOT_2_OVER_PI * (value + CUBIC * value * value * value));
  let slope = ROOT_2_OVER_PI * (1.0 + 3.0 * CUBIC * value * value);
  dx[i] = dy[i] * 0.5 * (1.0 + t + value * (1.0 - t * t) * slope);
}
${rowElements("u.T", "u.I / LANES")}`,
      grid: ({ T = 0, I = 0 }) => rowElementsGrid(T, I / lanes.count),
      cost: ({ T = 0, I = 0 }) => ({ flops: 16 * T * I, bytes: (8 + lanes.activationBytes) * T * I }),
    }),
);

/** WGSL: `geluTanh(x)`, the tanh in GELU. */
const geluTanh = /* wgsl */ `${safeTanh}${geluConstants}
fn geluTanh(x: E) -> E { return safeTanh(ROOT_2_OVER_PI * (x + CUBIC * x * x * x)); }
`;

/** gateUp [T, 2 I] -> y [T, I]. */
export const gegluForward = ofActivations(
  ({ I }) => [I],
  (lanes) =>
    kernel({
      name: "gegluForward",
      read: { gateUp: lanes.activations("T, 2*I") },
      write: { y: lanes.activations("T, I") },
      uniforms: { T: "u32", I: "u32" },
      wgsl: /* wgsl */ `${lanes.wgsl}${geluTanh}
fn element(row: u32, column: u32) {
  let width = u.I / LANES;
  let i = row * width + column;
  let at = 2u * row * width + column;
  let gate = E(gateUp[at]);
  y[i] = A(0.5 * gate * (1.0 + geluTanh(gate)) * E(gateUp[at + width]));
}
${rowElements("u.T", "u.I / LANES")}`,
      grid: ({ T = 0, I = 0 }) => rowElementsGrid(T, I / lanes.count),
      cost: ({ T = 0, I = 0 }) => ({ flops: 10 * T * I, bytes: 3 * lanes.activationBytes * T * I }),
    }),
);

/** dy [T, I], gateUp [T, 2 I] -> dGateUp [T, 2 I]. */
export const gegluBackward = ofActivations(
  ({ I }) => [I],
  (lanes) =>
    kernel({
      name: "gegluBackward",
      read: { dy: `f32[T, I]${lanes.view}`, gateUp: lanes.activations("T, 2*I") },
      write: { dGateUp: `f32[T, 2*I]${lanes.view}` },
      uniforms: { T: "u32", I: "u32" },
      wgsl: /* wgsl */ `${lanes.wgsl}${geluTanh}
fn element(row: u32, column: u32) {
  let width = u.I / LANES;
  let i = row * width + column;
  let at = 2u * row * width + column;
  let gate = E(gateUp[at]);
  let t = geluTanh(gate);
  let slope = ROOT_2_OVER_PI * (1.0 + 3.0 * CUBIC * gate * gate);
  dGateUp[at] = dy[i] * E(gateUp[at + width]) * 0.5 * (1.0 + t + gate * (1.0 - t * t) * slope);
  dGateUp[at + width] = dy[i] * 0.5 * gate * (1.0 + t);
}
${rowElements("u.T", "u.I / LANES")}`,
      grid: ({ T = 0, I = 0 }) => rowElementsGrid(T, I / lanes.count),
      cost: ({ T = 0, I = 0 }) => ({ flops: 20 * T * I, bytes: (12 + 2 * lanes.activationBytes) * T * I }),
    }),
);
