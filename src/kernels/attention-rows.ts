/**
 * Attention (`attention.ts` has the formulas and what the operands are) for small heads, whose rows fit the registers of
 * an invocation: each owns a row of one head and walks the rows of the other side in blocks. In the base variant it loads
 * them all itself. With small subgroups, whose lanes own neighbouring rows and so meet the same blocks, each lane loads
 * one row of a block and the others take it from that lane: on software adapters a load costs about as much as eight
 * multiply-adds, and this almost nothing. The subgroup then walks the union of its lanes' ranges.
 */
import { type ActivationFormat, inFormats, type Kernel, kernel } from "./kernel.ts";
import { type AdapterFacts, elementwise, elementwiseGrid, lanesFor, linearGrid, linearGroup, ofLane } from "./wgsl.ts";

/** Head-size-dependent text: a head row is `SIZE` elements of type `E`, vectors where the size allows them. */
function headCode(headSize: number, format: ActivationFormat) {
  const { count, view, activations, activationBytes, wgsl } = lanesFor(headSize, format);
  return {
    view,
    activations,
    activationBytes,
    code: /* wgsl */ `${wgsl}
const SIZE: u32 = ${headSize / count}u;
const SCALE: f32 = ${1 / Math.sqrt(headSize)};
const LOWEST: f32 = -3.0e38;
`,
  };
}

/** Widths and first columns must be multiples of 4 where the head size is; ours are, being whole heads. */
const OFFSETS = { qFrom: "u32", kFrom: "u32", vFrom: "u32" } as const;

/** Rows of the other side that are walked at once; they share one rescaling of the running sums. */
const BLOCK = 4;
/** Lanes beyond which, and vectors a head beyond which, a block in registers would spill: base variant then. */
const MOST_LANES = 8;
const MOST_VECTORS = 16;

const range = (count: number) => Array.from({ length: count }, (_, index) => index);

/** How rows of the other side reach an invocation. */
interface Walk {
  /** Lanes of a subgroup, 1 in the base variant. */
  readonly lanes: number;
  /** Rows in a block. */
  readonly block: number;
  readonly enable: readonly string[];
  /** Entry point: calls `element(owner, row, lane)` for each of `rows` rows of each of `owners` heads. */
  readonly entry: (rows: string, owners: string) => string;
  readonly grid: (rows: number, owners: number) => ReturnType<typeof linearGrid>;
  /** Attribute of `element`: the compiler cannot see that ends taken over the subgroup are the same for all its lanes. */
  readonly uniformity: string;
  /** The ends of a range over all lanes. */
  readonly least: (start: string, end: string) => string;
  readonly most: (start: string, end: string) => string;
  /** Declares array `name` of the block's rows; `at(row)` is where row `row`, clamped by the caller, starts in `from`. */
  readonly load: (name: string, from: string, at: (row: string) => string) => string;
  /** Element `d` of row `j` of what `load` declared. */
  readonly element: (name: string, from: string, j: number, d: string) => string;
  /** One number for each row of the block, declared as `name`, and row j's. */
  readonly loadNumber: (name: string, value: (row: string) => string) => string;
  readonly number: (name: string, j: number) => string;
  /** Repeats text for each vector of a head. */
  readonly each: (body: (d: string) => string) => string;
}

function walkOf(size: number, facts: AdapterFacts): Walk {
  const lanes = facts.subgroupSize;
  if (lanes < 4 || lanes > MOST_LANES || size > MOST_VECTORS) return BASE_WALK;
  return {
    lanes,
    block: lanes,
    enable: ["subgroups"],
    entry: (rows, owners) => /* wgsl */ `
${linearGroup}
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let blocks = (${rows} + ${lanes - 1}u) / ${lanes}u;
  let index = linearGroup(group);
  if (index >= blocks * (${owners})) { return; }
  element(index / blocks, (index % blocks) * ${lanes}u + lane, lane);
}`,
    grid: (rows, owners) => linearGrid(Math.ceil(rows / lanes) * owners),
    uniformity: "@diagnostic(off, subgroup_uniformity)",
    // An empty range must not widen the union.
    least: (start, end) => `subgroupMin(select(0xffffffffu, ${start}, ${start} < ${end}))`,
    most: (start, end) => `subgroupMax(select(0u, ${end}, ${start} < ${end}))`,
    load: (name, from, at) =>
      `var ${name}: array<E, SIZE>;\n{ let start = ${at("lane")};\n${range(size)
        .map((d) => `${name}[${d}] = E(${from}[start + ${d}u]);`)
        .join("\n")} }`,
    element: (name, _, j, d) => ofLane(j, `${name}[${d}]`, facts),
    loadNumber: (name, value) => `let ${name} = ${value("lane")};`,
    number: (name, j) => ofLane(j, name, facts),
    each: (body) =>
      range(size)
        .map((d) => `{ ${body(`${d}`)} }`)
        .join("\n"),
  };
}

