/**
 * Embedding lookup and its deterministic backward; the same gather and scatter move hidden rows to the head and keys
 * to the cache of generation.
 *
 *   forward    y[n] = table[ids[n]]                    [N, C]
 *   backward   dTable[v] += sum over n with ids[n] = v of dy[n]
 *
 * WGSL has no f32 atomics, and an order left to the hardware would not be repeatable: the host sorts the rows by id
 * into buckets, and one invocation owns one (bucket, channel).
 */
import { type Kernel, kernel, type WeightFormat } from "./kernel.ts";
import { storedBinding, storedBytes, storedElement, storedFunctions, storedVector } from "./stored.ts";
import { inVectors, rowElements, rowElementsGrid } from "./wgsl.ts";

/** A row index that stands for no row: gathers give zeros, scatters write nothing. */
export const NO_ROW = 0xffffffff;

/**
 * y[n] = table[rows[n] - firstRow], or zeros where that is no row of the table (as NO_ROW never is); with `accumulate`,
 * added to y[n]. A table that is too large for one binding is read window by window, from its row `firstRow` on.
 */
export function gatherRows(format: WeightFormat = "f32"): GatherKernel {
  return gatherKernels[format];
}

type GatherKernel = Kernel<"table" | "rows" | "y", "N" | "V" | "C" | "firstRow" | "accumulate">;

const gatherKernel = (format: WeightFormat): GatherKernel =>
  inVectors(
    ({ C }) => [C],
    ({ count, view, wgsl }) =>
      kernel({
        name: "gatherRows",
        read: { table: storedBinding(format, "V, C", count === 4), rows: "u32[N]" },
        write: { y: `f32[N, C]${view}` },
        uniforms: { N: "u32", V: "u32", C: "u32", firstRow: "u32", accumulate: "u32" },
        wgsl: /* wgsl */ `${wgsl}${storedFunctions(format, "table")}
fn element(n: u32, column: u32) {
  let width = u.C / LANES;
  let row = rows[n] - u.firstRow;
  let i = n * width + column;
  var value = E();
  if (row < u.V) {
    let at = row * width + column;
    value = ${(count === 4 ? storedVector : storedElement)(format, "table", "at")};
  }
  if (u.accumulate != 0u) { value += y[i]; }
  y[i] = value;
}
${rowElements("u.N", "u.C / LANES")}`,
        grid: ({ N = 0, C = 0 }) => rowElementsGrid(N, C / count),
        cost: ({ N = 0, C = 0 }) => ({ flops: 0, bytes: (4 + storedBytes(format)) * N * C }),
      }),
  );

const gatherKernels: Readonly<Record<WeightFormat, GatherKernel>> = {
  f32: gatherKernel("f32"),
  f16: gatherKernel("f16"),
  bf16: gatherKernel("bf16"),
  nf4: gatherKernel("nf4"),
  int8: gatherKernel("int8"),
};

/** y[rows[n]] = x[n] for every n whose rows[n] is a row of y. Rows must not repeat. */
export const scatterRows = inVectors(
  ({ C, width, xColumn }) => [C, width, xColumn],
  (lanes) =>
    kernel({
      name: "scatterRows",
      read: { x: `f32[N, width]${lanes.view}`, rows: "u32[N]" },
      write: { y: `f32[V, C]${lanes.view}` },
      // Columns [xColumn, xColumn + C) of x: a cache takes its part of a wider row.
      uniforms: { N: "u32", V: "u32", C: "u32", width: "u32", xColumn: "u32" },
      wgsl: /* wgsl */ `${lanes.wgsl}
fn element(n: u32, column: u32) {
  let row = rows[n];
  if (row < u.V) { y[row * (u.C / LANES) + column] = x[(n * u.width + u.xColumn) / LANES + column]; }
}
${rowElements("u.N", "u.C / LANES")}`,
      grid: ({ N = 0, C = 0 }) => rowElementsGrid(N, C / lanes.count),
      cost: ({ N = 0, C = 0 }) => ({ flops: 0, bytes: 8 * N * C }),
    }),
);

/**
 * dTable[bucketIds[b] - firstRow] += sum of dy[order[i]] for i in [bucketStarts[b], bucketStarts[b + 1]), for ids in
 * the window of the table from `firstRow` on. Bucket ids must not repeat; NO_ROW marks a bucket that is not used.
 */
