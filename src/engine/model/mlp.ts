/**
 * The MLP of a decoder layer, forward and backward: Down(Activation(Up(x))). Each row of it is computed from one row of
 * its input alone, so where all rows of what lies between the two products exceed a buffer or binding, they are walked
 * in slices that share one place; the backward pass then computes a slice's `up` and `activated` again, whatever else
 * is kept. Norms and the residual stream around it are `block.ts`'s.
 */
import { gegluBackward, gegluForward, geluBackward, geluForward, swigluBackward } from "../../kernels/activation.ts";
import type { Arena } from "../gpu/arena.ts";
import type { Program } from "../gpu/program.ts";
import { sliceRows, type Tensor } from "../gpu/tensor.ts";
import { type LayerActivations, normsBefore } from "./activations.ts";
import { recordLinear, recordLinearBackward, recordSwigluLinear } from "./linear.ts";
import type { LoraRows } from "./lora-passes.ts";
import type { PassRows } from "./mixer.ts";
import type { Model } from "./model.ts";
import type { ProductOptions } from "./weight-product.ts";
import { layerName } from "./weights/parameters.ts";

/** A layer in a pass. */
interface MlpPass {
  readonly program: Program;
  readonly model: Model;
  readonly layer: number;
  readonly here: LayerActivations;
}

/** A slice of a pass's rows: windows of tensors that have all of them, and of those that have a slice's. */
interface Slice {
  readonly of: (tensor: Tensor) => Tensor;
  readonly own: (tensor: Tensor) => Tensor;
  readonly lora: LoraRows | undefined;
}

function slicesOf({ middle }: LayerActivations, { mlpSlice, lora }: PassRows): Slice[] {
  const [total = 0] = middle.shape;
  const most = mlpSlice ?? total;
  return Array.from({ length: Math.ceil(total / most) }, (_, index) => {
    const first = index * most;
    const rows = Math.min(most, total - first);
    return {
      of: (tensor) => sliceRows(tensor, first, rows),
      own: (tensor) => sliceRows(tensor, 0, rows),
      lora: lora && { ...lora, drawKeys: lora.drawKeys && sliceRows(lora.drawKeys, first, rows) },
    };
  });
}

/** What the MLP reads [T, C]. */
const inputOf = ({ model, here }: MlpPass) => (normsBefore(model.config) ? here.mlpNormed : here.middle);

/** What a pass says of the MLP's products: nobody reads `up` afterwards, and the norm that the first one has a part of. */
interface Fused extends Pick<ProductOptions, "takes"> {
  readonly alone: boolean;
}

/** Records `up` and `activated` of a slice. */
function recordActivated(pass: MlpPass, slice: Slice, { alone, takes }: Fused): void {
  const { program, model, layer, here } = pass;
  const { mlp } = model.config;
  const [x, up, y] = [slice.of(inputOf(pass)), slice.own(here.up), slice.own(here.activated)];
  const name = layerName(layer, "up");
  if (mlp === "swiglu") {
    recordSwigluLinear(program, model, name, { x, gateUp: up, y, alone, takes, lora: slice.lora });
    return;
  }
  recordLinear(program, model, name, { x, y: up, takes, lora: slice.lora });
  if (mlp === "gelu") program.dispatch(geluForward, { x: up, y });
  else program.dispatch(gegluForward, { gateUp: up, y });
}

/**
 * Records y = (residual +) MLP(its input); without `result` only what a backward pass needs.
 *
 * @param result.y [T, C]
 */
export function recordMlpForward(
  pass: MlpPass,
  rows: PassRows,
  result: ({ readonly y: Tensor } & Pick<ProductOptions, "residual" | "gives">) | undefined,
  fused: Fused,
): void {
  const { program, model, layer, here } = pass;
  // The backward pass computes slices itself.
  if (result === undefined && rows.mlpSlice !== undefined) return;
  for (const slice of slicesOf(here, rows)) {
    recordActivated(pass, slice, fused);
    if (result === undefined) continue;
    const y = slice.of(result.y);
    const residual = result.residual && slice.of(result.residual);
    recordLinear(program, model, layerName(layer, "down"), {
      ...{ x: slice.own(here.activated), y, residual, gives: result.gives, lora: slice.lora },
    });
  }
}

/** Scratch of the backward pass: [T, I] and [T, width of `up`], T the rows of a slice. */
export interface MlpScratch {
  readonly dActivated: Tensor;
  readonly dUp: Tensor;
  readonly partials: Tensor;
}

/**
 * Records dx = the gradient through the MLP, or with `accumulate` dx += it, and those of its parameters that are trained.
 *
 * @param args.dy [T, C], of its result
 * @param args.dx [T, C], of its input; may be dy where it is accumulated
 */
export function recordMlpBackward(
  pass: MlpPass,
  rows: PassRows,
  gradients: Arena,
  scratch: MlpScratch,
  args: { readonly dy: Tensor; readonly dx: Tensor; readonly accumulate: boolean },
): void {
  const { program, model, layer, here } = pass;
  const { mlp } = model.config;
  for (const slice of slicesOf(here, rows)) {
    if (rows.mlpSlice !== undefined) recordActivated(pass, slice, { alone: false, takes: undefined });
    const shared = { partials: scratch.partials, lora: slice.lora };
    const [dActivated, dUp] = [slice.own(scratch.dActivated), slice.own(scratch.dUp)];
    const [up, x] = [slice.own(here.up), slice.own(here.activated)];
    recordLinearBackward(program, model, gradients, layerName(layer, "down"), {
      ...{ dy: slice.of(args.dy), x, dx: dActivated },
      ...shared,
    });
    if (mlp === "gelu") program.dispatch(geluBackward, { dy: dActivated, x: up, dx: dUp });
    else {
      const backward = mlp === "swiglu" ? swigluBackward : gegluBackward;
      program.dispatch(backward, { dy: dActivated, gateUp: up, dGateUp: dUp });
    }
    recordLinearBackward(program, model, gradients, layerName(layer, "up"), {
      ...{ dy: dUp, x: slice.of(inputOf(pass)), dx: slice.of(args.dx), accumulate: args.accumulate },
      ...shared,
    });
  }
}