/** Every invocation for itself. Rows are named, not indexed: an index into private memory costs more than arithmetic. */
const BASE_WALK: Walk = {
  lanes: 1,
  block: BLOCK,
  enable: [],
  entry: (rows, owners) => elementwise(`${rows} * (${owners})`, `element(i / ${rows}, i % ${rows}, 0u);`),
  grid: (rows, owners) => elementwiseGrid(rows * owners),
  uniformity: "",
  least: (start) => start,
  most: (_, end) => end,
  load: (name, _, at) =>
    range(BLOCK)
      .map((j) => `let ${name}${j} = ${at(`${j}u`)};`)
      .join("\n"),
  element: (name, from, j, d) => `E(${from}[${name}${j} + ${d}])`,
  loadNumber: (name, value) =>
    range(BLOCK)
      .map((j) => `let ${name}${j} = ${value(`${j}u`)};`)
      .join("\n"),
  number: (name, j) => `${name}${j}`,
  each: (body) => `for (var d = 0u; d < SIZE; d++) { ${body("d")} }`,
};

type Build<B extends string, U extends string> = (
  headSize: number,
  walk: Walk,
  format: ActivationFormat,
) => Kernel<B, U>;

/** One kernel for each head size and variant, of activations in any format. */
function memoized<B extends string, U extends string>(
  build: Build<B, U>,
): (headSize: number, facts: AdapterFacts) => Kernel<B, U> {
  const cache = new Map<string, Kernel<B, U>>();
  return (headSize, facts) => {
    const walk = walkOf(headSize % 4 === 0 ? headSize / 4 : headSize, facts);
    const key = `${headSize} ${walk.lanes} ${facts.software}`;
    let found = cache.get(key);
    if (found === undefined) {
      found = inFormats((format) => build(headSize, walk, format));
      cache.set(key, found);
    }
    return found;
  };
}

/** q [T, qWidth], k [S, kWidth], v [S, vWidth], ranges [T, 4] -> out [T, H D], logSumExp [T, H]. */
export const attentionForward = memoized((headSize, walk, format) => {
  const { activations, activationBytes, code } = headCode(headSize, format);
  const { each, element, block } = walk;
  const rows = range(block);
  return kernel({
    name: "attentionForward",
    read: {
      q: activations("T, qWidth"),
      k: activations("S, kWidth"),
      v: activations("S, vWidth"),
      ranges: "u32[T, 4] as vec4u",
    },
    write: { out: activations(`T, H*${headSize}`), logSumExp: "f32[T, H]" },
    uniforms: {
      T: "u32",
      S: "u32",
      H: "u32",
      groupSize: "u32",
      qWidth: "u32",
      kWidth: "u32",
      vWidth: "u32",
      ...OFFSETS,
    },
    enable: walk.enable,
    wgsl: /* wgsl */ `${code}
// Where a key or value row starts; past the end of a range the last one, whose score is then masked.
fn keyAt(key: u32, end: u32) -> u32 { return (min(key, end - 1u) * u.kWidth + u.kFrom) / LANES; }
fn valueAt(key: u32, end: u32) -> u32 { return (min(key, end - 1u) * u.vWidth + u.vFrom) / LANES; }
${walk.uniformity}
fn element(head: u32, ownRow: u32, lane: u32) {
  let kvHead = head / u.groupSize;
  let row = min(ownRow, u.T - 1u);
  var query: array<E, SIZE>;
  var sum: array<E, SIZE>;
  let qAt = (row * u.qWidth + u.qFrom) / LANES + head * SIZE;
  ${each((d) => `query[${d}] = E(q[qAt + ${d}]) * SCALE; sum[${d}] = E();`)}
  var highest = LOWEST;
  var weight = 0.0;
  let seen = ranges[row];
  for (var part = 0u; part < 2u; part++) {
    let start = select(seen.x, seen.z, part == 1u);
    let end = select(seen.y, seen.w, part == 1u);
    let first = ${walk.least("start", "end")};
    let last = ${walk.most("start", "end")};
    for (var key = first; key < last; key += ${block}u) {
      ${walk.load("keys", "k", (j) => `keyAt(key + ${j}, last) + kvHead * SIZE`)}
      ${rows.map((j) => `var s${j} = E();`).join("\n")}
      ${each(
        (d) =>
          `let q = query[${d}];\n${rows.map((j) => `s${j} = fma(q, ${element("keys", "k", j, d)}, s${j});`).join("\n")}`,
      )}
      ${rows
        .map((j) => `let score${j} = select(LOWEST, total(s${j}), (key + ${j}u >= start) & (key + ${j}u < end));`)
        .join("\n")}
      let next = ${rows.reduce((most, j) => `max(${most}, score${j})`, "highest")};
      let shrink = exp(highest - next);
      ${rows.map((j) => `let p${j} = select(0.0, exp(score${j} - next), score${j} > LOWEST);`).join("\n")}
      weight = weight * shrink + ${rows.map((j) => `p${j}`).join(" + ")};
      ${walk.load("values", "v", (j) => `valueAt(key + ${j}, last) + kvHead * SIZE`)}
      ${each(
        (d) =>
          `var next = sum[${d}] * shrink;\n${rows.map((j) => `next = fma(E(p${j}), ${element("values", "v", j, d)}, next);`).join("\n")}\nsum[${d}] = next;`,
      )}
      highest = next;
    }
  }
  if (ownRow >= u.T) { return; }
  let inverse = select(0.0, 1.0 / weight, weight > 0.0);
  let outAt = (row * u.H + head) * SIZE;
  ${each((d) => `out[outAt + ${d}] = A(sum[${d}] * inverse);`)}
  logSumExp[row * u.H + head] = highest + log(max(weight, 1e-37));
}
${walk.entry("u.T", "u.H")}`,
    grid: ({ T = 0, H = 0 }) => walk.grid(T, H),
    // Which keys a row sees is data; a causal row sees half of a sequence, whose length is not known here.
    cost: ({ T = 0, H = 0 }) => ({ flops: 4 * T * H * headSize * 64, bytes: 4 * activationBytes * T * H * headSize }),
  });
});

