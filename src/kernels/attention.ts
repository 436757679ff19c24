/**
 * Scaled dot-product attention over two key ranges per row, with grouped-query heads.
 *
 *   out[t, h] = sum_j softmax_j(scale q[t, h] . k[j, g]) v[j, g],   g = h KV / H,   scale = 1 / sqrt(D) where none is given
 *
 * With a soft cap (Gemma 2) a score s becomes cap tanh(s / cap), before keys are masked.
 *
 * Row t sees the keys [prefixStart, prefixEnd) and [branchStart, branchEnd): the prompt that it continues and its own
 * branch (or, with an empty prefix, simply its own sequence up to itself). Forward keeps the log-sum-exp of each row
 * and head, so backward recomputes the probabilities (FlashAttention, Dao et al. 2022): nothing of size T x T exists.
 * Backward is two kernels without atomics: dQ by query row, dK and dV by key row. It serves rows without a prefix,
 * the only ones that carry gradients: key row j is seen by the query rows [j, queryEnd[j]).
 *
 * q, k and v may be column ranges of wider rows (fused projections, caches): widths come from the shapes, first
 * columns are uniforms.
 *
 * A tile (`attention-tile.ts`) is some rows of one side, which walk the other side in tiles of columns from the first
 * that any of them sees, then from the next such one: none is visited that no row sees. The rows of a query tile are
 * tokens times the heads of a group, which read the same keys, and so are the columns of a key tile. Large heads have
 * tiles on subgroup matrices as candidates (`attention-matrix.ts`): the texts below are the same for these.
 */
import { MatrixAttentionTile, type MatrixTileShape, matrixTileShapes } from "./attention-matrix.ts";
import { component } from "./attention-team.ts";
import {
  AttentionTile,
  type ScoreShape,
  type TileOperands,
  type TileShape,
  tileShape,
  unknown,
} from "./attention-tile.ts";
import { type ActivationFormat, inFormats, type Kernel, kernel, type Values } from "./kernel.ts";
import type { ProductFormat } from "./matmul-variant.ts";
import type { AdapterFacts } from "./wgsl.ts";

/** Widths and first columns must be multiples of 4 where the head size is; ours are, being whole heads. */
const OFFSETS = { qFrom: "u32", kFrom: "u32", vFrom: "u32" } as const;

/**
 * Keys that a row sees, on the average and at most. Which ones it sees is data, so the caller says what it knows when
 * it records. The kernels do not read it: their cost is estimated by it.
 */
const KEYS = { keysPerRow: "f32" } as const;

/** Rows, tokens times heads of a group, up to which a tile of few rows wastes less. */
const FEW_ROWS = 32;
/**
 * Tokens up to which a pass whose keys are in a cache is one that generates: each token has keys of its own then, all
 * of which are visited for every row of a tile that it is in.
 */
const FEW_TOKENS = 64;

/** What the kernel of a format multiplies. */
type Operands = (format: ActivationFormat) => Omit<TileOperands, "format">;

/**
 * One kernel for each head size and kind of adapter, of activations in any format; one with few rows a tile beside it,
 * and tiles on matrices as candidates where rows see enough keys to fill them.
 *
 * @param products what f32 operands may be rounded to where matrices multiply them; default f32, which is nothing
 */
function perHeadSize<B extends string, U extends string>(
  operands: Operands,
  build: (tile: AttentionTile) => Kernel<B, U>,
): (headSize: number, facts: AdapterFacts, products?: ProductFormat, scores?: ScoreShape) => Kernel<B, U> {
  const built = new Map<string, Kernel<B, U>>();
  const made = (shape: TileShape | MatrixTileShape, format: ActivationFormat) => {
    const key = JSON.stringify([shape, format]);
    const given = { format, ...operands(format) };
    const tile = () => ("products" in shape ? new MatrixAttentionTile(shape, given) : new AttentionTile(shape, given));
    const found = built.get(key) ?? build(tile());
    built.set(key, found);
    return found;
  };
  return (headSize, facts, products = "f32", scores = {}) =>
    inFormats((format) => {
      const many = { ...tileShape(headSize, facts, false), ...scores };
      const few = { ...tileShape(headSize, facts, true), ...scores };
      const onMatrices = matrixTileShapes(headSize, facts, products).map((shape) => ({ ...shape, ...scores }));
      const candidates = (values: Values) => {
        const { T = 0, S, groupSize = 1, keysPerRow = 0 } = values;
        if (T * groupSize <= FEW_ROWS || (T <= FEW_TOKENS && (S ?? T) !== T)) return [made(few, format)];
        const fitting = onMatrices.filter(({ matrices }) => keysPerRow >= matrices.width);
        if (fitting.length === 0) return [made(many, format)];
        const tuningClass = attentionClass(values, headSize, format);
        return [
          { ...made(many, format), variant: `${many.team}${many.rows}`, tuningClass },
          ...fitting.map((shape) => ({
            ...made(shape, format),
            variant: `matrix${shape.rows}x${shape.matrices.width}`,
            tuningClass,
          })),
        ];
      };
      return { ...made(many, format), candidates };
    });
}

