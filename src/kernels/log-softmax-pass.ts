/**
 * A pass over the vocabulary that forms logits a tile at a time and keeps a few numbers of each row, the body that the
 * head's pass 1 and the logit statistics share. The vocabulary is walked in splits, each by its own workgroups; what
 * they kept is combined by another kernel.
 */
import type { MatmulTile } from "./matmul-tile.ts";
import { MATMUL_UNIFORMS } from "./matmul-variant.ts";
import { range, unknownCount } from "./wgsl.ts";

/**
 * What distinguishes the passes, as WGSL. The module declares a struct `Kept`, its start value `NOTHING`, and
 * `take(kept, logits, column, end, given)`, which adds to a row's Kept the logits of four more columns from `column`
 * on, of which those at and beyond `end` do not exist.
 */
export interface VocabularyPass {
  /** The number that is given for each row: its type, and its value in terms of `row`. */
  readonly givenType: "u32" | "f32";
  readonly given: string;
  /** Statements that reduce `kept`, a row's Kept of one lane, over all lanes that share its columns. */
  readonly reduce: string;
  /** Statements that store what these gave, in terms of `row`, `given`, `start`, `end` and `at`, the split's row. */
  readonly store: string;
}

/** The splits in all, the first of these workgroups', and the tokens of each. */
export const PASS_UNIFORMS = { ...MATMUL_UNIFORMS, splits: "u32", firstSplit: "u32", splitColumns: "u32" } as const;

/** The entry point of a divisible kernel with the uniforms `PASS_UNIFORMS`. */
export function vocabularyPass(tile: MatmulTile, { givenType, given, reduce, store }: VocabularyPass): string {
  const ownRows = unknownCount(tile.ownRows, "u.M");
  const ownRow = tile.rowStep === 1 ? "ownFirst + r" : `ownFirst + r * ${tile.rowStep}u`;
  const each = (text: (r: number) => string) => range(tile.ownRows).map(text).join("\n  ");
  return /* wgsl */ `${tile.declarations}
${tile.acrossColumns}
@compute @workgroup_size(${tile.groupSize})
fn main(${tile.parameters}) {
  // Rows first, so that a split's part of the table is read once into the caches.
  let place = placeInGrid(group);
  let firstRow = place.x * ${tile.rows}u;
  let start = place.y * u.splitColumns;
  let end = min(start + u.splitColumns, u.N);
  ${tile.setup}
  var allGiven: array<${givenType}, ${tile.ownRows}>;
  for (var r = 0u; r < ${ownRows}; r++) {
    let row = min(${ownRow}, u.M - 1u);
    allGiven[r] = ${given};
  }
  ${each((r) => `var kept${r} = NOTHING; let given${r} = allGiven[${r}];`)}
  for (var firstColumn = start; firstColumn < end; firstColumn += ${tile.columns}u) {
    ${tile.matmul}
    ${each((r) => takes(tile, r))}
  }
  var allKept = array<Kept, ${tile.ownRows}>(${range(tile.ownRows)
    .map((r) => `kept${r}`)
    .join(", ")});
  for (var r = 0u; r < ${ownRows}; r++) {
    let row = ${ownRow};
    let kept = allKept[r];
    let given = allGiven[r];
    ${reduce}
    if (${tile.leads} && row < u.M) {
      let at = (u.firstSplit + place.y) * u.M + row;
      ${store}
    }
  }
}`;
}

/** A row's Kept with the logits of its fours of columns. */
const takes = ({ ownFours, fourStep }: MatmulTile, row: number): string =>
  range(ownFours)
    .map((four) => {
      const column = four === 0 ? "column" : `column + ${four * fourStep}u`;
      return `kept${row} = take(kept${row}, sum${row * ownFours + four}, ${column}, end, given${row});`;
    })
    .join(" ");

/** The grid of a pass over N columns for M rows. */
export function vocabularyGrid(tile: MatmulTile, M: number, N: number, splitColumns: number): [number, number] {
  return [Math.ceil(M / tile.rows), Math.ceil(N / splitColumns)];
}
