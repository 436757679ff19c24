/**
 * Elementwise factors in place: of whole rows by a number (the embeddings of Gemma and Granite, Granite's logits) or by
 * a number for each position (the queries of Ministral 3), and the soft cap of logits (Gemma).
 *
 *   scaleRows        x <- factor x
 *   scaleByPosition  x[t, c] <- factors[positions[t]] x[t, c],  c < columns
 *   softCap          x <- cap tanh(x / cap)
 *
 * The first two are their own backward passes. In training caps are taken inside attention and the head, by
 * `softCapFunctions`; the kernel here is for logits that are read.
 */
import { kernel } from "./kernel.ts";
import { inVectors, ofActivations, rowElements, rowElementsGrid } from "./wgsl.ts";

/**
 * WGSL: `softCapped(x)`, cap tanh(x / cap), of this type, and `softCapSlope(y)`, its derivative where it is y. Beyond
 * +-9.01 f32 tanh is +-1, and some drivers' exponential form overflows to NaN.
 */
export const softCapFunctions = (type: string, cap: number): string => /* wgsl */ `
const CAP: f32 = ${cap};
fn softCapped(x: ${type}) -> ${type} { return CAP * tanh(clamp(x / CAP, ${type}(-9.01), ${type}(9.01))); }
fn softCapSlope(y: ${type}) -> ${type} { return 1.0 - (y / CAP) * (y / CAP); }
`;

/**
 * The texts of a function over logits in whose head stands `${parameter}: vec4f`: `functions` that it needs, and `logits`,
 * which begins its body and declares `logits` where the parameter is not called so already.
 */
export function cappedLogits(cap: number | undefined): { functions: string; parameter: string; logits: string } {
  if (cap === undefined) return { functions: "", parameter: "logits", logits: "" };
  return {
    functions: softCapFunctions("vec4f", cap),
    parameter: "product",
    logits: /* wgsl */ `
  let logits = softCapped(product);`,
  };
}

/** Caches of kernels by their texts' keys, one for each soft cap and one for none. */
export function cachesByCap<K>(): (cap: number | undefined) => Map<string, K> {
  const caches = new Map<number | undefined, Map<string, K>>();
  return (cap) => {
    const found = caches.get(cap) ?? new Map<string, K>();
    caches.set(cap, found);
    return found;
  };
}

/** x [N, C] *= factor. */
export const scaleRows = inVectors(
  ({ C }) => [C],
  (lanes) =>
    kernel({
      name: "scaleRows",
      read: {},
      write: { x: `f32[N, C]${lanes.view}` },
      uniforms: { N: "u32", C: "u32", factor: "f32" },
      wgsl: /* wgsl */ `${lanes.wgsl}
fn element(row: u32, column: u32) {
  let i = row * (u.C / LANES) + column;
  x[i] = u.factor * x[i];
}
${rowElements("u.N", "u.C / LANES")}`,
      grid: ({ N = 0, C = 0 }) => rowElementsGrid(N, C / lanes.count),
      cost: ({ N = 0, C = 0 }) => ({ flops: N * C, bytes: 8 * N * C }),
    }),
);

/** The first `columns` columns of x [T, W] *= factors [P] of each row's position; beyond the last it is the last's. */
export const scaleByPosition = ofActivations(
  ({ columns, W }) => [columns, W],
  (lanes) =>
    kernel({
      name: "scaleByPosition",
      read: { positions: "u32[T]", factors: "f32[P]" },
      write: { x: lanes.activations("T, W") },
      uniforms: { T: "u32", W: "u32", P: "u32", columns: "u32" },
      wgsl: /* wgsl */ `${lanes.wgsl}
fn element(row: u32, column: u32) {
  let i = row * (u.W / LANES) + column;
  x[i] = A(factors[min(positions[row], u.P - 1u)] * E(x[i]));
}
${rowElements("u.T", "u.columns / LANES")}`,
      grid: ({ T = 0, columns = 0 }) => rowElementsGrid(T, columns / lanes.count),
      cost: ({ T = 0, columns = 0 }) => ({ flops: T * columns, bytes: 2 * lanes.activationBytes * T * columns }),
    }),
);

const softCaps = new Map<number, ReturnType<typeof softCapOf>>();

const softCapOf = (cap: number) =>
  inVectors(
    ({ C }) => [C],
    (lanes) =>
      kernel({
        name: "softCap",
        read: {},
        write: { x: `f32[N, C]${lanes.view}` },
        uniforms: { N: "u32", C: "u32" },
        wgsl: /* wgsl */ `${lanes.wgsl}${softCapFunctions("E", cap)}
fn element(row: u32, column: u32) {
  let i = row * (u.C / LANES) + column;
  x[i] = softCapped(x[i]);
}
${rowElements("u.N", "u.C / LANES")}`,
        grid: ({ N = 0, C = 0 }) => rowElementsGrid(N, C / lanes.count),
        cost: ({ N = 0, C = 0 }) => ({ flops: 4 * N * C, bytes: 8 * N * C }),
      }),
  );

/** x [N, C] <- cap tanh(x / cap). */
export function softCap(cap: number): ReturnType<typeof softCapOf> {
  const found = softCaps.get(cap) ?? softCapOf(cap);
  softCaps.set(cap, found);
  return found;
}
