/**
 * Norms over the residual stream, forward and backward: before attention and MLP, after them, and before the head.
 * Those of query and key heads are in `query-key.ts`.
 *
 * Granite multiplies what each part of a layer adds to the stream x by m. The stream here is x / m: parts add to it
 * without a factor, and a norm of m times it with epsilon is the norm of it with epsilon / m^2.
 */
import {
  layerNormBackward,
  layerNormForward,
  normWeightPartials,
  rmsNormBackward,
  rmsNormForward,
  rmsNormResidual,
  rowBlocks,
} from "../../kernels/norm.ts";
import { addColumnSums, columnPartials } from "../../kernels/reduce.ts";
import type { Arena } from "../gpu/arena.ts";
import type { Program } from "../gpu/program.ts";
import { reshape, type Tensor } from "../gpu/tensor.ts";
import type { ModelConfig } from "./config/config.ts";
import type { Model } from "./model.ts";

/** Epsilon of norms of the stream as it is kept. */
export function streamEpsilon({ normEpsilon, residualMultiplier }: ModelConfig): number {
  return normEpsilon / residualMultiplier ** 2;
}

/** Factor of the embedding on its way into the stream as it is kept. */
export function embeddingScale({ embeddingMultiplier, residualMultiplier }: ModelConfig): number {
  return embeddingMultiplier / residualMultiplier;
}

/** Records y, stats = Norm(x) with the parameters `name`. */
export function recordNorm(program: Program, model: Model, name: string, x: Tensor, y: Tensor, stats: Tensor): void {
  const { facts } = program.device;
  const weight = model.parameter(`${name}.weight`);
  const epsilon = streamEpsilon(model.config);
  if (model.config.norm === "rms") {
    program.dispatch(rmsNormForward(facts, model.config.normUnitOffset), { x, weight, y, stats, epsilon });
  } else {
    const bias = model.parameter(`${name}.bias`);
    program.dispatch(layerNormForward(facts), { x, weight, bias, y, stats, epsilon });
  }
}

/** Records dx += the gradient through Norm, and its parameters' gradients where these are trained. */
export function recordNormBackward(
  program: Program,
  model: Model,
  gradients: Arena,
  name: string,
  args: { dy: Tensor; x: Tensor; stats: Tensor; dx: Tensor; partials: Tensor },
): void {
  const { dy, x, stats, dx } = args;
  const { facts } = program.device;
  const { norm, normUnitOffset } = model.config;
  const weight = model.parameter(`${name}.weight`);
  const backward = norm === "rms" ? rmsNormBackward(facts, normUnitOffset) : layerNormBackward(facts);
  program.dispatch(backward, { dy, x, weight, stats, dx });
  const [rows = 0, width = 0] = dy.shape;
  const partials = reshape(args.partials, [rowBlocks(rows), width]);
  if (gradients.has(`${name}.weight`)) {
    program.dispatch(normWeightPartials, { dy, x, stats, partials });
    program.dispatch(addColumnSums, { partials, out: gradients.window(`${name}.weight`) });
  }
  if (gradients.has(`${name}.bias`)) {
    program.dispatch(columnPartials, { dy, partials, firstColumn: 0 });
    program.dispatch(addColumnSums, { partials, out: gradients.window(`${name}.bias`) });
  }
}

/** Records y = residual + Norm(branch), and stats; the norm has the parameters `name`. */
export function recordBranchNorm(
  program: Program,
  model: Model,
  name: string,
  args: { branch: Tensor; residual: Tensor; y: Tensor; stats: Tensor },
): void {
  const { branch: x, ...rest } = args;
  const { normEpsilon: epsilon, normUnitOffset } = model.config;
  const weight = model.parameter(`${name}.weight`);
  program.dispatch(rmsNormResidual(program.device.facts, normUnitOffset), { x, weight, ...rest, epsilon });
}

/** Records dBranch = the gradient of the branch from dy, that of y in `recordBranchNorm`. */
export function recordBranchNormBackward(
  program: Program,
  model: Model,
  gradients: Arena,
  name: string,
  args: { dy: Tensor; branch: Tensor; stats: Tensor; dBranch: Tensor; partials: Tensor },
): void {
  const { dy, branch: x, stats, dBranch: dx, partials } = args;
  program.clear(dx);
  recordNormBackward(program, model, gradients, name, { dy, x, stats, dx, partials });
}
