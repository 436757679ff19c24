/**
 * Rotary position embedding, in place on the query and key heads of fused rows [q | k | v].
 *
 *   (x1, x2) <- (x1 cos - x2 sin, x2 cos + x1 sin),   x1 = x[i], x2 = x[i + D/2],   angle = position frequency[i]
 *
 * Hugging Face's pairing (i, i + D/2). The backward pass is the rotation by the negative angle. Angles come from a
 * table made on the host in float64: WGSL promises only 11 bits of sin and cos. Frequencies are theta^(-2i/D), scaled
 * for contexts longer than the first training's.
 */
import { kernel } from "./kernel.ts";
import { inVectors, ofActivations, rowElements, rowElementsGrid } from "./wgsl.ts";

/** x [T, W]: `heads` heads of size 2 `halfSize` from column 0 are rotated; `direction` is 1 or -1 (backward). */
export const rope = ofActivations(
  ({ halfSize, W }) => [halfSize, W],
  (lanes) =>
    kernel({
      name: "rope",
      read: { positions: "u32[T]", table: `f32[P, 2, halfSize]${lanes.view}` },
      write: { x: lanes.activations("T, W") },
      uniforms: { T: "u32", W: "u32", P: "u32", heads: "u32", halfSize: "u32", direction: "f32" },
      wgsl: /* wgsl */ `${lanes.wgsl}
fn element(row: u32, column: u32) {
  let half = u.halfSize / LANES;
  let head = column / half;
  let pair = column - head * half;
  let entry = min(positions[row], u.P - 1u) * 2u * half + pair;
  let cosine = table[entry];
  let sine = table[entry + half] * u.direction;
  let at = row * (u.W / LANES) + head * 2u * half + pair;
  let x1 = E(x[at]);
  let x2 = E(x[at + half]);
  x[at] = A(x1 * cosine - x2 * sine);
  x[at + half] = A(x2 * cosine + x1 * sine);
}
${rowElements("u.T", "u.heads * (u.halfSize / LANES)")}`,
      grid: ({ T = 0, heads = 0, halfSize = 0 }) => rowElementsGrid(T, heads * (halfSize / lanes.count)),
      cost: ({ T = 0, heads = 0, halfSize = 0 }) => ({
        flops: 6 * T * heads * halfSize,
        bytes: 4 * lanes.activationBytes * T * heads * halfSize,
      }),
    }),
);

/**
 * The rotation of rows [q | k | v] whose keys and values go into a cache, in one pass: x [T, W] has its `heads` query
 * heads rotated in place, and where cacheRows[t] is a row of keys [V, KV] and values [V, KV], these get the rotated
 * keys and the values of row t. The same numbers as `rope` and two `scatterRows` give. Cache rows must not repeat.
 */
export const ropeIntoCache = inVectors(
  ({ halfSize, W, KV }) => [halfSize, W, KV],
  (lanes) =>
    kernel({
      name: "ropeIntoCache",
      read: { positions: "u32[T]", table: `f32[P, 2, halfSize]${lanes.view}`, cacheRows: "u32[T]" },
      write: { x: `f32[T, W]${lanes.view}`, keys: `f32[V, KV]${lanes.view}`, values: `f32[V, KV]${lanes.view}` },
      uniforms: { T: "u32", W: "u32", P: "u32", V: "u32", KV: "u32", heads: "u32", halfSize: "u32" },
      wgsl: /* wgsl */ `${lanes.wgsl}
fn element(row: u32, column: u32) {
  let half = u.halfSize / LANES;
  let head = column / half;
  let pair = column - head * half;
  let at = row * (u.W / LANES) + head * 2u * half + pair;
  let x1 = x[at];
  let x2 = x[at + half];
  let keyHeads = u.KV / (2u * u.halfSize);
  let cacheRow = cacheRows[row];
  let cached = cacheRow * (u.KV / LANES) + pair;
  if (head >= u.heads + keyHeads) {
    if (cacheRow < u.V) {
      let place = cached + (head - u.heads - keyHeads) * 2u * half;
      values[place] = x1;
      values[place + half] = x2;
    }
    return;
  }
  let entry = min(positions[row], u.P - 1u) * 2u * half + pair;
  let cosine = table[entry];
  let sine = table[entry + half];
  let y1 = x1 * cosine - x2 * sine;
  let y2 = x2 * cosine + x1 * sine;
  if (head < u.heads) {
    x[at] = y1;
    x[at + half] = y2;
  } else if (cacheRow < u.V) {
    let place = cached + (head - u.heads) * 2u * half;
    keys[place] = y1;
    keys[place + half] = y2;
  }
}
${rowElements("u.T", "u.W / LANES / 2u")}`,
      grid: ({ T = 0, W = 0 }) => rowElementsGrid(T, W / lanes.count / 2),
      cost: ({ T = 0, W = 0, KV = 0 }) => ({ flops: 3 * T * (W - KV), bytes: 8 * T * W }),
    }),
);

/**
 * Scaling of the frequencies. "linear" divides all of them by the factor (position interpolation, Chen et al. 2023).
 * "llama3" divides those that turn less than `lowFrequencyFactor` times within the original context, keeps those that
 * turn more than `highFrequencyFactor` times, and blends in between (Llama 3.1, Grattafiori et al. 2024).
 */
export type RopeScaling =
  | { readonly type: "none" }
  | { readonly type: "linear"; readonly factor: number }
  | {
      readonly type: "llama3";
      readonly factor: number;
      readonly lowFrequencyFactor: number;
      readonly highFrequencyFactor: number;
      /** In tokens. */
      readonly originalContextLength: number;
    };

/** Radians a position, [D/2]. */
export function ropeFrequencies(headSize: number, theta: number, scaling: RopeScaling): Float64Array {
  const scaled = (frequency: number): number => {
    if (scaling.type === "none") return frequency;
    if (scaling.type === "linear") return frequency / scaling.factor;
    const { factor, lowFrequencyFactor: low, highFrequencyFactor: high, originalContextLength } = scaling;
    const turns = (originalContextLength * frequency) / (2 * Math.PI);
    const kept = Math.min(1, Math.max(0, (turns - low) / (high - low)));
    return kept * frequency + ((1 - kept) * frequency) / factor;
  };
  return Float64Array.from({ length: headSize / 2 }, (_, pair) => scaled(theta ** ((-2 * pair) / headSize)));
}

/** The table [positions, 2, D/2], cosines then sines, for `rope`. @param frequencies [D/2], of `ropeFrequencies` */
export function ropeTable(positions: number, frequencies: Float64Array): Float32Array<ArrayBuffer> {
  const half = frequencies.length;
  const table = new Float32Array(positions * half * 2);
  for (const [pair, frequency] of frequencies.entries()) {
    for (let position = 0; position < positions; position++) {
      const at = position * 2 * half + pair;
      table[at] = Math.cos(position * frequency);
      table[at + half] = Math.sin(position * frequency);
    }
  }
  return table;
}
