/**
 * DiLoCo's outer step (Douillard et al. 2023, algorithm 1) in float64, with Nesterov momentum as torch.optim.SGD has it:
 * the mean of what the ranks changed since the last outer step is its gradient.
 */
import { at } from "./elements.ts";

export interface OuterState {
  /** [N], as the ranks had them after the last outer step. */
  readonly parameter: Float64Array;
  /** [N], zeros before the first outer step. */
  readonly momentum: Float64Array;
}

export interface OuterOptions {
  readonly learningRate: number;
  readonly momentum: number;
}

/**
 * `g = mean over ranks of (p - p_rank)`, `v = momentum v + g`, `p = p - learningRate (g + momentum v)`.
 *
 * @param state is left as it is @param ranks [N] of each rank, after its own updates
 * @returns the state after the step, in new arrays
 */
export function outerStep(state: OuterState, ranks: readonly Float64Array[], options: OuterOptions): OuterState {
  const parameter = new Float64Array(state.parameter.length);
  const momentum = new Float64Array(state.parameter.length);
  for (let i = 0; i < parameter.length; i++) {
    const before = at(state.parameter, i);
    const gradient = ranks.reduce((sum, own) => sum + (before - at(own, i)), 0) / ranks.length;
    const velocity = options.momentum * at(state.momentum, i) + gradient;
    momentum[i] = velocity;
    parameter[i] = before - options.learningRate * (gradient + options.momentum * velocity);
  }
  return { parameter, momentum };
}