/** -> dq (columns of dFused), delta [T, H] = dOut . out, which the other half of the backward pass needs. */
export const attentionBackwardQuery = memoized((headSize, walk, format) => {
  const { view, activations, activationBytes, code } = headCode(headSize, format);
  const { each, element, block } = walk;
  const rows = range(block);
  return kernel({
    name: "attentionBackwardQuery",
    read: {
      fused: activations("T, width"),
      out: activations(`T, H*${headSize}`),
      dOut: `f32[T, H*${headSize}]${view}`,
      logSumExp: "f32[T, H]",
      ranges: "u32[T, 4] as vec4u",
    },
    write: { dFused: `f32[T, width]${view}`, delta: "f32[T, H]" },
    uniforms: { T: "u32", H: "u32", groupSize: "u32", width: "u32", ...OFFSETS },
    enable: walk.enable,
    wgsl: /* wgsl */ `${code}
${walk.uniformity}
fn element(head: u32, ownRow: u32, lane: u32) {
  let kvHead = head / u.groupSize;
  let row = min(ownRow, u.T - 1u);
  var query: array<E, SIZE>;
  var gradient: array<E, SIZE>;
  var sum: array<E, SIZE>;
  let qAt = (row * u.width + u.qFrom) / LANES + head * SIZE;
  let outAt = (row * u.H + head) * SIZE;
  var product = E();
  ${each(
    (d) => `query[${d}] = E(fused[qAt + ${d}]) * SCALE;
    gradient[${d}] = dOut[outAt + ${d}];
    product += gradient[${d}] * E(out[outAt + ${d}]);
    sum[${d}] = E();`,
  )}
  let rowDelta = total(product);
  let normalizer = logSumExp[row * u.H + head];
  let start = ranges[row].z;
  let end = ranges[row].w;
  let first = ${walk.least("start", "end")};
  let last = ${walk.most("start", "end")};
  for (var key = first; key < last; key += ${block}u) {
    ${walk.load("keys", "fused", (j) => `(min(key + ${j}, last - 1u) * u.width + u.kFrom) / LANES + kvHead * SIZE`)}
    ${walk.load("values", "fused", (j) => `(min(key + ${j}, last - 1u) * u.width + u.vFrom) / LANES + kvHead * SIZE`)}
    ${rows.map((j) => `var s${j} = E();\nvar along${j} = E();`).join("\n")}
    ${each((d) =>
      rows
        .map(
          (j) => `s${j} = fma(query[${d}], ${element("keys", "fused", j, d)}, s${j});
      along${j} = fma(gradient[${d}], ${element("values", "fused", j, d)}, along${j});`,
        )
        .join("\n"),
    )}
    ${rows
      .map(
        (j) => `let dScore${j} = select(0.0, exp(total(s${j}) - normalizer) * (total(along${j}) - rowDelta) * SCALE,
      (key + ${j}u >= start) & (key + ${j}u < end));`,
      )
      .join("\n")}
    ${each(
      (d) =>
        `var next = sum[${d}];\n${rows.map((j) => `next = fma(E(dScore${j}), ${element("keys", "fused", j, d)}, next);`).join("\n")}\nsum[${d}] = next;`,
    )}
  }
  if (ownRow >= u.T) { return; }
  delta[row * u.H + head] = rowDelta;
  ${each((d) => `dFused[qAt + ${d}] = sum[${d}];`)}
}
${walk.entry("u.T", "u.H")}`,
    grid: ({ T = 0, H = 0 }) => walk.grid(T, H),
    cost: ({ T = 0, H = 0 }) => ({
      flops: 6 * T * H * headSize * 64,
      bytes: (8 + 3 * activationBytes) * T * H * headSize,
    }),
  });
});

