/**
 * One AdamW step (Loshchilov and Hutter 2019: decoupled decay, Adam's bias correction) in float64, in the order of
 * operations of `torch.optim.AdamW`. Whether a parameter is decayed is the caller's choice (weightDecay 0).
 */
import { at } from "./elements.ts";

export interface AdamwState {
  /** [N] */
  readonly parameter: Float64Array;
  /** [N], zeros before the first step. */
  readonly firstMoment: Float64Array;
  /** [N], zeros before the first step. */
  readonly secondMoment: Float64Array;
}

export interface AdamwOptions {
  readonly learningRate: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  readonly weightDecay: number;
  /** Counts from 1. */
  readonly step: number;
  /** Multiplies the gradient first: the clip factor, the mean over accumulated microbatches. */
  readonly scale: number;
}

/**
 * `g = scale gradient`, `p = p (1 - learningRate weightDecay)`, `m = beta1 m + (1 - beta1) g`,
 * `v = beta2 v + (1 - beta2) g^2`,
 * `p = p - learningRate / (1 - beta1^step) m / (sqrt(v) / sqrt(1 - beta2^step) + epsilon)`.
 *
 * @param state is left as it is @param gradient [N]
 * @returns the state after the step, in new arrays
 */
export function adamwStep(state: AdamwState, gradient: Float64Array, options: AdamwOptions): AdamwState {
  const { learningRate, beta1, beta2, epsilon, weightDecay, step, scale } = options;
  const parameter = new Float64Array(state.parameter.length);
  const firstMoment = new Float64Array(parameter.length);
  const secondMoment = new Float64Array(parameter.length);
  const stepSize = learningRate / (1 - beta1 ** step);
  const secondCorrection = Math.sqrt(1 - beta2 ** step);
  for (let i = 0; i < parameter.length; i++) {
    const g = scale * at(gradient, i);
    const first = beta1 * at(state.firstMoment, i) + (1 - beta1) * g;
    const second = beta2 * at(state.secondMoment, i) + (1 - beta2) * g * g;
    const decayed = at(state.parameter, i) * (1 - learningRate * weightDecay);
    firstMoment[i] = first;
    secondMoment[i] = second;
    parameter[i] = decayed - (stepSize * first) / (Math.sqrt(second) / secondCorrection + epsilon);
  }
  return { parameter, firstMoment, secondMoment };
}
