/**
 * The float64 model against numbers that others computed: PyTorch autograd in float64 on tiny random models, and
 * the golden logits and greedy continuation of a real one.
 */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { parseModelConfig } from "../../../../src/engine/model/config/config.ts";
import { Float64Model, type Float64Tensor } from "../../../../src/engine/model/float64/decoder.ts";
import { ModelFormatError } from "../../../../src/errors.ts";
import { type AdamwState, adamwStep } from "../../../../src/kernels/float64/adamw.ts";
import { at } from "../../../../src/kernels/float64/elements.ts";
import { clipScale } from "../../../../src/kernels/float64/reduce.ts";
import { ktoFloat64Gradient } from "../../../../src/kto/method/float64/gradient.ts";
import { centralDifferences, relativeError } from "../../../helpers/central-differences.ts";
import { type Expected, FAMILY_FIXTURES, FIXTURES } from "../../../helpers/fixtures.ts";
import { readFloat64Safetensors } from "../../../helpers/float64-safetensors.ts";

const fixtures = fileURLToPath(new URL("../../../fixtures/", import.meta.url));
const stories = fileURLToPath(new URL("../../../../examples/quickstart/model/", import.meta.url));

function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(path, "utf8")) as T;
}

function loadFolder(folder: string) {
  const config = parseModelConfig(readFileSync(`${folder}/config.json`, "utf8"), `${folder}/config.json`);
  return { config, weights: readFloat64Safetensors(`${folder}/model.safetensors`) };
}

