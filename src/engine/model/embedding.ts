/**
 * Rows of a table by ids, forward and backward, and the embedding of tokens with an adapter of its own:
 *
 *   y[t] = gain (E[id_t] + scale A[:, id_t]^T B^T)       A [r, V], B [C, r], gain [C] with DoRA, else 1
 *
 * as PEFT has it, without dropout.
 */
import { embeddingBackward, embeddingColumnsBackward, gatherColumns, gatherRows } from "../../kernels/embedding.ts";
import type { WeightFormat } from "../../kernels/kernel.ts";
import type { Arena } from "../gpu/arena.ts";
import type { Program } from "../gpu/program.ts";
import { reshape, rowWindows, type Tensor } from "../gpu/tensor.ts";
import type { AdaptedLayer } from "./lora.ts";
import { doraScratch, type LoraScratch } from "./lora-passes.ts";
import { recordMatmul } from "./matmul.ts";
import type { Model } from "./model.ts";

/** The rows of each id, one after another; see `bucketRows`. */
export interface Buckets {
  readonly order: Tensor;
  readonly bucketIds: Tensor;
  readonly bucketStarts: Tensor;
}

/** Records y [T, C] (+)= table[ids], the table in windows that the adapter can bind. */
export function recordLookup(program: Program, table: Tensor, ids: Tensor, y: Tensor, accumulate: boolean): void {
  for (const { first, window } of rowWindows(table, program.device.limits.maxStorageBufferBindingSize)) {
    const adds = accumulate || first > 0;
    program.dispatch(gatherRows(table.dtype as WeightFormat), {
      table: window,
      rows: ids,
      y,
      firstRow: first,
      accumulate: adds ? 1 : 0,
    });
  }
}

/** Records dTable[id] += the rows of dy in the bucket of `id`, for every bucket. */
export function recordLookupBackward(program: Program, dy: Tensor, dTable: Tensor, buckets: Buckets): void {
  for (const { first, window } of rowWindows(dTable, program.device.limits.maxStorageBufferBindingSize)) {
    program.dispatch(embeddingBackward, { dy, ...buckets, dTable: window, firstRow: first });
  }
}

/** Records y [T, C], which holds the base's rows, with the adapter's part. */
export function recordEmbedding(
  program: Program,
  model: Model,
  layer: AdaptedLayer,
  tokens: Tensor,
  y: Tensor,
  scratch: LoraScratch,
): void {
  const inner = recordInner(program, layer, tokens, scratch);
  recordMatmul(program, "NT", inner, layer.b, y, { accumulate: true, scale: layer.module.scale });
  model.adapter?.norms?.recordEnd(program, "embedding", y, {});
}

/** Records A[:, ids]^T [T, r] into the scratch. */
function recordInner(program: Program, { module, a }: AdaptedLayer, tokens: Tensor, scratch: LoraScratch): Tensor {
  const inner = reshape(scratch.inner, [tokens.shape[0] ?? 0, module.rank]);
  for (const { first, window } of rowWindows(a, program.device.limits.maxStorageBufferBindingSize)) {
    program.dispatch(gatherColumns, { table: window, columns: tokens, y: inner, firstRow: first });
  }
  return inner;
}

/** Records the gradients of the adapter of the embedding, from dy [T, C]. */
export function recordEmbeddingBackward(
  program: Program,
  model: Model,
  layer: AdaptedLayer,
  gradients: Arena,
  args: Buckets & { readonly tokens: Tensor; readonly dy: Tensor; readonly partials: Tensor },
  scratch: LoraScratch,
): void {
  const { tokens, dy, partials, ...buckets } = args;
  const { module, b } = layer;
  const { adapter } = model;
  const into = adapter?.partsOf(module, gradients);
  if (into === undefined) return;
  const rows = tokens.shape[0] ?? 0;
  const { rank, scale } = module;
  let scaled = dy;
  const inner = recordInner(program, layer, tokens, scratch);
  if (adapter?.norms && into.magnitude) {
    const dora = doraScratch(scratch);
    const product = adapter.norms.product(dora, [rows, module.outputs]);
    recordLookup(program, model.base.parameter("embedding"), tokens, product, false);
    recordMatmul(program, "NT", inner, b, product, { accumulate: true, scale });
    adapter.norms.recordMagnitudeSum(program, module, { dy, product, partials, gradient: into.magnitude });
    scaled = adapter.norms.recordScaled(program, { key: "embedding", from: 0, columns: module.outputs }, dy, dora);
  }
  recordMatmul(program, "TN", scaled, inner, into.b, { accumulate: true, scale });
  const dInner = reshape(scratch.dInner, [rows, rank]);
  recordMatmul(program, "NN", scaled, b, dInner, { scale });
  for (const { first, window } of rowWindows(into.a, program.device.limits.maxStorageBufferBindingSize)) {
    program.dispatch(embeddingColumnsBackward, { dy: dInner, ...buckets, dTable: window, firstRow: first });
  }
}
