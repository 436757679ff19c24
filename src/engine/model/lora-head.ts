/**
 * The head with an adapter. Its kernels never form the [tokens, vocabulary] matrix, so the adapter is not added to
 * logits but joined to the operands, window by window of the vocabulary:
 *
 *   logits = [x | inner] [W | B]^T,  inner = scale dropout(x) A^T       with DoRA the rows of the table times its gains
 *
 * and, where dropout is drawn, DoRA's base part from the inputs that it leaves: [x | dropout(x) | inner] over
 * [W | (gain - 1) W | gain B] (PEFT's formula, see `dora.ts`). Generation adds to logits that it has anyway.
 */
import { magnitudePartials, scaleColumns } from "../../kernels/dora.ts";
import { addDropout, dropout } from "../../kernels/dropout.ts";
import { joinColumns } from "../../kernels/join-columns.ts";
import type { WeightFormat } from "../../kernels/kernel.ts";
import { rowBlocks } from "../../kernels/norm.ts";
import { addColumnSums } from "../../kernels/reduce.ts";
import type { Arena } from "../gpu/arena.ts";
import type { Device } from "../gpu/device.ts";
import type { Program } from "../gpu/program.ts";
import { reshape, sliceRows, type Tensor } from "../gpu/tensor.ts";
import type { ModelConfig } from "./config/config.ts";
import type { AdaptedLayer, LoraAdapter } from "./lora.ts";
import { recordMatmul } from "./matmul.ts";
import type { Model } from "./model.ts";

/** Bytes that a window of the joined table takes at most. */
const TABLE_BYTES = 2 ** 26;

/** Rows of the head's passes. */
export interface HeadRows {
  readonly rows: number;
  /** Rows of region A, in passes with gradients. */
  readonly gradientRows: number;
}

/** The memory of a head's adapter, and what it records. */
export class HeadAdapter {
  readonly device: Device;
  readonly config: ModelConfig;
  /** Rows of the table that are joined at once at most. */
  readonly #tableRows: number;
  readonly #buffers: Readonly<Record<string, Tensor>>;

  /** Undefined for an adapter without the head. @param forTraining not for generation, which joins nothing */
  static of(
    device: Device,
    config: ModelConfig,
    adapter: LoraAdapter | undefined,
    rows: HeadRows,
    forTraining: boolean,
  ): HeadAdapter | undefined {
    const layer = adapter?.special("head");
    return adapter && layer && new HeadAdapter(device, config, adapter, layer, rows, forTraining);
  }

