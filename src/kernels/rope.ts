/**
 * Rotary position embedding, in place on the query and key heads of fused rows [q | k | v].
 *
 *   (x1, x2) <- (x1 cos - x2 sin, x2 cos + x1 sin),   x1 = x[i], x2 = x[i + D/2],   angle = position theta^(-2i/D)
 *
 * Hugging Face's pairing (i, i + D/2). The backward pass is the rotation by the negative angle. Angles come from a
 * table made on the host in float64: WGSL promises only 11 bits of sin and cos.
 */
import { kernel } from "./kernel.ts";
import { rowElements, rowElementsGrid } from "./wgsl.ts";

/** x [T, W]: `heads` heads of size 2 `halfSize` from column 0 are rotated; `direction` is 1 or -1 (backward). */
export const rope = kernel({
  name: "rope",
  read: { positions: "u32[T]", table: "f32[P, halfSize, 2]" },
  write: { x: "f32[T, W]" },
  uniforms: { T: "u32", W: "u32", P: "u32", heads: "u32", halfSize: "u32", direction: "f32" },
  wgsl: /* wgsl */ `
fn element(row: u32, column: u32) {
  let head = column / u.halfSize;
  let pair = column - head * u.halfSize;
  let entry = (min(positions[row], u.P - 1u) * u.halfSize + pair) * 2u;
  let cosine = table[entry];
  let sine = table[entry + 1u] * u.direction;
  let at = row * u.W + head * 2u * u.halfSize + pair;
  let x1 = x[at];
  let x2 = x[at + u.halfSize];
  x[at] = x1 * cosine - x2 * sine;
  x[at + u.halfSize] = x2 * cosine + x1 * sine;
}
${rowElements("u.T", "u.heads * u.halfSize")}`,
  grid: ({ T = 0, heads = 0, halfSize = 0 }) => rowElementsGrid(T, heads * halfSize),
  cost: ({ T = 0, heads = 0, halfSize = 0 }) => ({ flops: 6 * T * heads * halfSize, bytes: 16 * T * heads * halfSize }),
});

/** The table [positions, D/2, 2] of (cos, sin) for `rope`. */
export function ropeTable(positions: number, headSize: number, theta: number): Float32Array<ArrayBuffer> {
  const half = headSize / 2;
  const table = new Float32Array(positions * half * 2);
  for (let pair = 0; pair < half; pair++) {
    const frequency = theta ** ((-2 * pair) / headSize);
    for (let position = 0; position < positions; position++) {
      const at = (position * half + pair) * 2;
      table[at] = Math.cos(position * frequency);
      table[at + 1] = Math.sin(position * frequency);
    }
  }
  return table;
}
