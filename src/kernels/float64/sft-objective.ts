/**
 * Supervised fine-tuning in float64: the mean cross-entropy over completion tokens, from per-sequence log-probs to
 * per-sequence coefficients. Log-probs are sums over completion tokens, in nats.
 */
import { idAt } from "./elements.ts";

export interface SftObjectiveInputs {
  /** [m] `log pi_theta(y_i | x_i)` */
  readonly policyLogProbs: ArrayLike<number>;
  /** Completion tokens of the whole update, these sequences' own and those of its other microbatches; at least 1. */
  readonly tokens: number;
}

export interface SftObjective {
  /** `-sum_i log pi_theta(y_i | x_i) / tokens`: with other microbatches, their parts add up to the update's loss. */
  readonly loss: number;
  /** [m] `dloss / dlog pi_theta(y_i | x_i) = -1 / tokens` */
  readonly coefficients: Float64Array;
}

export function sftObjective({ policyLogProbs, tokens }: SftObjectiveInputs): SftObjective {
  let sum = 0;
  for (let i = 0; i < policyLogProbs.length; i++) sum += idAt(policyLogProbs, i);
  return { loss: -sum / tokens, coefficients: new Float64Array(policyLogProbs.length).fill(-1 / tokens) };
}