export const embeddingBackward = inVectors(
  ({ C }) => [C],
  (lanes) =>
    kernel({
      name: "embeddingBackward",
      read: { dy: `f32[T, C]${lanes.view}`, order: "u32[T]", bucketIds: "u32[B]", bucketStarts: "u32[starts]" },
      write: { dTable: `f32[V, C]${lanes.view}` },
      uniforms: { B: "u32", T: "u32", V: "u32", C: "u32", firstRow: "u32" },
      wgsl: /* wgsl */ `${lanes.wgsl}
fn element(bucket: u32, column: u32) {
  let width = u.C / LANES;
  let id = bucketIds[bucket] - u.firstRow;
  if (id >= u.V) { return; }
  var sum = E();
  for (var at = bucketStarts[bucket]; at < bucketStarts[bucket + 1u]; at++) {
    sum += dy[order[at] * width + column];
  }
  dTable[id * width + column] += sum;
}
${rowElements("u.B", "u.C / LANES")}`,
      grid: ({ B = 0, C = 0 }) => rowElementsGrid(B, C / lanes.count),
      cost: ({ B = 0, T = 0, C = 0 }) => ({ flops: T * C, bytes: 4 * (T * C + 2 * B * C) }),
    }),
);

/**
 * y[n, firstRow + k] = table[k, columns[n]]: the columns of a table [R, V] by ids, where it is read window by window of
 * its rows. It is the lookup of an embedding's A, which PEFT stores so.
 */
export const gatherColumns = kernel({
  name: "gatherColumns",
  read: { table: "f32[R, V]", columns: "u32[N]" },
  write: { y: "f32[N, C]" },
  uniforms: { N: "u32", R: "u32", V: "u32", C: "u32", firstRow: "u32" },
  wgsl: /* wgsl */ `
fn element(n: u32, k: u32) {
  let column = columns[n];
  y[n * u.C + u.firstRow + k] = select(0.0, table[k * u.V + min(column, u.V - 1u)], column < u.V);
}
${rowElements("u.N", "u.R")}`,
  grid: ({ N = 0, R = 0 }) => rowElementsGrid(N, R),
  cost: ({ N = 0, R = 0 }) => ({ flops: 0, bytes: 8 * N * R }),
});

/**
 * Its gradient: dTable[k, bucketIds[b]] += sum of dy[order[i], firstRow + k] over the rows i of bucket b, as
 * `embeddingBackward` sums them.
 */
export const embeddingColumnsBackward = kernel({
  name: "embeddingColumnsBackward",
  read: { dy: "f32[T, C]", order: "u32[T]", bucketIds: "u32[B]", bucketStarts: "u32[starts]" },
  write: { dTable: "f32[R, V]" },
  uniforms: { B: "u32", T: "u32", R: "u32", V: "u32", C: "u32", firstRow: "u32" },
  wgsl: /* wgsl */ `
fn element(bucket: u32, k: u32) {
  let id = bucketIds[bucket];
  if (id >= u.V) { return; }
  var sum = 0.0;
  for (var at = bucketStarts[bucket]; at < bucketStarts[bucket + 1u]; at++) {
    sum += dy[order[at] * u.C + u.firstRow + k];
  }
  dTable[k * u.V + id] += sum;
}
${rowElements("u.B", "u.R")}`,
  grid: ({ B = 0, R = 0 }) => rowElementsGrid(B, R),
  cost: ({ B = 0, T = 0, R = 0 }) => ({ flops: T * R, bytes: 4 * (T * R + 2 * B * R) }),
});

/**
 * Sorts rows by id for `embeddingBackward`: arrays of fixed capacity (ids.length buckets), so that one recorded
 * program serves every batch of a shape. Rows at and beyond `used` are left out.
 */
export function bucketRows(
  ids: Uint32Array,
  used: number,
): { order: Uint32Array; bucketIds: Uint32Array; bucketStarts: Uint32Array } {
  const capacity = ids.length;
  const order = new Uint32Array(capacity);
  const rows = Array.from({ length: used }, (_, row) => row);
  rows.sort((a, b) => (ids[a] ?? 0) - (ids[b] ?? 0) || a - b);
  order.set(rows);
  const bucketIds = new Uint32Array(capacity).fill(NO_ROW);
  const bucketStarts = new Uint32Array(capacity + 1).fill(used);
  let buckets = 0;
  for (let at = 0; at < used; at++) {
    const id = ids[order[at] ?? 0] ?? 0;
    if (buckets > 0 && bucketIds[buckets - 1] === id) continue;
    bucketIds[buckets] = id;
    bucketStarts[buckets] = at;
    buckets++;
  }
  return { order, bucketIds, bucketStarts };
}
