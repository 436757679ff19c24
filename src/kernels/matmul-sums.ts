/**
 * What all tiles of a matmul share: the WGSL that they give to an epilogue, how it walks their sums, and the products
 * of four steps along k. No tile is here; these are in `matmul-row-tile.ts`, `matmul-subgroup-tile.ts` and
 * `matmul-workgroup-tile.ts`.
 */
import type { MatmulLayout, MatmulVariant } from "./matmul-variant.ts";
import { COMPONENTS, range, unknownCount } from "./wgsl.ts";

/**
 * A tile of a matmul in registers: WGSL on which other kernels build their own epilogue. The entry point has the
 * parameters `group` and `lane` and declares `firstRow` and `firstColumn`. `setup` declares `ownFirst`, the first of
 * the invocation's `ownRows` rows, which are `rowStep` apart; `matmul` declares `column` and, row by row, `sum0`,
 * `sum1` and so on, each a vec4f: the columns `column` to `column + 3`, and those of the row's further fours. M, N, K,
 * aWidth and aFrom are members of the uniforms.
 */
export interface MatmulTile {
  readonly enable: readonly string[];
  readonly groupSize: number;
  /** Result rows and columns that one workgroup covers. */
  readonly rows: number;
  readonly columns: number;
  readonly declarations: string;
  readonly parameters: string;
  /** Once, after `firstRow`. */
  readonly setup: string;
  /** Declares the sums and computes them for `firstRow` and `firstColumn`. */
  readonly matmul: string;
  readonly ownRows: number;
  /** From one of the invocation's rows to the next. */
  readonly rowStep: number;
  /** Fours of columns that an invocation has of its rows, and columns from one four to the next. */
  readonly ownFours: number;
  readonly fourStep: number;
  /** `columnsMax(value, lane)` and `columnsSum(value, lane)`: over all invocations that share the caller's rows. */
  readonly acrossColumns: string;
  /** Is this invocation the one that writes for its rows? */
  readonly leads: string;
}

/** Component `component` of four vectors named by this prefix, as one vector. */
export const fourRows = (prefix: string, component: number): string =>
  `vec4f(${range(4)
    .map((i) => `${prefix}${i}.${COMPONENTS[component]}`)
    .join(", ")})`;

/** Loads of op(B) rows k to k + 3 at four columns of the invocation: vec4fs b0 to b3, or of another name. */
export function loadB(
  layout: MatmulLayout,
  read: (line: string) => string,
  { name, column }: { readonly name: string; readonly column: string },
): string[] {
  if (layout !== "NT") return range(4).map((i) => `let ${name}${i} = ${read(`k + ${i}u`)};`);
  const along = name.replace("b", "t");
  return [
    ...range(4).map((i) => `let ${along}${i} = readB(${column} + ${i}u, k);`),
    ...range(4).map((i) => `let ${name}${i} = ${fourRows(along, i)};`),
  ];
}

/** `sum` plus a row's four along k times the four rows of B. */
export const addProducts = (sum: string, b = "b") =>
  `${sum} = fma(a.xxxx, ${b}0, fma(a.yyyy, ${b}1, fma(a.zzzz, ${b}2, fma(a.wwww, ${b}3, ${sum}))));`;

/**
 * Declares the sums of `rows` rows, each of `fours` fours of columns `step` apart: zeros, or, where the result
 * continues one, what `before(row, column)` gives.
 */
export const declareSums = ({ continues }: MatmulVariant, rows: number, fours = 1, step = 0) =>
  range(rows * fours)
    .map((sum) => {
      const [row, column] = [`ownFirst + ${Math.floor(sum / fours)}u`, `column + ${(sum % fours) * step}u`];
      return `  var sum${sum} = ${continues ? `before(${row}, ${column})` : "vec4f()"};`;
    })
    .join("\n");

/**
 * After `matmul`, a loop over the invocation's rows that exist, for an epilogue in terms of `row`, `column` and the
 * sums `value` of four columns. The sums leave their registers once for it; compilers do not know how often it runs, so
 * that none unrolls it: on lavapipe the branches of 16 epilogues took 2.5 of 2.8 s to compile. `before` and `after`
 * stand around all fours of a row. A function of a row's sums has all its fours at once, and `column` is the first's.
 */
export function eachRow(
  { ownRows, rowStep, ownFours, fourStep }: MatmulTile,
  body: string | ((sums: readonly string[]) => string),
  { before, after }: { readonly before: string; readonly after: string } = { before: "", after: "" },
): string {
  const count = ownRows * ownFours;
  const own = rowStep === 1 ? "row - ownFirst" : `(row - ownFirst) / ${rowStep}u`;
  const inFours = ownFours > 1 && typeof body === "string";
  const ofRow = () => {
    if (typeof body !== "string")
      return body(range(ownFours).map((four) => `sums[(${own}) * ${ownFours}u + ${four}u]`));
    if (!inFours) return `let value = sums[${own}];\n    ${body}`;
    return /* wgsl */ `for (var four = 0u; four < ${unknownCount(ownFours, "u.M")}; four++) {
      let value = sums[(${own}) * ${ownFours}u + four];
      let column = firstOwnColumn + four * ${fourStep}u;
      ${body}
    }`;
  };
  return /* wgsl */ `var sums = array<vec4f, ${count}>(${range(count)
    .map((sum) => `sum${sum}`)
    .join(", ")});${inFours ? "\n  let firstOwnColumn = column;" : ""}
  for (var row = ownFirst; row < min(ownFirst + ${ownRows * rowStep}u, u.M); ${rowStep === 1 ? "row++" : `row += ${rowStep}u`}) {
    ${[before, ofRow(), after].filter((text) => text !== "").join("\n    ")}
  }`;
}
