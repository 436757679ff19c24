/**
 * The gate of attention's output (Qwen3.5): out = x sigmoid(gate). Queries and gates come from one projection, in whose
 * rows, fused [T, F], each of H heads has its D queries and then its D gates, before keys and values. Attention reads
 * rows without gates, qkv [T, W] with W = F - H D.
 *
 *   dx = dOut sigmoid(gate),   dGate = dOut x sigmoid(gate) sigmoid(-gate)
 */
import { kernel, type Values } from "./kernel.ts";
import { inVectors, type Lanes, ofActivations, rowElements, rowElementsGrid, sigmoid } from "./wgsl.ts";

const widths = ({ D, F, W }: Values) => [D, F, W];

/** WGSL: where in a fused row an element of a row without gates is, and where a gate is. */
const PLACES = /* wgsl */ `
fn placeOf(row: u32, column: u32) -> u32 {
  let size = u.D / LANES;
  let queries = u.heads * size;
  return row * (u.F / LANES) + column + select(queries, column / size * size, column < queries);
}
fn gateOf(row: u32, column: u32) -> u32 {
  let size = u.D / LANES;
  return row * (u.F / LANES) + column + (column / size + 1u) * size;
}`;

const UNIFORMS = { T: "u32", F: "u32", D: "u32", heads: "u32" } as const;

const gridOf = (lanes: Lanes) => (values: Values) =>
  rowElementsGrid(values.T ?? 0, ((values.heads ?? 0) * (values.D ?? 0)) / lanes.count);

/** fused [T, F] -> qkv [T, W]. */
export const splitGates = ofActivations(widths, (lanes) =>
  kernel({
    name: "splitGates",
    read: { fused: lanes.activations("T, F") },
    write: { qkv: lanes.activations("T, W") },
    uniforms: { ...UNIFORMS, W: "u32" },
    wgsl: /* wgsl */ `${lanes.wgsl}${PLACES}
fn element(row: u32, column: u32) { qkv[row * (u.W / LANES) + column] = fused[placeOf(row, column)]; }
${rowElements("u.T", "u.W / LANES")}`,
    grid: ({ T = 0, W = 0 }) => rowElementsGrid(T, W / lanes.count),
    cost: ({ T = 0, W = 0 }) => ({ flops: 0, bytes: 2 * lanes.activationBytes * T * W }),
  }),
);

/** dQkv [T, W] -> its places in dFused [T, F]; the gates' stay. */
export const joinGates = inVectors(widths, (lanes) =>
  kernel({
    name: "joinGates",
    read: { dQkv: `f32[T, W]${lanes.view}` },
    write: { dFused: `f32[T, F]${lanes.view}` },
    uniforms: { ...UNIFORMS, W: "u32" },
    wgsl: /* wgsl */ `${lanes.wgsl}${PLACES}
fn element(row: u32, column: u32) { dFused[placeOf(row, column)] = dQkv[row * (u.W / LANES) + column]; }
${rowElements("u.T", "u.W / LANES")}`,
    grid: ({ T = 0, W = 0 }) => rowElementsGrid(T, W / lanes.count),
    cost: ({ T = 0, W = 0 }) => ({ flops: 0, bytes: 8 * T * W }),
  }),
);

/** fused [T, F], x [T, heads D] -> out [T, heads D]. */
export const outputGateForward = ofActivations(
  ({ D, F }) => [D, F],
  (lanes) =>
    kernel({
      name: "outputGateForward",
      read: { fused: lanes.activations("T, F"), x: lanes.activations("T, heads*D") },
      write: { out: lanes.activations("T, heads*D") },
      uniforms: UNIFORMS,
      wgsl: /* wgsl */ `${lanes.wgsl}${sigmoid("E")}${PLACES}
fn element(row: u32, column: u32) {
  let i = row * u.heads * (u.D / LANES) + column;
  out[i] = A(E(x[i]) * sigmoid(E(fused[gateOf(row, column)])));
}
${rowElements("u.T", "u.heads * (u.D / LANES)")}`,
      grid: gridOf(lanes),
      cost: ({ T = 0, heads = 0, D = 0 }) => ({
        flops: 5 * T * heads * D,
        bytes: 3 * lanes.activationBytes * T * heads * D,
      }),
    }),
);

/** dOut [T, heads D] -> dx, in place, and the gates' columns of dFused [T, F]. */
export const outputGateBackward = ofActivations(
  ({ D, F }) => [D, F],
  (lanes) =>
    kernel({
      name: "outputGateBackward",
      read: { fused: lanes.activations("T, F"), x: lanes.activations("T, heads*D") },
      write: { dOut: `f32[T, heads*D]${lanes.view}`, dFused: `f32[T, F]${lanes.view}` },
      uniforms: UNIFORMS,
      wgsl: /* wgsl */ `${lanes.wgsl}${sigmoid("E")}${PLACES}
fn element(row: u32, column: u32) {
  let i = row * u.heads * (u.D / LANES) + column;
  let at = gateOf(row, column);
  let gate = E(fused[at]);
  let dx = dOut[i] * sigmoid(gate);
  dFused[at] = dx * E(x[i]) * sigmoid(-gate);
  dOut[i] = dx;
}
${rowElements("u.T", "u.heads * (u.D / LANES)")}`,
      grid: gridOf(lanes),
      cost: ({ T = 0, heads = 0, D = 0 }) => ({
        flops: 11 * T * heads * D,
        bytes: (12 + 2 * lanes.activationBytes) * T * heads * D,
      }),
    }),
);
