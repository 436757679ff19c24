/**
 * WGSL of RMSNorm between two products (`NormPart`): what the one that gives the stream leaves for it, and what the one
 * that takes the normed rows makes of that. Text only; a norm with a dispatch of its own is in `norm.ts`.
 *
 *   scaled[m, c] = x[m, c] (gainOffset + gain[c])      squares[m, t] = sum of x[m, c]^2 over the columns c of tile t
 *   rowFactor(m) = 1 / sqrt(sum_t squares[m, t] / C + epsilon)
 */
import type { MatmulTile } from "./matmul-sums.ts";
import type { MatmulVariant, NormPart } from "./matmul-variant.ts";

/** `rowFactor(row)`, by one lane; beyond the last row that of the last. */
export const factorOfRow = /* wgsl */ `
fn rowFactor(row: u32) -> f32 {
  let first = min(row, u.M - 1u) * u.tiles;
  var squared = 0.0;
  for (var tile = 0u; tile < u.tiles; tile++) { squared += squares[first + tile]; }
  return inverseSqrt(squared / f32(u.K) + u.epsilon);
}
`;

/** `onlyFactor(lane)` of a product of one row, by all lanes of a subgroup. */
export const factorOfOnlyRow = (lanes: number): string => /* wgsl */ `
fn onlyFactor(lane: u32) -> f32 {
  var squared = 0.0;
  for (var tile = lane; tile < u.tiles; tile += ${lanes}u) { squared += squares[tile]; }
  return inverseSqrt(subgroupAdd(squared) / f32(u.K) + u.epsilon);
}
`;

/** What a product declares beside its own. A norm's weight may be stored around 0: then `gainOffset` is 1. */
interface NormBindings {
  readonly read: Readonly<Record<string, string>>;
  readonly write: Readonly<Record<string, string>>;
  readonly uniforms: Readonly<Record<string, "u32" | "f32">>;
}

const BINDINGS: Readonly<Record<NormPart, NormBindings>> = {
  gives: {
    read: { gain: "f32[N] as vec4f" },
    write: { scaled: "f32[M, N] as vec4f", squares: "f32[M, tiles]" },
    uniforms: { tiles: "u32", gainOffset: "f32" },
  },
  takes: { read: { squares: "f32[M, tiles]" }, write: {}, uniforms: { tiles: "u32", epsilon: "f32" } },
};

export const normBindings = ({ norm }: MatmulVariant): NormBindings =>
  norm === undefined ? { read: {}, write: {}, uniforms: {} } : BINDINGS[norm];

/** Statements for `value`, four numbers of the stream at `row` and `column`: they add to the row's `squared`. */
export const GIVE_SCALED = /* wgsl */ `
  scaled[(row * u.N + column) / 4u] = value * (u.gainOffset + gain[column / 4u]);
  return dot(value, value);`;

/** What is around the fours of a row: its sum of squares in this tile, over all lanes. */
export const aroundFours = ({ leads, columns }: MatmulTile) => ({
  before: "var squared = 0.0;",
  after: /* wgsl */ `let all = columnsSum(squared, lane);
    if (${leads}) { squares[row * u.tiles + firstColumn / ${columns}u] = all; }`,
});