function loadFixture(name: string) {
  const { config, weights } = loadFolder(`${fixtures}${name}/policy`);
  const frozen = loadFolder(`${fixtures}${name}/reference`);
  const expected = readJson<Expected>(`${fixtures}${name}/expected.json`);
  const examples = readFileSync(`${fixtures}${name}/data.jsonl`, "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as { prompt_ids: number[]; completion_ids: number[]; label: boolean })
    .map((row) => ({ promptIds: row.prompt_ids, completionIds: row.completion_ids, label: row.label }));
  const { beta, desirable_weight, undesirable_weight } = expected.hyperparameters;
  const inputs = {
    reference: new Float64Model(frozen.config, frozen.weights),
    examples,
    pairs: examples.map((_, i) => (i + 1) % examples.length),
    pairValid: examples.map(() => true),
    beta,
    desirableWeight: desirable_weight,
    undesirableWeight: undesirable_weight,
    lossType: "kto" as const,
  };
  return { config, weights, expected, inputs };
}

function expectClose(actual: readonly number[], expected: readonly number[], absolute: number): void {
  expect(actual.length).toBe(expected.length);
  for (const [i, value] of actual.entries()) {
    expect(Math.abs(value - (expected[i] ?? Number.NaN))).toBeLessThanOrEqual(absolute);
  }
}

/** Log-probs, reference point, loss and every gradient are PyTorch's. */
function expectGradients(name: string): void {
  const { config, weights, expected, inputs } = loadFixture(name);
  const result = ktoFloat64Gradient({ policy: new Float64Model(config, weights), ...inputs });
  expectClose(result.policyLogProbs, expected.policy_logps, 1e-9);
  expectClose(result.referenceLogProbs, expected.reference_logps, 1e-9);
  expectClose(result.klPolicyLogProbs, expected.kl_policy_logps, 1e-9);
  expectClose(result.klReferenceLogProbs, expected.kl_reference_logps, 1e-9);
  expectClose(result.logRatio, expected.log_ratio, 1e-9);
  expectClose(result.klLogRatio, expected.kl_log_ratio, 1e-9);
  expectClose(result.values, expected.value, 1e-9);
  expectClose([result.klUnclamped, result.kl], [expected.kl_unclamped, expected.kl], 1e-9);
  expectClose([result.loss, result.gradientNorm], [expected.loss, expected.gradient_norm], 1e-9);
  const gradients = readFloat64Safetensors(`${fixtures}${name}/expected-grads.safetensors`);
  expect([...result.gradients.keys()].sort()).toEqual([...gradients.keys()].sort());
  for (const [parameter, { data }] of gradients) {
    const own = result.gradients.get(parameter) ?? new Float64Array(0);
    // The stored gradients are rounded to F32.
    expect(relativeError(own, data), parameter).toBeLessThan(2 ** -24);
  }
}

describe.each(FAMILY_FIXTURES)("%s against float64 PyTorch", (name) => {
  it("reproduces log-probs, reference point, loss and every gradient", () => expectGradients(name));
});

describe.each(FIXTURES)("%s against float64 PyTorch", (name) => {
  const { config, weights, expected, inputs } = loadFixture(name);

  it("reproduces log-probs, reference point, loss and every gradient", () => expectGradients(name));

  it("reproduces five AdamW steps", () => {
    const { steps, learning_rate, adam_beta1, adam_beta2, adam_epsilon, weight_decay, max_grad_norm } = expected.adamw;
    const states = new Map<string, AdamwState & { shape: readonly number[] }>();
    for (const [parameter, { shape, data }] of weights) {
      const zeros = () => new Float64Array(data.length);
      states.set(parameter, { shape, parameter: data, firstMoment: zeros(), secondMoment: zeros() });
    }
    steps.forEach((wanted, index) => {
      const tensors = new Map<string, Float64Tensor>();
      for (const [parameter, state] of states) tensors.set(parameter, { shape: state.shape, data: state.parameter });
      const result = ktoFloat64Gradient({ policy: new Float64Model(config, tensors), ...inputs });
      expectClose(
        [result.loss, result.kl, result.gradientNorm, ...result.logRatio],
        [wanted.loss, wanted.kl, wanted.grad_norm, ...wanted.log_ratio],
        1e-8,
      );
      for (const [parameter, gradient] of result.gradients) {
        const state = states.get(parameter);
        if (!state) throw new Error(`There is a gradient for ${parameter}, which is no parameter.`);
        const next = adamwStep(state, gradient, {
          learningRate: learning_rate,
          beta1: adam_beta1,
          beta2: adam_beta2,
          epsilon: adam_epsilon,
          // No decay on biases and norm weights, which are the vectors.
          weightDecay: state.shape.length > 1 ? weight_decay : 0,
          step: index + 1,
          scale: clipScale(result.gradientNorm, max_grad_norm),
        });
        states.set(parameter, { shape: state.shape, ...next });
      }
    });
  });

  it("agrees with central differences of the whole model", () => {
    const model = new Float64Model(config, weights);
    const { promptIds, completionIds } = { promptIds: [5], completionIds: [7, 5, 9] };
    const gradients = new Map<string, Float64Array>();
    expect(model.accumulateLogProbGradient(promptIds, completionIds, 0.5, gradients)).toBe(
      model.logProb(promptIds, completionIds),
    );
    for (const parameter of model.parameterNames) {
      const data = weights.get(parameter)?.data ?? new Float64Array(0);
      const indices = [0, 1, 2].map((n) => Math.floor((data.length * (2 * n + 1)) / 6));
      const numeric = centralDifferences(() => 0.5 * model.logProb(promptIds, completionIds), data, indices, 1e-4);
      const analytic = Float64Array.from(indices, (i) => at(gradients.get(parameter) ?? data, i));
      const difference = Math.hypot(...numeric.map((value, i) => value - at(analytic, i)));
      expect(difference, parameter).toBeLessThanOrEqual(1e-6 * Math.hypot(...analytic) + 1e-10);
    }
  });

  it("z0 carries no gradient, and apo_zero_unpaired needs no pairs", () => {
    const policy = new Float64Model(config, weights);
    const zero = ktoFloat64Gradient({ policy, ...inputs, pairs: [], pairValid: [], lossType: "apo_zero_unpaired" });
    expect([zero.kl, zero.klUnclamped, zero.klLogRatio.length]).toEqual([0, 0, 0]);
    // The gradient is the coefficients' sum over (x_i, y_i) alone: nothing flows through the mismatched branch.
    const result = ktoFloat64Gradient({ policy, ...inputs });
    const own = new Map<string, Float64Array>();
    inputs.examples.forEach((row, i) => {
      policy.accumulateLogProbGradient(row.promptIds, row.completionIds, result.coefficients[i] ?? Number.NaN, own);
    });
    expect(result.gradients).toEqual(own);
  });
});

describe("tensor names", () => {
  const { config, weights } = loadFolder(`${fixtures}gpt2/policy`);

  it("reads weight files without the transformer. prefix and keeps its names in the gradients", () => {
    const bare = new Map([...weights].map(([name, tensor]) => [name.replace("transformer.", ""), tensor]));
    const model = new Float64Model(config, bare);
    expect(model.logProb([1, 2], [3])).toBe(new Float64Model(config, weights).logProb([1, 2], [3]));
    const gradients = new Map<string, Float64Array>();
    model.accumulateLogProbGradient([1, 2], [3], 1, gradients);
    expect([...gradients.keys()].sort()).toEqual([...bare.keys()].sort());
  });

  it("names a tensor that is missing or mis-shaped", () => {
    const missing = new Map(weights);
    missing.delete("transformer.h.1.mlp.c_fc.bias");
    expect(() => new Float64Model(config, missing)).toThrow(ModelFormatError);
    expect(() => new Float64Model(config, missing)).toThrow(/h\.1\.mlp\.c_fc\.bias/);
    const bent = new Map(weights).set("transformer.ln_f.bias", { shape: [4], data: new Float64Array(4) });
    expect(() => new Float64Model(config, bent)).toThrow('Tensor "transformer.ln_f.bias" has shape [4], not [32].');
  });
});

describe("stories260K", () => {
  const { config, weights } = loadFolder(stories);
  const model = new Float64Model(config, weights);

  it("reproduces the golden logits", () => {
    const golden = readJson<{ input_ids: number[]; last_logits: number[] }>(
      `${fixtures}stories260K/golden_logits.json`,
    );
    const last = model.logits(golden.input_ids).subarray(-config.vocabSize);
    expectClose([...last], golden.last_logits, 1e-3);
  });

  it("reproduces the greedy continuation", () => {
    // Causal: the logits of the whole golden sequence are those of every step of its generation.
    const { ids } = readJson<{ ids: number[] }>(`${fixtures}stories260K/golden_greedy.json`);
    const logits = model.logits(ids);
    const continuation = ids.slice(0, -1).map((_, t) => {
      const row = logits.subarray(t * config.vocabSize, (t + 1) * config.vocabSize);
      return row.indexOf(Math.max(...row));
    });
    expect(continuation).toEqual(ids.slice(1));
  });

  it("takes less than a second for a sequence of 100 tokens, forward and backward", () => {
    const ids = Array.from({ length: 100 }, (_, t) => (t * 37) % config.vocabSize);
    // Processor time, and the best of three: what else the machine does must not decide.
    const times = [1, 2, 3].map(() => {
      const start = process.cpuUsage();
      model.accumulateLogProbGradient(ids.slice(0, 20), ids.slice(20), 1, new Map());
      return process.cpuUsage(start).user / 1000;
    });
    expect(Math.min(...times)).toBeLessThan(1000);
  });
});