  private constructor(
    device: Device,
    config: ModelConfig,
    adapter: LoraAdapter,
    { module: { rank } }: AdaptedLayer,
    { rows, gradientRows }: HeadRows,
    forTraining: boolean,
  ) {
    const { hiddenSize: C, vocabSize } = config;
    this.device = device;
    this.config = config;
    const drops = adapter.options.dropout > 0;
    const { width } = joined(C, rank, drops && adapter.norms !== undefined);
    const most = Math.floor(Math.min(TABLE_BYTES, device.limits.maxStorageBufferBindingSize) / (4 * width));
    this.#tableRows = Math.min(vocabSize, Math.max(128, Math.floor(most / 128) * 128));
    const trains = forTraining && gradientRows > 0;
    const sizes = {
      inner: rows * rank,
      dropped: forTraining && drops ? rows * C : 0,
      input: forTraining ? rows * width : 0,
      table: forTraining ? this.#tableRows * width : 0,
      dInput: trains ? gradientRows * width : 0,
      product: trains && adapter.norms ? gradientRows * this.#tableRows : 0,
      partials: trains && adapter.norms ? 64 * this.#tableRows : 0,
    };
    this.#buffers = Object.fromEntries(
      Object.entries(sizes)
        .filter(([, size]) => size > 0)
        .map(([name, size]) => [name, device.allocate("scratch", `head adapter ${name}`, [size])]),
    );
  }

  /** Rows of the table that one window may have, in whole splits of `perSplit`. */
  rowsAtMost(perSplit = 1): number {
    return Math.max(1, Math.floor(this.#tableRows / perSplit)) * perSplit;
  }

  #tensor(name: string, shape: readonly number[]): Tensor {
    const buffer = this.#buffers[name];
    if (buffer === undefined) throw new Error(`the head's memory has no room for ${name} of its adapter`);
    return reshape(buffer, shape);
  }

  /** Where the parts stand in the joined operands of a model's passes. */
  #place(model: Model, { module, index }: AdaptedLayer): { readonly from: number; readonly width: number } {
    const apart = model.adapter?.norms !== undefined && model.adapter.dropoutOf(index) !== undefined;
    return joined(this.config.hiddenSize, module.rank, apart);
  }

  /** Records inner [N, r] = scale seen A^T, where seen is x [N, C] or dropout(x), which draws by keys u32[N]. */
  recordInner(
    program: Program,
    model: Model,
    layer: AdaptedLayer,
    x: Tensor,
    keys: Tensor | undefined,
  ): { inner: Tensor; seen: Tensor } {
    const { inner, seen } = this.#inner(model, layer, x);
    const draw = model.adapter?.dropoutOf(layer.index);
    if (draw && keys) program.dispatch(dropout, { x, y: seen, keys, ...draw });
    recordMatmul(program, "NT", seen, layer.a, inner, { scale: layer.module.scale });
    return { inner, seen };
  }

  /** What `recordInner` left for the first rows. */
  #inner(model: Model, { module, index }: AdaptedLayer, x: Tensor): { inner: Tensor; seen: Tensor } {
    const draws = model.adapter?.dropoutOf(index) !== undefined;
    return {
      inner: this.#tensor("inner", [x.shape[0] ?? 0, module.rank]),
      seen: draws ? this.#tensor("dropped", x.shape) : x,
    };
  }

  /** Records the joined input [N, width] of x [N, C], whose dropout draws by keys u32[N]. */
  recordInput(program: Program, model: Model, layer: AdaptedLayer, x: Tensor, keys: Tensor): Tensor {
    const { inner, seen } = this.recordInner(program, model, layer, x, keys);
    const [rows = 0, C = 0] = x.shape;
    const { from } = this.#place(model, layer);
    const out = this.input(model, layer, rows);
    this.#clearOdd(program, layer, out);
    const join = (part: Tensor, first: number) =>
      recordJoin(program, part, out, { first, columns: part.shape[1] ?? 0 });
    join(x, 0);
    if (from > C) join(seen, C);
    join(inner, from);
    return out;
  }

  /** Columns beyond an odd rank are zeros. */
  #clearOdd(program: Program, { module }: AdaptedLayer, out: Tensor): void {
    if (module.rank % 4 !== 0) program.clear(out);
  }

  /** The joined input that `recordInput` left, of the first rows. */
  input(model: Model, layer: AdaptedLayer, rows: number): Tensor {
    return this.#tensor("input", [rows, this.#place(model, layer).width]);
  }

  /** Records the joined rows [start, start + count) of the table. */
  recordTable(program: Program, model: Model, layer: AdaptedLayer, start: number, count: number): Tensor {
    const { hiddenSize: C } = this.config;
    const { from, width } = this.#place(model, layer);
    const out = this.#tensor("table", [count, width]);
    this.#clearOdd(program, layer, out);
    const weight = sliceRows(tableOf(model), start, count);
    const all = model.adapter?.norms?.gains("head");
    const gains = all && sliceRows(all, start, count);
    recordJoin(program, weight, out, { first: 0, columns: C, gains: from > C ? undefined : gains });
    if (from > C) recordJoin(program, weight, out, { first: C, columns: C, gains, shift: 1 });
    recordJoin(program, sliceRows(layer.b, start, count), out, { first: from, columns: layer.module.rank, gains });
    return out;
  }

  /**
   * Records what the gradient of one window of logits is for: dInput (+)= dLogits table, and the gradients of B and
   * magnitude in these rows. dLogits [N, count] is overwritten with DoRA.
   */
  recordWindowBackward(
    program: Program,
    model: Model,
    layer: AdaptedLayer,
    gradients: Arena,
    args: { readonly dLogits: Tensor; readonly table: Tensor; readonly x: Tensor; readonly start: number },
  ): void {
    const { dLogits, table, x, start } = args;
    const [rows = 0, count = 0] = dLogits.shape;
    const { norms } = model.adapter ?? {};
    const { inner, seen } = this.#inner(model, layer, x);
    const into = model.adapter?.partsOf(layer.module, gradients);
    if (into === undefined) return;
    const b = sliceRows(layer.b, start, count);
    recordMatmul(program, "NN", dLogits, table, this.#dInput(model, layer, rows), { accumulate: start > 0 });
    if (norms && into.magnitude) {
      const product = this.#tensor("product", [rows, count]);
      recordMatmul(program, "NT", seen, sliceRows(tableOf(model), start, count), product);
      recordMatmul(program, "NT", inner, b, product, { accumulate: true });
      const partials = this.#tensor("partials", [rowBlocks(rows), count]);
      const inverse = sliceRows(norms.inverse("head"), start, count);
      const place = { columns: count, first: 0, xFrom: 0 };
      program.dispatch(magnitudePartials, { inverse, dy: dLogits, product, partials, ...place });
      program.dispatch(addColumnSums, { partials, out: sliceRows(into.magnitude, start, count) });
      const unused = reshape(this.device.unused, [4]);
      const own = { gains: sliceRows(norms.gains("head"), start, count), bias: unused, residual: unused };
      program.dispatch(scaleColumns, { ...own, y: dLogits, hasBias: 0, hasResidual: 0 });
    }
    recordMatmul(program, "TN", dLogits, inner, sliceRows(into.b, start, count), { accumulate: true });
  }

  #dInput(model: Model, layer: AdaptedLayer, rows: number): Tensor {
    return this.#tensor("dInput", [rows, this.#place(model, layer).width]);
  }

  /** Records dx [N, C] and the gradient of A from dInput, when all windows are done. */
  recordInputBackward(
    program: Program,
    model: Model,
    layer: AdaptedLayer,
    gradients: Arena,
    { x, dx, keys }: { readonly x: Tensor; readonly dx: Tensor; readonly keys: Tensor },
  ): void {
    const [rows = 0, C = 0] = x.shape;
    const { from } = this.#place(model, layer);
    const { seen } = this.#inner(model, layer, x);
    const { scale } = layer.module;
    const dInput = this.#dInput(model, layer, rows);
    const into = model.adapter?.partsOf(layer.module, gradients);
    const draw = model.adapter?.dropoutOf(layer.index);
    recordJoin(program, dInput, dx, { first: 0, columns: C });
    if (into) recordMatmul(program, "TN", dInput, seen, into.a, { aFrom: from, accumulate: true, scale });
    if (draw === undefined) {
      recordMatmul(program, "NN", dInput, layer.a, dx, { aFrom: from, accumulate: true, scale });
      return;
    }
    if (from > C) recordJoin(program, dInput, seen, { first: 0, columns: C, xFirst: C });
    recordMatmul(program, "NN", dInput, layer.a, seen, { aFrom: from, accumulate: from > C, scale });
    program.dispatch(addDropout, { x: seen, y: dx, keys, ...draw });
  }

  /** Records logits [N, count] += the adapter's part of the rows of the table from `start` on; all times DoRA's gains. */
  recordLogits(
    program: Program,
    model: Model,
    layer: AdaptedLayer,
    { inner, logits, start }: { readonly inner: Tensor; readonly logits: Tensor; readonly start: number },
  ): void {
    const [, count = 0] = logits.shape;
    recordMatmul(program, "NT", inner, sliceRows(layer.b, start, count), logits, { accumulate: true });
    const gains = model.adapter?.norms?.gains("head");
    if (gains === undefined) return;
    const unused = reshape(this.device.unused, [4]);
    const args = { gains: sliceRows(gains, start, count), bias: unused, residual: unused, y: logits };
    program.dispatch(scaleColumns, { ...args, hasBias: 0, hasResidual: 0 });
  }

  free(): void {
    for (const buffer of Object.values(this.#buffers)) this.device.free(buffer);
  }
}

/** Columns of the joined operands, a whole number of fours, and where inner and B stand in them. */
function joined(C: number, rank: number, apart: boolean): { readonly from: number; readonly width: number } {
  const from = apart ? 2 * C : C;
  return { from, width: from + Math.ceil(rank / 4) * 4 };
}

/** The base's matrix. */
function tableOf(model: Model): Tensor {
  return model.base.parameter("head");
}

function recordJoin(
  program: Program,
  x: Tensor,
  out: Tensor,
  place: {
    readonly first: number;
    readonly columns: number;
    readonly gains?: Tensor | undefined;
    readonly xFirst?: number;
    readonly shift?: number;
  },
): void {
  const { gains, xFirst = 0, shift = 0, ...columns } = place;
  program.dispatch(joinColumns(x.dtype as WeightFormat), {
    ...{ x, gains: gains ?? reshape(program.device.unused, [4]), out },
    ...{ ...columns, xFirst, hasGains: gains ? 1 : 0, shift },
  });
}
