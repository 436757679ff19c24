/**
 * What an adapter computes beside a linear layer of a block. Forward it adds its part to the layer's result; backward
 * it adds to the gradients of A and B, and with DoRA to those of the magnitudes (`dora.ts`). `linear.ts` records these
 * passes after the base's product. The adapters of head and embedding are recorded in `lora-head.ts` and
 * `embedding.ts`.
 */
import { addDropout, dropout } from "../../kernels/dropout.ts";
import type { Arena } from "../gpu/arena.ts";
import type { Program } from "../gpu/program.ts";
import { reshape, type Tensor } from "../gpu/tensor.ts";
import { partNames } from "./adapter-specs.ts";
import { type BaseWeights, boundRows, type DoraScratch } from "./dora.ts";
import type { LoraAdapter } from "./lora.ts";
import type { LoraModule } from "./lora-modules.ts";
import { recordMatmul } from "./matmul.ts";
import { recordProductBackward } from "./weight-product.ts";

/** Scratch of an adapter's passes, flat, for as many rows as the pass has. */
export interface LoraScratch {
  /** [T, highest r] at least: the inner result, and its gradient. */
  readonly inner: Tensor;
  readonly dInner: Tensor;
  /** [T, widest input] at least, where there is dropout. */
  readonly dropped: Tensor | undefined;
  readonly dora?: DoraScratch | undefined;
}

/** An adapter's scratch, and by what the rows of a pass draw dropout. */
export interface LoraRows extends LoraScratch {
  /** u32[T], by which dropout draws; not in generation. */
  readonly drawKeys: Tensor | undefined;
}

/** What a passes' backward has of a linear layer: dy [T, width], x, dx [T, in]. */
interface LayerGradients {
  readonly dy: Tensor;
  readonly x: Tensor;
  readonly dx: Tensor;
}

/** @throws Error for scratch of an adapter without DoRA */
export function doraScratch({ dora }: LoraScratch): DoraScratch {
  if (dora === undefined) throw new Error("this memory was made for an adapter without DoRA");
  return dora;
}

/** @throws Error for the rows of a pass that draws nothing */
function keysOf({ drawKeys }: LoraRows): Tensor {
  if (drawKeys === undefined) throw new Error("this pass has no rows to draw by");
  return drawKeys;
}

/** Records what follows from the adapter as it is now and a pass reads: DoRA's gains. */
export function recordGains(program: Program, adapter: LoraAdapter, base: BaseWeights, scratch: LoraScratch): void {
  const { norms } = adapter;
  if (norms === undefined) return;
  for (const module of adapter.modules) {
    const { a, b, magnitude } = adapter.partsOf(module);
    if (magnitude) norms.recordGains(program, base, module, { a, b, magnitude }, doraScratch(scratch));
  }
}

/** Records y += the adapter's part of the linear layers of `parameter`. x [T, in], y [T, width]. */
export function recordLoraForward(
  program: Program,
  adapter: LoraAdapter,
  base: BaseWeights,
  parameter: string,
  x: Tensor,
  y: Tensor,
  scratch: LoraRows,
): void {
  const [rows = 0] = x.shape;
  for (const [index, module] of adapter.modules.entries()) {
    if (module.kind !== "linear" || module.parameter !== parameter) continue;
    const { inner, input } = recordInner(program, adapter, index, module, x, scratch);
    const { b } = adapter.partsOf(module);
    if (adapter.norms && adapter.dropoutOf(index)) {
      const args = { dropped: input, inner, b, y };
      adapter.norms.recordWithDropout(program, base, module, args, doraScratch(scratch));
      continue;
    }
    recordMatmul(program, "NT", inner, b, reshape(y, [rows, y.shape[1] ?? 0]), {
      accumulate: true,
      outFrom: module.outFrom,
    });
  }
}

/**
 * Records the gradients of the magnitudes of the linear layers of `parameter`, with DoRA.
 *
 * @param partials scratch of column sums
 */
export function recordMagnitudes(
  program: Program,
  adapter: LoraAdapter,
  base: BaseWeights,
  parameter: string,
  gradients: Arena,
  { dy, x, partials }: Pick<LayerGradients, "dy" | "x"> & { readonly partials: Tensor },
  scratch: LoraRows,
): void {
  for (const [index, module] of adapter.modules.entries()) {
    if (adapter.norms === undefined || module.kind !== "linear" || module.parameter !== parameter) continue;
    const { inner, input } = recordInner(program, adapter, index, module, x, scratch);
    const { b } = adapter.partsOf(module);
    const gradient = gradients.window(partNames(module).magnitude);
    const args = { dy, x: input, inner, b, gradient, partials };
    adapter.norms.recordMagnitude(program, base, module, args, doraScratch(scratch));
  }
}

/**
 * Records the gradients of A and B, and dx += the gradient of x through the adapter. dy [T, width], x, dx [T, in];
 * where DoRA's gains are `late`, dy has them already.
 */
export function recordLoraBackward(
  program: Program,
  adapter: LoraAdapter,
  base: BaseWeights,
  parameter: string,
  gradients: Arena,
  args: LayerGradients,
  scratch: LoraRows,
): void {
  const { x, dx } = args;
  const [rows = 0] = x.shape;
  for (const [index, module] of adapter.modules.entries()) {
    if (module.kind !== "linear" || module.parameter !== parameter) continue;
    const { rank, scale } = module;
    const draw = adapter.dropoutOf(index);
    const into = adapter.partsOf(module, gradients);
    const { inner, input } = recordInner(program, adapter, index, module, x, scratch);
    const place = { key: parameter, from: module.outFrom, columns: module.outputs };
    const apart = draw && adapter.norms;
    const [dy, aFrom] = apart
      ? [apart.recordScaled(program, place, args.dy, doraScratch(scratch)), 0]
      : [args.dy, module.outFrom];
    recordMatmul(program, "TN", dy, inner, into.b, { accumulate: true, aFrom });
    const dInner = reshape(scratch.dInner, [rows, rank]);
    const { a, b } = adapter.partsOf(module);
    recordMatmul(program, "NN", dy, b, dInner, { aFrom, scale });
    recordMatmul(program, "TN", dInner, input, into.a, { accumulate: true });
    if (draw === undefined) {
      recordMatmul(program, "NN", dInner, a, dx, { accumulate: true });
      continue;
    }
    recordMatmul(program, "NN", dInner, a, input);
    if (apart) {
      const { weight, slack } = boundRows(base, module);
      const dBase = apart.recordScaled(program, place, args.dy, doraScratch(scratch), { shift: 1, slack });
      recordProductBackward(program, weight, dBase, input, { accumulate: true });
    }
    program.dispatch(addDropout, { x: input, y: dx, keys: keysOf(scratch), ...draw });
  }
}

/**
 * Records inner [T, r] = scale input A^T of one target, where input is x or, of the scratch, dropout(x); returns both.
 */
function recordInner(
  program: Program,
  adapter: LoraAdapter,
  index: number,
  module: LoraModule,
  x: Tensor,
  scratch: LoraRows,
): { readonly inner: Tensor; readonly input: Tensor } {
  const [rows = 0] = x.shape;
  const { rank, scale } = module;
  const inner = reshape(scratch.inner, [rows, rank]);
  let input = x;
  const draw = adapter.dropoutOf(index);
  if (draw !== undefined && scratch.dropped !== undefined) {
    input = reshape(scratch.dropped, x.shape);
    program.dispatch(dropout, { x, y: input, keys: keysOf(scratch), ...draw });
  }
  recordMatmul(program, "NT", input, adapter.partsOf(module).a, inner, { scale });
  return { inner, input };
}