/** What decides which tile is fastest: rows and the keys that each sees to the next power of two, and the heads. */
function attentionClass({ T = 0, H = 0, groupSize = 1, keysPerRow = 0 }: Values, headSize: number, format: string) {
  const power = (size: number) => 2 ** Math.ceil(Math.log2(Math.max(1, size)));
  return `${power(T)} rows x ${power(keysPerRow)} keys, ${H}/${H / groupSize} heads of ${headSize} ${format}`;
}

/**
 * Tokens of the sequences that stand in for a batch where tiles are timed: rows see as many keys as was said, on
 * average.
 */
const trialLength = ({ T = 0, S = T, keysPerRow = 0 }: Values) =>
  Math.max(1, Math.min(T, S, Math.round(2 * keysPerRow)));

/** Ranges of such a batch, which may not be there yet when tiles are timed, and without keys all take no time. */
function trialRanges(values: Values): Uint32Array<ArrayBuffer> {
  const { T = 0, S = T } = values;
  const length = trialLength(values);
  const ranges = new Uint32Array(4 * T);
  for (let row = 0; row < T; row++) {
    const last = Math.min(row, S - 1);
    ranges.set([0, 0, last - (last % length), last + 1], 4 * row);
  }
  return ranges;
}

function trialQueryEnd(values: Values): Uint32Array<ArrayBuffer> {
  const { T = 0 } = values;
  const length = trialLength(values);
  return Uint32Array.from({ length: T }, (_, row) => Math.min(T, row - (row % length) + length));
}

/** Rows of a query tile are tokens times the heads of a group: `own` is the row, its token and head follow. */
const QUERY_ROWS = "u.T * u.groupSize";
const QUERY_ROW = /* wgsl */ `
    let token = own / u.groupSize;
    let head = kvHead * u.groupSize + own % u.groupSize;
    let result = token * u.H + head;`;

/** WGSL, a vector of bool: is each of the lane's columns in [start, end) of row r? */
const inside = (tile: AttentionTile, r: number) =>
  `(columns >= XU(${tile.team.of("start", r)})) & (columns < XU(${tile.team.of("end", r)}))`;

/** Lower than any score, and what a score that does not count is. */
const MASKS = /* wgsl */ `
const LOW: f32 = -2.0e38;
const MASKED: f32 = -3.0e38;
`;

