/**
 * The KTO objective (Ethayarajh et al. 2024, equation 8) in float64, from per-sequence log-probs to per-sequence
 * coefficients: the reference point z0 from mismatched pairs, the sigmoid value, the closed-form gradient.
 * Log-probs are sums over completion tokens, in nats. No model here, and no gradient through z0.
 */
import type { KtoLossType, ReferenceKind } from "../kto-objective.ts";
import { sigmoid } from "./activation.ts";
import { at, idAt } from "./elements.ts";

export interface ReferencePointInputs {
  /** [m] `log pi_theta(y_j | x_i)`; may be empty with "apo_zero_unpaired". */
  readonly policyLogProbs: ArrayLike<number>;
  /** [m] `log pi_ref(y_j | x_i)` */
  readonly referenceLogProbs: ArrayLike<number>;
  /** [m] false for a pair whose prompt or completion equals the row's own: it is not mismatched and leaves the mean. */
  readonly valid: readonly boolean[];
  readonly lossType: KtoLossType;
  /** Default "model". */
  readonly referenceKind?: ReferenceKind;
}

export interface ReferencePoint {
  readonly z0: number;
  /** The mean before the clamp; 0 when no pair counts. */
  readonly unclamped: number;
  /** Number of pairs that the mean is over. */
  readonly pairs: number;
}

/**
 * `z0 = max(0, mean over valid i of (log pi_theta(y_j|x_i) - log pi_ref(y_j|x_i)))`; 0 without a valid pair, and 0 for
 * "apo_zero_unpaired". Against the uniform reference, `z0 = mean over valid i of log pi_theta(y_j|x_i)`: minus the
 * entropy of the policy, as estimated on the mismatched pairs.
 */
export function referencePoint(inputs: ReferencePointInputs): ReferencePoint {
  const { policyLogProbs, referenceLogProbs, valid, lossType, referenceKind = "model" } = inputs;
  if (lossType === "apo_zero_unpaired") return { z0: 0, unclamped: 0, pairs: 0 };
  let sum = 0;
  let pairs = 0;
  for (let i = 0; i < policyLogProbs.length; i++) {
    if (!valid[i]) continue;
    sum += idAt(policyLogProbs, i) - idAt(referenceLogProbs, i);
    pairs++;
  }
  const unclamped = pairs === 0 ? 0 : sum / pairs;
  return { z0: referenceKind === "uniform" ? unclamped : Math.max(0, unclamped), unclamped, pairs };
}

export interface KtoObjectiveInputs {
  /** [m] `log pi_theta(y_i | x_i)` */
  readonly policyLogProbs: ArrayLike<number>;
  /** [m] `log pi_ref(y_i | x_i)` */
  readonly referenceLogProbs: ArrayLike<number>;
  /** [m] true is desirable. */
  readonly labels: readonly boolean[];
  readonly z0: number;
  readonly beta: number;
  /** lambda_D */
  readonly desirableWeight: number;
  /** lambda_U */
  readonly undesirableWeight: number;
  /** Rows that the mean is over, where these are a part of them; default m. */
  readonly rows?: number;
  /**
   * False where a reference point is needed and no pair gave one ("uniform" only, where 0 is none): u_i is then 0 and
   * no gradient flows. Default true.
   */
  readonly measured?: boolean;
}

export interface KtoObjective {
  /** Sum of `losses` over the rows that the mean is over: their mean, or their part of it. */
  readonly loss: number;
  /** [m] `lambda_i - v_i` */
  readonly losses: Float64Array;
  /** [m] `v_i` */
  readonly values: Float64Array;
  /** [m] `r_i`, the implied reward without beta. */
  readonly logRatios: Float64Array;
  /** [m] `u_i` */
  readonly utilities: Float64Array;
  /** [m] `dloss / dlog pi_theta(y_i | x_i)`, 1/rows included. */
  readonly coefficients: Float64Array;
}

/**
 * `r_i = policy - reference`, `u_i = beta (r_i - z0)` desirable, `beta (z0 - r_i)` undesirable, `v_i = lambda_i
 * sigmoid(u_i)`, `loss_i = lambda_i sigmoid(-u_i)` (equal to lambda_i - v_i, without its cancellation at large u),
 * `coefficient_i = d_i lambda_i beta sigmoid(u_i) sigmoid(-u_i) / rows` with d_i = -1 desirable, +1 undesirable.
 */
export function ktoObjective(inputs: KtoObjectiveInputs): KtoObjective {
  const { policyLogProbs, referenceLogProbs, labels, z0, beta, desirableWeight, undesirableWeight } = inputs;
  const known = inputs.measured === false ? 0 : 1;
  const m = labels.length;
  const { rows = m } = inputs;
  const losses = new Float64Array(m);
  const values = new Float64Array(m);
  const logRatios = new Float64Array(m);
  const utilities = new Float64Array(m);
  const coefficients = new Float64Array(m);
  let loss = 0;
  for (let i = 0; i < m; i++) {
    const logRatio = idAt(policyLogProbs, i) - idAt(referenceLogProbs, i);
    const weight = labels[i] ? desirableWeight : undesirableWeight;
    const direction = labels[i] ? -1 : 1;
    const u = -direction * beta * (logRatio - z0) * known;
    logRatios[i] = logRatio;
    utilities[i] = u;
    values[i] = weight * sigmoid(u);
    losses[i] = weight * sigmoid(-u);
    coefficients[i] = (known * direction * weight * beta * sigmoid(u) * sigmoid(-u)) / rows;
    loss += at(losses, i) / rows;
  }
  return { loss, losses, values, logRatios, utilities, coefficients };
}
