/**
 * Rotary position embedding, in place on the query and key heads of fused rows [q | k | v].
 *
 *   (x1, x2) <- (x1 cos - x2 sin, x2 cos + x1 sin),   x1 = x[i], x2 = x[i + D/2],   angle = position frequency[i]
 *
 * Hugging Face's pairing (i, i + D/2). The backward pass is the rotation by the negative angle. Angles come from a
 * table made on the host in float64 (`rope-table.ts`): WGSL promises only 11 bits of sin and cos.
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
 * `rope` for heads of which only the first 2 `halfSize` of `headSize` channels are rotated, channel i with channel
 * i + halfSize, and for tables of two regimes (LongRoPE): a position with its highest bit set is turned by the second
 * half of the table's P rows, the others by the first, or by all of them where `regimes` is 1.
 */
export const partialRope = ofActivations(
  ({ halfSize, headSize, W }) => [halfSize, headSize, W],
  (lanes) =>
    kernel({
      name: "partialRope",
      read: { positions: "u32[T]", table: `f32[P, 2, halfSize]${lanes.view}` },
      write: { x: lanes.activations("T, W") },
      uniforms: {
        ...{ T: "u32", W: "u32", P: "u32", heads: "u32", halfSize: "u32", headSize: "u32" },
        ...{ regimes: "u32", direction: "f32" },
      },
      wgsl: /* wgsl */ `${lanes.wgsl}
fn element(row: u32, column: u32) {
  let half = u.halfSize / LANES;
  let head = column / half;
  let pair = column - head * half;
  let rows = u.P / u.regimes;
  let position = positions[row];
  let entry = (min(position & ${0x7fffffff}u, rows - 1u) + (position >> 31u) * (u.P - rows)) * 2u * half + pair;
  let cosine = table[entry];
  let sine = table[entry + half] * u.direction;
  let at = row * (u.W / LANES) + head * (u.headSize / LANES) + pair;
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
