/** The AdamW updates of a fixture's expected.json by the float64 model, no device anywhere. */
import { Float64Model, type Float64Tensor } from "../../src/engine/model/float64/decoder.ts";
import { type AdamwState, adamwStep } from "../../src/kernels/float64/adamw.ts";
import { clipScale } from "../../src/kernels/float64/reduce.ts";
import { ktoFloat64Gradient } from "../../src/kto/method/float64/gradient.ts";
import { mismatchedPairs } from "../../src/kto/method/sampler.ts";
import { type FixtureName, float64Fixture, float64Weights, readExamples, readExpected } from "./fixtures.ts";

/** What the fixtures say of an update. */
export interface Float64Update {
  readonly loss: number;
  readonly kl: number;
  /** Of the gradients, before the clip. */
  readonly norm: number;
}

/** Whether the fixtures decay a parameter of this name. */
export const decays = (parameter: string): boolean => !/bias|norm|ln_/.test(parameter);

/**
 * The updates, and the weights after them.
 *
 * @param start changes the weights that training starts from
 */
export function float64Updates(
  name: FixtureName,
  start: (value: number) => number = (value) => value,
): { updates: Float64Update[]; weights: Map<string, Float64Array> } {
  const { adamw, hyperparameters } = readExpected(name);
  const examples = readExamples(name);
  const { pair, valid } = mismatchedPairs(examples);
  const reference = remembered(float64Fixture(name, "reference"));
  const { config, weights } = float64Weights(name, "policy");
  const states = new Map<string, AdamwState & { shape: readonly number[] }>();
  for (const [parameter, { shape, data }] of weights) {
    const zeros = () => new Float64Array(data.length);
    states.set(parameter, { shape, parameter: data.map(start), firstMoment: zeros(), secondMoment: zeros() });
  }
  const updates: Float64Update[] = [];
  for (const index of adamw.steps.keys()) {
    const tensors = new Map<string, Float64Tensor>();
    for (const [parameter, state] of states) tensors.set(parameter, { shape: state.shape, data: state.parameter });
    const { loss, kl, gradients, gradientNorm } = ktoFloat64Gradient({
      policy: new Float64Model(config, tensors),
      reference,
      examples,
      pairs: pair,
      pairValid: valid,
      beta: hyperparameters.beta,
      desirableWeight: hyperparameters.desirable_weight,
      undesirableWeight: hyperparameters.undesirable_weight,
      lossType: "kto",
    });
    updates.push({ loss, kl, norm: gradientNorm });
    for (const [parameter, state] of states) {
      const next = adamwStep(state, gradients.get(parameter) ?? new Float64Array(state.parameter.length), {
        learningRate: adamw.learning_rate,
        beta1: adamw.adam_beta1,
        beta2: adamw.adam_beta2,
        epsilon: adamw.adam_epsilon,
        weightDecay: decays(parameter) ? adamw.weight_decay : 0,
        step: index + 1,
        scale: clipScale(gradientNorm, adamw.max_grad_norm),
      });
      states.set(parameter, { shape: state.shape, ...next });
    }
  }
  return { updates, weights: new Map([...states].map(([parameter, state]) => [parameter, state.parameter])) };
}

/** A frozen model, whose answers are the same at every update. */
export function remembered(model: Float64Model): Pick<Float64Model, "logProb"> {
  const known = new Map<string, number>();
  return {
    logProb: (promptIds, completionIds) => {
      const key = `${Array.from(promptIds)}|${Array.from(completionIds)}`;
      const value = known.get(key) ?? model.logProb(promptIds, completionIds);
      known.set(key, value);
      return value;
    },
  };
}