/** -> dk and dv (columns of dFused); each key row gathers from the query rows and heads that saw it. */
export const attentionBackwardKeyValue = memoized((headSize, walk, format) => {
  const { view, activations, activationBytes, code } = headCode(headSize, format);
  const { each, element, block } = walk;
  const rows = range(block);
  return kernel({
    name: "attentionBackwardKeyValue",
    read: {
      fused: activations("T, width"),
      dOut: `f32[T, H*${headSize}]${view}`,
      logSumExp: "f32[T, H]",
      delta: "f32[T, H]",
      queryEnd: "u32[T]",
    },
    write: { dFused: `f32[T, width]${view}` },
    uniforms: { T: "u32", H: "u32", groupSize: "u32", width: "u32", ...OFFSETS },
    enable: walk.enable,
    wgsl: /* wgsl */ `${code}
${walk.uniformity}
fn element(kvHead: u32, ownRow: u32, lane: u32) {
  let row = min(ownRow, u.T - 1u);
  var key: array<E, SIZE>;
  var value: array<E, SIZE>;
  var dKey: array<E, SIZE>;
  var dValue: array<E, SIZE>;
  let kAt = (row * u.width + u.kFrom) / LANES + kvHead * SIZE;
  let vAt = (row * u.width + u.vFrom) / LANES + kvHead * SIZE;
  ${each(
    (d) => `key[${d}] = E(fused[kAt + ${d}]) * SCALE;
    value[${d}] = E(fused[vAt + ${d}]);
    dKey[${d}] = E();
    dValue[${d}] = E();`,
  )}
  let end = queryEnd[row];
  let first = ${walk.least("row", "end")};
  let last = ${walk.most("row", "end")};
  for (var head = kvHead * u.groupSize; head < (kvHead + 1u) * u.groupSize; head++) {
    for (var query = first; query < last; query += ${block}u) {
      ${walk.load("queries", "fused", (j) => `(min(query + ${j}, last - 1u) * u.width + u.qFrom) / LANES + head * SIZE`)}
      ${walk.load("gradients", "dOut", (j) => `(min(query + ${j}, last - 1u) * u.H + head) * SIZE`)}
      ${walk.loadNumber("normalizer", (j) => `logSumExp[min(query + ${j}, last - 1u) * u.H + head]`)}
      ${walk.loadNumber("rowDelta", (j) => `delta[min(query + ${j}, last - 1u) * u.H + head]`)}
      ${rows.map((j) => `var s${j} = E();\nvar along${j} = E();`).join("\n")}
      ${each((d) =>
        rows
          .map(
            (j) => `s${j} = fma(key[${d}], ${element("queries", "fused", j, d)}, s${j});
        along${j} = fma(value[${d}], ${element("gradients", "dOut", j, d)}, along${j});`,
          )
          .join("\n"),
      )}
      ${rows
        .map(
          (
            j,
          ) => `let p${j} = select(0.0, exp(total(s${j}) - ${walk.number("normalizer", j)}), (query + ${j}u >= row) & (query + ${j}u < end));
      let dScore${j} = p${j} * (total(along${j}) - ${walk.number("rowDelta", j)}) * SCALE;`,
        )
        .join("\n")}
      ${each(
        (d) => `var nextKey = dKey[${d}];
      var nextValue = dValue[${d}];
      ${rows
        .map(
          (j) => `nextKey = fma(E(dScore${j}), ${element("queries", "fused", j, d)}, nextKey);
      nextValue = fma(E(p${j}), ${element("gradients", "dOut", j, d)}, nextValue);`,
        )
        .join("\n")}
      dKey[${d}] = nextKey;
      dValue[${d}] = nextValue;`,
      )}
    }
  }
  if (ownRow >= u.T) { return; }
  ${each(
    (d) => `dFused[kAt + ${d}] = dKey[${d}];
    dFused[vAt + ${d}] = dValue[${d}];`,
  )}
}
${walk.entry("u.T", "u.H / u.groupSize")}`,
    grid: ({ T = 0, H = 0, groupSize = 1 }) => walk.grid(T, H / groupSize),
    cost: ({ T = 0, H = 0 }) => ({
      flops: 8 * T * H * headSize * 64,
      bytes: (12 + 2 * activationBytes) * T * H * headSize,
    }),
  });
});