/** q [T, qWidth], k [S, kWidth], v [S, vWidth], ranges [T, 4] -> out [T, H D], logSumExp [T, H]. */
export const attentionForward = perHeadSize(
  (format) => ({ loads: { q: format, k: format, v: format }, factors: ["query", "keys", "values", "p"] }),
  (tile) => {
    const { headSize } = tile.shape;
    const { width, each, format, activationBytes, team } = tile;
    return kernel({
      name: "attentionForward",
      read: {
        q: tile.binding(format, "T, qWidth"),
        k: tile.binding(format, "S, kWidth"),
        v: tile.binding(format, "S, vWidth"),
        ranges: "u32[T, 4] as vec4u",
      },
      write: { out: tile.binding(format, `T, H*${headSize}`), logSumExp: "f32[T, H]" },
      uniforms: {
        T: "u32",
        S: "u32",
        H: "u32",
        groupSize: "u32",
        qWidth: "u32",
        kWidth: "u32",
        vWidth: "u32",
        ...OFFSETS,
        ...KEYS,
      },
      enable: team.enable,
      divisible: true,
      trial: (values) => ({ ranges: trialRanges(values) }),
      wgsl: /* wgsl */ `${tile.declarations(["out", format])}
${MASKS}
// Where a key or value row starts; past the end the last one, whose score is then masked.
fn keyAt(key: u32, kvHead: u32, end: u32) -> u32 { return (min(key, end - 1u) * u.kWidth + u.kFrom) / UNIT + kvHead * HEAD; }
fn valueAt(key: u32, kvHead: u32, end: u32) -> u32 { return (min(key, end - 1u) * u.vWidth + u.vFrom) / UNIT + kvHead * HEAD; }
${team.attributes}
fn element(kvHead: u32, tile: u32, lane: u32) {
  ${tile.held(
    QUERY_ROWS,
    `${QUERY_ROW}
    let query = (token * u.qWidth + u.qFrom) / UNIT + head * HEAD;
    let outAt = result * HEAD;
    let seen = ranges[token];`,
    { query: "u32", result: "u32", outAt: "u32", seen: "vec4u" },
    { query: "q" },
  )}
  ${tile.zeros("sum")}
  ${each((r) => `var highest${r} = LOW; var weight${r} = 0.0;`)}
  for (var part = 0u; part < 2u; part++) {
    ${tile.eachHeld((i) => `let start${i}: u32 = select(seen${i}.x, seen${i}.z, part == 1u); let end${i}: u32 = select(seen${i}.y, seen${i}.w, part == 1u);`)}
    let last = ${tile.over("max", (i) => `end${i}`)};
    var key = 0u;
    loop {
      key = ${tile.over("min", (i) => `firstFrom(start${i}, end${i}, key)`)};
      if (key == NONE) { break; }
      let columns = key + ${tile.columns};
      ${tile.starts("keys", (c) => `keyAt(${component(tile.shape, "columns", c)}, kvHead, last)`)}
      ${tile.starts("values", (c) => `valueAt(${component(tile.shape, "columns", c)}, kvHead, last)`)}
      ${tile.scores("s", "q", "query", "k", "keys")}
      ${each((r) => `let score${r} = select(X(MASKED), ${tile.score(`s${r}`)}, ${inside(tile, r)});`)}
      ${team.overLanes("most", "max", (r) => `largest(score${r})`)}
      ${each(
        (r) => `let next${r} = max(highest${r}, most${r});
      let shrink${r} = exp(highest${r} - next${r});
      highest${r} = next${r};
      let p${r}: X = exp(score${r} - next${r});
      weight${r} = weight${r} * shrink${r} + total(p${r});
      ${tile.scaled("sum", r, `shrink${r}`)}`,
      )}
      ${tile.accumulate("sum", "p", "v", "values")}
      key += ${width}u;
    }
  }
  ${team.overLanes("whole", "sum", (r) => `weight${r}`)}
  ${each((r) => `let inverse${r} = select(0.0, 1.0 / whole${r}, whole${r} > 0.0);`)}
  ${tile.store("sum", "outAt", (r, sum) => `${sum} * inverse${r}`)}
  ${team.hold("normalizer", (r) => `highest${r} + log(max(whole${r}, 1e-37))`)}
  ${tile.storeHeld("logSumExp", "result", "normalizer")}
}
${tile.entry(QUERY_ROWS, "u.H / u.groupSize")}`,
      grid: ({ T = 0, H = 0, groupSize = 1 }) => tile.grid(T * groupSize, H / groupSize),
      cost: ({ T = 0, H = 0, keysPerRow = 0 }) => ({
        flops: 4 * T * H * headSize * keysPerRow,
        bytes: 4 * activationBytes * T * H * headSize,
      }),
    });
  },
);

