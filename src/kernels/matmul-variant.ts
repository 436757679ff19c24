/**
 * What a kernel that computes a matmul depends on: its layout, how its operands are stored and loaded
 * (`matmul-loads.ts`), and the tile by which a workgroup shares the work (`matmul-tile.ts`), of which several are
 * candidates. No WGSL of loads or tiles is here.
 */
import { type ActivationFormat, type Kernel, oneOf, type WeightFormat } from "./kernel.ts";
import type { AdapterFacts, MatrixFacts } from "./wgsl.ts";

export type MatmulLayout = "NN" | "NT" | "TN";

export interface MatmulShape {
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

/** What the operands of a product may be rounded to. */
export type ProductFormat = "f32" | "f16";

/** What a matmul kernel depends on beside its layout and shape. */
export interface MatmulOperands {
  /** Format of B; default f32. */
  readonly format?: WeightFormat;
  /** Formats of A and of the result; default f32. */
  readonly aFormat?: ActivationFormat;
  readonly outFormat?: ActivationFormat;
  /**
   * f16 lets matrices round operands to it, where f32 (default) has them multiply in parts. Sums are f32 either way.
   */
  readonly products?: ProductFormat;
  /**
   * A and the result may be column ranges of wider matrices: their widths and first columns. Default: whole matrices.
   */
  readonly aWidth?: number;
  readonly aFrom?: number;
  readonly outWidth?: number;
  readonly outFrom?: number;
  /**
   * The sums start from what the result holds and not from 0, so that matmuls over parts of K, one after another, have
   * the bits of one over all of it; parts are multiples of 64 long, but the last. For f32 results. Default false.
   */
  readonly continues?: boolean;
  /**
   * B's rows are N gates and, behind them, N that these are for: the result is silu(A gates^T) A others^T, as SwiGLU has
   * it. Where `takesGates` alone. Default false.
   */
  readonly gated?: boolean;
  /**
   * The size of heads whose halves the two sets of columns of a lane are, so that pairs of numbers can be turned; where
   * `takesTurns`. Default: none.
   */
  readonly turns?: number | undefined;
  /** RMSNorm between two products, where `takesNorms`; see `NormPart`. Default: none. */
  readonly norm?: NormPart | undefined;
  /** Other products continue these sums, so that only tiles that can continue some are candidates. Default false. */
  readonly continued?: boolean;
  /**
   * The product of which this one computes a part, over a window of one operand: tile and candidates are those of the
   * whole, so that a part has the same however large the windows are. Default: it is the whole.
   */
  readonly whole?: MatmulShape | undefined;
}

/**
 * RMSNorm y = x gain / r with r = sqrt(mean(x^2) + epsilon) between the product that gives x and the one that takes y,
 * without a dispatch of its own: dividing by r can wait, since (y W)[n] = (x gain W)[n] / r.
 *
 *   gives   the result is x; x gain goes to `scaled`, and the sum of x^2 over the columns of each tile to `squares`
 *   takes   A is x gain, and the sums of a row are divided by the r that its `squares` give
 */
export type NormPart = "gives" | "takes";

/** The matrices of a text, and in how many parts each operand is multiplied. */
export interface MatrixParts extends MatrixFacts {
  readonly aParts: 1 | 2;
  readonly bParts: 1 | 2;
}

/**
 * How four contiguous elements of an operand are loaded:
 *
 *   aligned   as one vector: the contiguous axis and K are multiples of 4
 *   shifted   out of the two vectors that they lie in: only K is, and K counts the operand's rows
 *   single    one by one
 *   eights    eight as one vector, an `Eight`, of 16-bit rows along k: a software adapter's load costs the same whatever
 *             it brings, and needs one instruction for every lane
 */
export type OperandLoads = "aligned" | "shifted" | "single" | "eights";

/** What a matmul's text depends on. */
export interface MatmulVariant {
  readonly layout: MatmulLayout;
  readonly loadsA: OperandLoads;
  readonly loadsB: OperandLoads;
  /** `out` and `residual` are seen as vec4f: N is a multiple of 4. */
  readonly vectorStores: boolean;
  readonly subgroupSize: number;
  readonly software: boolean;
  /** Format of B. */
  readonly format: WeightFormat;
  /** Formats of A and of the result. */
  readonly aFormat: ActivationFormat;
  readonly outFormat: ActivationFormat;
  readonly continues: boolean;
  readonly gated: boolean;
  readonly norm?: NormPart | undefined;
  readonly turns?: number | undefined;
  readonly tile: TileName;
  /** In how many parts operands are multiplied, by tiles on subgroup matrices. */
  readonly matrix?: MatrixParts | undefined;
}

/**
 * How a workgroup shares the work:
 *
 *   subgroupR    one subgroup, R rows: each lane loads vec4s of A for its own rows, the others take them from it
 *                (`ofLane`), and every lane multiplies them with its own four columns of B; no workgroup memory, no
 *                barrier
 *   subgroupRwF  the same with F fours of columns a lane, for which it loads A once
 *   subgroupRkS  the same by S subgroups, each with every S-th step along k, whose sums are added at the end through
 *                workgroup memory (split-K): for matmuls of few tiles, which would leave cores of a GPU idle
 *   subgroupRxS  S subgroups one above the other, each as subgroupR, which share B through workgroup memory: at 16 x 4
 *                half or less of the bytes from memory; each row of A is still handed round within its subgroup
 *   workgroupRxC R rows by C columns, operands in workgroup memory, 8 rows by 8 columns an invocation in registers
 *   registersR   R rows, every invocation with up to 16 by 8 columns, for which it loads all that it needs: where
 *                caches do the sharing
 *   matrixRxC    R rows by C columns on subgroup matrices, by one subgroup (16 x 16) or two by two
 *   rowC         one row by C columns, in NT: lanes take fours along k in turn, so that a workgroup reads a few rows of
 *                B from their beginning to their end, and add up their sums at the end
 *   columnC      one row by C columns a lane, in NT: every lane reads rows of B of its own, one after another
 */
export type TileName =
  | `subgroup${4 | 8 | 16 | 32}`
  | `subgroup${4 | 8 | 16}k4`
  | "subgroup16w2"
  | "subgroup16x4"
  | `workgroup${"64x64" | "128x64" | "128x128"}`
  | `registers${1 | 4 | 16 | 64}`
  | `matrix${"16x16" | "32x32" | "64x64" | "128x64"}`
  | `row${4 | 8}`
  | "column4";

/** Split-K is a candidate for matmuls of at most this many tiles whose K is at least this long. */
const SPLIT_MOST_TILES = 256;
const SPLIT_LEAST_K = 128;
/** The default of adapters without subgroups that are no software, then tiles which read less but leave more idle. */
const WORKGROUP_TILES = ["workgroup64x64", "workgroup128x64", "workgroup128x128"] as const;
/**
 * The most columns of which a GPU's subgroup takes four: the grid of fewer would leave it idle, that of more is too
 * long.
 */
const ROW4_MOST_COLUMNS = 2 ** 14;
/**
 * Columns from which on software adapters a tile of 16 rows takes twice as many: fewer tiles would leave cores idle.
 */
const WIDE_LEAST_COLUMNS = 512;
/** Rows at most of products that norms may lie between. */
export const MOST_NORMED_ROWS = 16;
/** The largest subgroup whose sums of 16 rows fit workgroup memory (8 KiB). */
const SPLIT_MOST_LANES = 32;

/** The uniforms that every tile reads: the shape of the matmul, and which columns of a wider matrix A is. */
export const MATMUL_UNIFORMS = { M: "u32", N: "u32", K: "u32", aWidth: "u32", aFrom: "u32" } as const;

/** Lanes of subgroups among which a matrix's rows of four columns are shared out evenly. */
export const MATRIX_LANES = [8, 16, 32, 64];

/**
 * Tiles on matrices, none where there are few rows. A software adapter's matrices are loops over their elements, for
 * tests.
 */
function matrixTiles({ M, N }: MatmulShape, { matrices, subgroupSize, software }: AdapterFacts): TileName[] {
  if (matrices === undefined || !MATRIX_LANES.includes(subgroupSize)) return [];
  if (software) return ["matrix16x16"];
  if (M <= 16) return [];
  return M > 64 && N > 32 ? ["matrix32x32", "matrix64x64", "matrix128x64"] : ["matrix32x32", "matrix64x64"];
}

/**
 * The tiles that can compute a matmul of M rows on an adapter, the default first.
 *
 * Few rows (generation, a token of each sequence) take a low tile, which wastes nothing. A single row in NT takes the
 * tile that reads B best.
 *
 * On software adapters a load costs about 10 times a multiply-add and sums are in memory anyway, so the default is 32
 * rows: 60 to 65 GFLOP/s at 512^3 in NN on lavapipe against 50 to 54 with 16 rows, measured before both took rows by
 * shuffles. Tiles in workgroup memory are several times slower there and are no candidates. Without subgroups software
 * adapters are fastest where every invocation has many rows and no barrier.
 */
export function tileNames(
  layout: MatmulLayout,
  shape: MatmulShape,
  facts: AdapterFacts,
): readonly [TileName, ...TileName[]] {
  const [first, ...others] = arithmeticTiles(layout, shape, facts);
  return [first, ...others, ...matrixTiles(shape, facts)];
}

function arithmeticTiles(
  layout: MatmulLayout,
  { M, N, K }: MatmulShape,
  { subgroupSize: lanes, software }: AdapterFacts,
): readonly [TileName, ...TileName[]] {
  if (layout === "NT" && M === 1 && (lanes >= 4 || !software)) {
    if (software) return ["column4"];
    return [N > ROW4_MOST_COLUMNS ? "row8" : "row4"];
  }
  if (lanes < 4) {
    if (M === 1 && layout !== "TN") return ["registers1"];
    if (M <= 16) return [M <= 4 ? "registers4" : "registers16"];
    return software ? ["registers64"] : [...WORKGROUP_TILES, "registers64"];
  }
  const rows = M <= 4 ? 4 : M <= 8 ? 8 : 16;
  const many = M > 16;
  if (software && many) return ["subgroup32", "subgroup16"];
  if (software) return [rows === 16 && N >= WIDE_LEAST_COLUMNS ? "subgroup16w2" : `subgroup${rows}`];
  const tiles = Math.ceil(M / rows) * Math.ceil(N / (4 * lanes));
  const splits = lanes <= SPLIT_MOST_LANES && tiles <= SPLIT_MOST_TILES && K >= SPLIT_LEAST_K;
  const names: [TileName, ...TileName[]] = [`subgroup${rows}`];
  if (splits) names.push(`subgroup${rows}k4`);
  if (rows === 16) names.push("subgroup8");
  if (many) names.push("subgroup32");
  if (many) names.push("subgroup16x4", ...WORKGROUP_TILES);
  return names;
}

/**
 * The kernel that `build` makes for a matmul of this shape with the default tile; the other tiles are its candidates.
 * Aligned vectors wherever the contiguous axes allow them; where they do not, there is one tile only, since such sizes
 * are rare in models: without subgroups the one with the fewest loads, each of which compiles to branches for every
 * number.
 *
 * @param cache kernels made before, by variant
 */
export function tiledKernel<B extends string, U extends string>(
  layout: MatmulLayout,
  shape: MatmulShape,
  facts: AdapterFacts,
  operands: MatmulOperands,
  cache: Map<string, Kernel<B, U>>,
  build: (variant: MatmulVariant) => Kernel<B, U>,
): Kernel<B, U> {
  const { whole = shape, continued = false } = operands;
  const [first, ...others] = tileNames(layout, whole, facts);
  const of = (tile: TileName) => matmulVariant(layout, shape, facts, tile, operands);
  const variant = of(first);
  const wholeVariant = matmulVariant(layout, whole, facts, first, operands);
  const aligned = wholeVariant.loadsA === "aligned" && isAligned(wholeVariant) && wholeVariant.vectorStores;
  const unaligned = facts.subgroupSize < 4 ? "workgroup64x64" : first;
  const matrix = facts.matrices && matrixParts(facts.matrices, variant, operands.products);
  const possible = aligned ? [first, ...others] : [unaligned, ...matrixTiles(whole, facts)];
  if (variant.gated && !takesGates(layout, shape, facts)) throw new Error(`no tile of ${layout} takes gates here`);
  if (variant.norm && !takesNorms(layout, shape, facts)) throw new Error(`no tile of ${layout} takes norms here`);
  // What lies between two products, or in one, is the default tile's alone.
  const alone = variant.gated || variant.norm !== undefined || variant.turns !== undefined;
  const tiles = variant.continues || continued ? possible.filter(canContinue) : alone ? [first] : possible;
  const kernels = tiles.map((tile) => {
    const own = tile.startsWith("matrix") ? { ...of(tile), matrix } : of(tile);
    const key = JSON.stringify(own);
    const known = cache.get(key) ?? build(own);
    cache.set(key, known);
    return { variant: tile, kernel: known };
  });
  return oneOf(kernels, matmulClass(whole, variant.format), 2 * whole.M * whole.N * whole.K);
}

/** Whether a matmul of this shape can be gated: where lanes have two sets of columns, one of which are gates. */
export function takesGates(layout: MatmulLayout, shape: MatmulShape, facts: AdapterFacts): boolean {
  if (arithmeticTiles(layout, shape, facts)[0] === "column4") return true;
  const { M, N, K } = shape;
  return (
    layout === "NT" && facts.software && facts.subgroupSize >= 4 && M <= MOST_NORMED_ROWS && N % 4 === 0 && K % 4 === 0
  );
}

/**
 * Whether a norm may lie between this product and another: few rows in NT, where one tile alone is a candidate, made of
 * subgroups; rows of result and of A in vectors.
 */
export function takesNorms(layout: MatmulLayout, shape: MatmulShape, facts: AdapterFacts): boolean {
  const { subgroupSize, software } = facts;
  if (layout !== "NT" || subgroupSize < 4 || shape.N % 4 !== 0 || shape.K % 4 !== 0) return false;
  return shape.M === 1 || (software && shape.M <= MOST_NORMED_ROWS);
}

/** Columns of a half of a head that a workgroup of one row, and of several, has of the tiles that take turns. */
export const halfColumns = (M: number, lanes: number): number => (M === 1 ? 2 : 4) * lanes;

/** WGSL: the first of the workgroup's columns in first halves of heads of this size; its columns are those of both. */
export const firstHalf = (headSize: number): string =>
  `let firstHalf = firstColumn / 2u + firstColumn / ${headSize}u * ${headSize / 2}u;`;

/** Whether the halves of heads of this size can be two sets of columns of a lane: where products take gates, in fours. */
export function takesTurns(shape: MatmulShape, headSize: number, facts: AdapterFacts): boolean {
  const fits = facts.software && takesNorms("NT", shape, facts) && shape.N % headSize === 0;
  return fits && headSize % (2 * halfColumns(shape.M, facts.subgroupSize)) === 0;
}

/** Whether B's rows are read as whole vectors. */
const isAligned = ({ loadsB }: MatmulVariant) => loadsB === "aligned" || loadsB === "eights";

/**
 * Whether a tile can continue sums that another product began. Tiles of several slices along k cannot, since these are
 * added at the end, nor those on matrices, which scale what they sum and add in an order of their own.
 */
const canContinue = (tile: TileName) => !tile.endsWith("k4") && !tile.startsWith("matrix");

/**
 * An f32, and a quantised number, which is one once it is unpacked, is multiplied in two parts of f16, unless it may be
 * rounded; numbers that are stored in 16 bits are one.
 */
function matrixParts(
  matrices: MatrixFacts,
  { aFormat, format }: MatmulVariant,
  products: ProductFormat = "f32",
): MatrixParts {
  const halves: readonly WeightFormat[] = ["f16", "bf16"];
  const parts = (stored: WeightFormat) =>
    matrices.component === "f16" && products === "f32" && !halves.includes(stored) ? 2 : 1;
  return { ...matrices, aParts: parts(aFormat), bParts: parts(format) };
}

/** What decides which tile is fastest: the format of B, and each size to the next power of two. */
function matmulClass({ M, N, K }: MatmulShape, format: WeightFormat): string {
  const power = (size: number) => 2 ** Math.ceil(Math.log2(Math.max(1, size)));
  return `${power(M)} x ${power(N)} x ${power(K)} ${format}`;
}

function matmulVariant(
  layout: MatmulLayout,
  { M, N, K }: MatmulShape,
  facts: AdapterFacts,
  tile: TileName,
  {
    format = "f32",
    aFormat = "f32",
    outFormat = "f32",
    aWidth = 0,
    aFrom = 0,
    outWidth = 0,
    outFrom = 0,
    continues = false,
    gated = false,
    norm,
    turns,
  }: MatmulOperands,
): MatmulVariant {
  const contiguousA = layout === "TN" ? M : K;
  const contiguousB = layout === "NT" ? K : N;
  const fours = (...sizes: number[]) => sizes.every((size) => size % 4 === 0);
  const loads = (aligned: boolean, rowsAlongK: boolean): OperandLoads =>
    aligned ? "aligned" : rowsAlongK && fours(K) ? "shifted" : "single";
  // Tiles of several rows are slower with them: 0.9 times the tokens of 16 sequences on lavapipe.
  const inEights = tile === "column4" && K % 8 === 0 && (format === "bf16" || format === "f16");
  return {
    layout,
    loadsA: loads(fours(contiguousA, K, aWidth, aFrom), layout === "TN"),
    loadsB: inEights ? "eights" : loads(fours(contiguousB, K), layout !== "NT"),
    vectorStores: fours(N, outWidth, outFrom),
    subgroupSize: facts.subgroupSize,
    software: facts.software,
    format,
    aFormat,
    outFormat,
    continues,
    gated,
    norm,
    turns,
    tile,
  };
}