/** -> dq (columns of dFused), delta [T, H] = dOut . out, which the other half of the backward pass needs. */
export const attentionBackwardQuery = perHeadSize(
  (format) => ({
    loads: { fused: format, out: format, dOut: "f32" },
    factors: ["query", "gradient", "keys", "values", "dScore"],
  }),
  (tile) => {
    const { headSize } = tile.shape;
    const { width, each, format, activationBytes, team } = tile;
    return kernel({
      name: "attentionBackwardQuery",
      read: {
        fused: tile.binding(format, "T, width"),
        out: tile.binding(format, `T, H*${headSize}`),
        dOut: tile.binding("f32", `T, H*${headSize}`),
        logSumExp: "f32[T, H]",
        ranges: "u32[T, 4] as vec4u",
      },
      write: { dFused: tile.binding("f32", "T, width"), delta: "f32[T, H]" },
      uniforms: { T: "u32", H: "u32", groupSize: "u32", width: "u32", ...OFFSETS, ...KEYS },
      enable: team.enable,
      divisible: true,
      trial: (values) => ({ ranges: trialRanges(values) }),
      wgsl: /* wgsl */ `${tile.declarations(["dFused", "f32"])}
fn keyAt(key: u32, kvHead: u32, end: u32) -> u32 { return (min(key, end - 1u) * u.width + u.kFrom) / UNIT + kvHead * HEAD; }
fn valueAt(key: u32, kvHead: u32, end: u32) -> u32 { return (min(key, end - 1u) * u.width + u.vFrom) / UNIT + kvHead * HEAD; }
${team.attributes}
fn element(kvHead: u32, tile: u32, lane: u32) {
  ${tile.held(
    QUERY_ROWS,
    `${QUERY_ROW}
    let query = (token * u.width + u.qFrom) / UNIT + head * HEAD;
    let gradient = result * HEAD;
    let normalizer = logSumExp[result];
    let start = ranges[token].z;
    let end = ranges[token].w;
    var rowDelta = 0.0;
    for (var d = 0u; d < ${unknown(headSize)}; d += 4u) { rowDelta += dot(dOutFour(gradient, d), outFour(gradient, d)); }`,
    { query: "u32", gradient: "u32", result: "u32", normalizer: "f32", start: "u32", end: "u32", rowDelta: "f32" },
    { query: "fused", gradient: "dOut" },
  )}
  ${tile.zeros("sum")}
  let last = ${tile.over("max", (i) => `end${i}`)};
  var key = 0u;
  loop {
    key = ${tile.over("min", (i) => `firstFrom(start${i}, end${i}, key)`)};
    if (key == NONE) { break; }
    let columns = key + ${tile.columns};
    ${tile.starts("keys", (c) => `keyAt(${component(tile.shape, "columns", c)}, kvHead, last)`)}
    ${tile.starts("values", (c) => `valueAt(${component(tile.shape, "columns", c)}, kvHead, last)`)}
    ${tile.scores("s", "fused", "query", "fused", "keys")}
    ${each((r) => `let p${r}: X = select(X(), exp(${tile.score(`s${r}`)} - ${team.of("normalizer", r)}), ${inside(tile, r)});`)}
    ${tile.scores("along", "dOut", "gradient", "fused", "values")}
    ${each((r) => `let dScore${r}: X = p${r} * (along${r} - ${team.of("rowDelta", r)}) * ${tile.scoreSlope(`s${r}`)};`)}
    ${tile.accumulate("sum", "dScore", "fused", "keys")}
    key += ${width}u;
  }
  ${tile.store("sum", "query", (_, sum) => sum)}
  ${tile.storeHeld("delta", "result", "rowDelta")}
}
${tile.entry(QUERY_ROWS, "u.H / u.groupSize")}`,
      grid: ({ T = 0, H = 0, groupSize = 1 }) => tile.grid(T * groupSize, H / groupSize),
      cost: ({ T = 0, H = 0, keysPerRow = 0 }) => ({
        flops: 6 * T * H * headSize * keysPerRow,
        bytes: (8 + 3 * activationBytes) * T * H * headSize,
      }),
    });
  },
);

/** -> dk and dv (columns of dFused); each key row gathers from the query rows and heads that saw it. */
export const attentionBackwardKeyValue = perHeadSize(
  (format) => ({
    loads: { fused: format, dOut: "f32" },
    factors: ["keyAt", "valueAt", "queries", "gradients", "p", "dScore"],
  }),
  (tile) => {
    const { headSize } = tile.shape;
    const { width, each, format, activationBytes, team } = tile;
    return kernel({
      name: "attentionBackwardKeyValue",
      read: {
        fused: tile.binding(format, "T, width"),
        dOut: tile.binding("f32", `T, H*${headSize}`),
        logSumExp: "f32[T, H]",
        delta: "f32[T, H]",
        queryEnd: "u32[T]",
      },
      write: { dFused: tile.binding("f32", "T, width") },
      uniforms: { T: "u32", H: "u32", groupSize: "u32", width: "u32", ...OFFSETS, ...KEYS },
      enable: team.enable,
      divisible: true,
      trial: (values) => ({ queryEnd: trialQueryEnd(values) }),
      wgsl: /* wgsl */ `${tile.declarations(["dFused", "f32"])}
fn queryAt(token: u32, head: u32, end: u32) -> u32 { return (min(token, end - 1u) * u.width + u.qFrom) / UNIT + head * HEAD; }
fn resultAt(token: u32, head: u32, end: u32) -> u32 { return min(token, end - 1u) * u.H + head; }
${team.attributes}
fn element(kvHead: u32, tile: u32, lane: u32) {
  ${tile.held(
    "u.T",
    `let start = own;
    let end = queryEnd[own];
    let keyAt = (own * u.width + u.kFrom) / UNIT + kvHead * HEAD;
    let valueAt = (own * u.width + u.vFrom) / UNIT + kvHead * HEAD;`,
    { start: "u32", end: "u32", keyAt: "u32", valueAt: "u32" },
    { keyAt: "fused", valueAt: "fused" },
  )}
  ${tile.zeros("dKey")}
  ${tile.zeros("dValue")}
  let last = ${tile.over("max", (i) => `end${i}`)};
  // Columns of a tile: tokens times \`together\` heads of the group.
  let together = min(u.groupSize, ${width}u);
  let tokens = ${width}u / together;
  let column = ${tile.columns};
  let columnToken = column / together;
  for (var firstHead = 0u; firstHead < u.groupSize; firstHead += together) {
    let columnHead = firstHead + column % together;
    let counts = (columnToken < XU(tokens)) & (columnHead < XU(u.groupSize));
    let heads = kvHead * u.groupSize + min(columnHead, XU(u.groupSize - 1u));
    var token = 0u;
    loop {
      token = ${tile.over("min", (i) => `firstFrom(start${i}, end${i}, token)`)};
      if (token == NONE) { break; }
      let columns = token + columnToken;
      ${tile.starts("results", (c) => `resultAt(${component(tile.shape, "columns", c)}, ${component(tile.shape, "heads", c)}, last)`)}
      ${tile.starts("gradients", (c) => `results${c} * HEAD`)}
      ${tile.starts("queries", (c) => `queryAt(${component(tile.shape, "columns", c)}, ${component(tile.shape, "heads", c)}, last)`)}
      let normalizer = ${tile.vector("X", (c) => `logSumExp[results${c}]`)};
      let rowDelta = ${tile.vector("X", (c) => `delta[results${c}]`)};
      ${tile.scores("s", "fused", "keyAt", "fused", "queries")}
      ${each((r) => `let p${r}: X = select(X(), exp(${tile.score(`s${r}`)} - normalizer), counts & ${inside(tile, r)});`)}
      ${tile.scores("along", "fused", "valueAt", "dOut", "gradients")}
      ${each((r) => `let dScore${r}: X = p${r} * (along${r} - rowDelta) * ${tile.scoreSlope(`s${r}`)};`)}
      ${tile.accumulate("dValue", "p", "dOut", "gradients")}
      ${tile.accumulate("dKey", "dScore", "fused", "queries")}
      token += tokens;
    }
  }
  ${tile.store("dKey", "keyAt", (_, sum) => sum)}
  ${tile.store("dValue", "valueAt", (_, sum) => sum)}
}
${tile.entry("u.T", "u.H / u.groupSize")}`,
      grid: ({ T = 0, H = 0, groupSize = 1 }) => tile.grid(T, H / groupSize),
      cost: ({ T = 0, H = 0, keysPerRow = 0 }) => ({
        flops: 8 * T * H * headSize * keysPerRow,
        bytes: (12 + 2 * activationBytes) * T * H * headSize,
      }),
    });
  },
);
