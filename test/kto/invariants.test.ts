/**
 * What must hold of the method whatever the model: identities at step 0, a reference point without gradient, pairing,
 * accumulation, packing. Through the real step, trainer and models on the adapter; values against float64.
 */

import { afterAll, describe, expect, it } from "vitest";
import { Model } from "../../src/engine/model/model.ts";
import { Random } from "../../src/engine/random.ts";
import { ConfigError } from "../../src/errors.ts";
import { ktoObjective } from "../../src/kernels/float64/kto-objective.ts";
import { type Batch, type BatchExample, packBatch, packUpdate } from "../../src/kto/method/batch.ts";
import { completionLogProbs } from "../../src/kto/method/log-probs.ts";
import type { Metrics } from "../../src/kto/method/metrics.ts";
import type { ObjectiveOptions } from "../../src/kto/method/objective.ts";
import { KtoTrainer, type TrainerInputs } from "../../src/kto/trainer.ts";
import { wholeArena } from "../helpers/arenas.ts";
import { bits, EPSILON, expectWithin } from "../helpers/compare.ts";
import { sharedDevice } from "../helpers/device.ts";
import {
  type FixtureName,
  float64Fixture,
  float64Of,
  loadModel,
  readExamples,
  relativeDistance,
} from "../helpers/fixtures.ts";
import { temporaryFolder } from "../helpers/folders.ts";
import { randomModel } from "../helpers/models.ts";
import { batchWithPairs, exactStep, gradientsOf, runUpdate, type StepResult, updateFor } from "../helpers/step.ts";
import { GRADIENT, LOG_PROB, LOSS } from "../helpers/tolerances.ts";

const device = await sharedDevice();
const folder = temporaryFolder();

/** In llama the mean mismatched log-ratio is positive; in gpt2 it is negative and the clamp acts. */
const fixtures = {
  llama: {
    policy: await loadModel(device, "llama", "policy"),
    reference: await loadModel(device, "llama", "reference"),
  },
  gpt2: { policy: await loadModel(device, "gpt2", "policy"), reference: await loadModel(device, "gpt2", "reference") },
};
const { llama, gpt2 } = fixtures;

afterAll(() => {
  for (const { policy, reference } of Object.values(fixtures)) {
    policy.free();
    reference.free();
  }
});

const objective: ObjectiveOptions = { beta: 0.1, desirableWeight: 1.5, undesirableWeight: 0.75, lossType: "kto" };
const zeroObjective: ObjectiveOptions = { ...objective, lossType: "apo_zero_unpaired" };
const noCut = { mismatched: true, maxLength: 1000 };

/** What f32 leaves of the agreement of two ways to sum the same gradient; a wrong term is orders of magnitude above. */
const SAME_GRADIENT = 1e-5;

const at = (values: ArrayLike<number>, i: number) => values[i] ?? Number.NaN;

function exactOf(name: FixtureName) {
  return [float64Fixture(name, "policy"), float64Fixture(name, "reference")] as const;
}

/** Rows of random tokens, none of them alike. */
function randomExamples(count: number, seed: number, vocabSize = 90): BatchExample[] {
  const random = new Random(seed);
  const ids = (from: number, to: number) =>
    Array.from({ length: from + random.below(to - from + 1) }, () => 3 + random.below(vocabSize - 3));
  return Array.from({ length: count }, (_, i) => ({
    promptIds: ids(1, 9),
    completionIds: ids(2, 14),
    label: i % 3 !== 2,
  }));
}

function expectGradients(result: StepResult, exact: ReadonlyMap<string, Float64Array>): void {
  expect(result.tensors.size).toBeGreaterThan(0);
  for (const [name, data] of result.tensors) {
    expect(relativeDistance(data, exact.get(name) ?? []), name).toBeLessThanOrEqual(GRADIENT);
  }
}

/** A training run on a copy of a fixture's policy: the metrics of every logging step. */
async function train(inputs: TrainerInputs): Promise<{ metrics: Metrics[]; totalSteps: number }> {
  const trainer = await KtoTrainer.create(inputs);
  try {
    const metrics: Metrics[] = [];
    for await (const step of trainer) if (step.metrics) metrics.push(step.metrics);
    return { metrics, totalSteps: trainer.totalSteps };
  } finally {
    trainer.free();
  }
}

describe.each(["llama", "gpt2"] as const)("step 0 of %s, through the trainer", (name) => {
  it("log-ratios and z0 are 0 exactly; loss and coefficients depend on weights and counts alone", async () => {
    const examples = readExamples(name);
    const policy = await loadModel(device, name, "policy");
    const [lambdaD, lambdaU, beta] = [1.5, 0.75, 0.1];
    const trainer = await KtoTrainer.create({
      policy,
      examples,
      options: {
        beta,
        desirable_weight: lambdaD,
        undesirable_weight: lambdaU,
        per_device_train_batch_size: examples.length,
        shuffle_dataset: false,
        max_steps: 1,
      },
    });
    try {
      const m = examples.length;
      const good = examples.filter(({ label }) => label).length;
      for await (const { metrics = {} } of trainer) {
        for (const metric of ["kl", "kl/unclamped", "rewards/chosen", "rewards/rejected", "rewards/margins"]) {
          expect(metrics[metric], metric).toBe(0);
        }
        // Neither side of z0: a row that has not moved is not yet right.
        expect(metrics["rewards/accuracies"]).toBe(0);
        const loss = (lambdaD * good + lambdaU * (m - good)) / (2 * m);
        expectWithin("loss", [metrics.loss ?? Number.NaN], [loss], () => (m + 2) * EPSILON * loss);
      }
      const { policy: own, reference } = await trainer.update.readLogProbs(m);
      expect(bits(own as Float32Array<ArrayBuffer>)).toEqual(bits(reference as Float32Array<ArrayBuffer>));
      expect(own.every((logProb) => logProb < 0)).toBe(true);
      const coefficients = await device.download(trainer.update.objective.coefficients(m));
      const wanted = examples.map(({ label }) => ((label ? -lambdaD : lambdaU) * beta) / (4 * m));
      expectWithin("coefficients", coefficients, wanted, (i) => 6 * EPSILON * Math.abs(at(wanted, i)));
    } finally {
      trainer.free();
      policy.free();
    }
  });
});

describe("reference point", () => {
  it("is the clamped mean of the mismatched log-ratios, and both sides of the clamp occur here", async () => {
    for (const [name, clamped] of [
      ["llama", false],
      ["gpt2", true],
    ] as const) {
      const { policy, reference } = fixtures[name];
      const examples = readExamples(name);
      const result = await runUpdate(policy, reference, objective, [packBatch(examples, noCut)]);
      const [policy64, reference64] = exactOf(name);
      const exact = exactStep(policy64, reference64, objective, [examples]);
      expectWithin("z0", [result.kl], [exact.kl], () => LOG_PROB);
      expect(result.klUnclamped < 0).toBe(clamped);
      expect(result.kl).toBe(clamped ? 0 : result.klUnclamped);
      expectWithin("loss", [result.loss], [exact.loss], () => LOSS);
      expectGradients(result, exact.gradients);
    }
  });

  it("enters the coefficients as a constant", async () => {
    const examples = readExamples("llama");
    const result = await runUpdate(llama.policy, llama.reference, objective, [packBatch(examples, noCut)]);
    expect(result.kl).toBeGreaterThan(0.1);
    const wanted = ktoObjective({
      policyLogProbs: result.policy.subarray(0, examples.length),
      referenceLogProbs: result.reference.subarray(0, examples.length),
      labels: examples.map(({ label }) => label),
      z0: result.kl,
      ...objective,
    });
    // Log-probabilities near 90 are rounded to 2^-18, and beta makes little of that.
    expectWithin("coefficients", result.coefficients, wanted.coefficients, (i) => {
      return 100 * EPSILON * Math.abs(at(wanted.coefficients, i));
    });
  });

  it("carries no gradient: the gradient is that of the examples' log-probabilities under the device's coefficients", async () => {
    const examples = readExamples("llama");
    const result = await runUpdate(llama.policy, llama.reference, objective, [packBatch(examples, noCut)]);
    const [exact] = exactOf("llama");
    const gradients = new Map<string, Float64Array>();
    examples.forEach((row, i) => {
      exact.accumulateLogProbGradient(row.promptIds, row.completionIds, at(result.coefficients, i), gradients);
    });
    expectGradients(result, gradients);
  });

  it("while the clamp holds z0 at 0, other mismatched completions change no bit of the gradient", async () => {
    const examples = readExamples("gpt2");
    const result = async (shift: number) => {
      const pairs = examples.map((_, i) => ({
        completionIds: examples[(i + shift) % examples.length]?.completionIds ?? [],
      }));
      return runUpdate(gpt2.policy, gpt2.reference, objective, [batchWithPairs(examples, pairs)]);
    };
    const [first, second] = [await result(1), await result(4)];
    expect(first.klUnclamped).toBeLessThan(0);
    expect(second.klUnclamped).toBeLessThan(0);
    expect(second.klUnclamped).not.toBe(first.klUnclamped);
    expect(bits(second.coefficients)).toEqual(bits(first.coefficients));
    expect(bits(second.gradients)).toEqual(bits(first.gradients));
    expect(first.gradients.some((gradient) => gradient !== 0)).toBe(true);
  });

  it("at the clamp the gradient is that of a reference point of 0 by choice", async () => {
    const examples = readExamples("gpt2");
    const paired = await runUpdate(gpt2.policy, gpt2.reference, objective, [packBatch(examples, noCut)]);
    const unpaired = packBatch(examples, { ...noCut, mismatched: false });
    const zero = await runUpdate(gpt2.policy, gpt2.reference, zeroObjective, [unpaired]);
    expect(paired.kl).toBe(0);
    expect(relativeDistance(zero.gradients, paired.gradients)).toBeLessThanOrEqual(SAME_GRADIENT);
    expectWithin("loss", [zero.loss], [paired.loss], () => 8 * EPSILON);
  });
});

describe("apo_zero_unpaired", () => {
  it("runs no mismatched pairs, holds z0 at 0 and follows float64", async () => {
    const examples = readExamples("llama");
    const batch = packBatch(examples, { ...noCut, mismatched: false });
    expect(batch.packed.shape).toMatchObject({ branchRows: 0, branchHeadRows: 0, sequences: examples.length });
    expect(batch.rows).toBe(batch.whole.tokens - examples.length);
    const result = await runUpdate(llama.policy, llama.reference, zeroObjective, [batch]);
    expect([result.kl, result.klUnclamped, result.sums("pairs"), result.sums("selfPairs")]).toEqual([0, 0, 0, 0]);
    expect(result.policy.length).toBe(examples.length);
    const exact = exactStep(...exactOf("llama"), zeroObjective, [examples]);
    expectWithin("loss", [result.loss], [exact.loss], () => LOSS);
    expectGradients(result, exact.gradients);
    // Here the mean of the pairs is positive: z0 matters, and leaving it out is another gradient.
    const paired = await runUpdate(llama.policy, llama.reference, objective, [packBatch(examples, noCut)]);
    expect(relativeDistance(result.gradients, paired.gradients)).toBeGreaterThan(GRADIENT);
  });

  it("makes no pass for pairs either where the reference point would span the step", async () => {
    const batches = [0, 1].map(() => packBatch(readExamples("llama"), { ...noCut, mismatched: false }));
    const step = updateFor(llama.policy, llama.reference, zeroObjective, batches, "step");
    await gradientsOf(step, batches);
    // Zeroing the gradients, and one program for the shape that both have.
    expect(step.programs).toHaveLength(2);
    step.free();
  });

  it("the trainer takes it by both names, packs no pairs and reports none", async () => {
    for (const loss_type of ["apo_zero_unpaired", "kto_zero"]) {
      const { metrics } = await train({
        policy: llama.policy,
        reference: llama.reference,
        examples: readExamples("llama"),
        options: { loss_type: loss_type as "apo_zero_unpaired", learning_rate: 0, max_steps: 1 },
      });
      expect(metrics[0]).toMatchObject({ kl: 0 });
      for (const name of ["kl/unclamped", "self_pairs", "cut_pairs"]) expect(metrics[0]).not.toHaveProperty(name);
    }
  });
});

describe("weights and labels", () => {
  it("each class's weight scales its rows: float64 at lambda_D 3, lambda_U 0.2", async () => {
    const weighted = { ...objective, desirableWeight: 3, undesirableWeight: 0.2 };
    const examples = readExamples("llama");
    const result = await runUpdate(llama.policy, llama.reference, weighted, [packBatch(examples, noCut)]);
    const exact = exactStep(...exactOf("llama"), weighted, [examples]);
    expectWithin("loss", [result.loss], [exact.loss], () => 3 * LOSS);
    expectGradients(result, exact.gradients);
  });

  it('"auto" brings lambda_D n_D to 4/3 of lambda_U n_U, and the trainer uses it', async () => {
    const examples = readExamples("llama"); // 3 desirable, 2 undesirable: the smaller class is weighted
    const inputs = { policy: llama.policy, reference: llama.reference, examples };
    const options = { learning_rate: 0, max_steps: 1, shuffle_dataset: false } as const;
    const auto = await train({
      ...inputs,
      options: { ...options, desirable_weight: "auto", undesirable_weight: "auto" },
    });
    const given = await train({ ...inputs, options: { ...options, undesirable_weight: 9 / 8 } });
    const { loss, grad_norm } = given.metrics[0] ?? {};
    expect(auto.metrics[0]).toMatchObject({ loss, grad_norm });
  });

  it("with equal weights w, swapping the labels negates every gradient and the losses sum to w", async () => {
    const equal = { ...objective, desirableWeight: 1.25, undesirableWeight: 1.25 };
    const examples = readExamples("llama");
    const swapped = examples.map((row) => ({ ...row, label: !row.label }));
    const first = await runUpdate(llama.policy, llama.reference, equal, [packBatch(examples, noCut)]);
    const second = await runUpdate(llama.policy, llama.reference, equal, [packBatch(swapped, noCut)]);
    expect(second.kl).toBe(first.kl);
    expectWithin("sum of losses", [first.loss + second.loss], [1.25], () => 16 * EPSILON);
    const negated = first.gradients.map((gradient) => -gradient + 0);
    expect([...second.gradients.map((gradient) => gradient + 0)]).toEqual([...negated]);
  });

  it("one class alone trains: the absent class's metrics are left out", async () => {
    const examples = readExamples("llama").map((row) => ({ ...row, label: false }));
    const result = await runUpdate(llama.policy, llama.reference, objective, [packBatch(examples, noCut)]);
    expectGradients(result, exactStep(...exactOf("llama"), objective, [examples]).gradients);
    const { metrics } = await train({ ...llama, examples, options: { learning_rate: 0, max_steps: 1 } });
    expect(metrics[0]).toHaveProperty("rewards/rejected");
    expect(metrics[0]).not.toHaveProperty("rewards/chosen");
    expect(metrics[0]).not.toHaveProperty("rewards/margins");
    expect(metrics[0]).not.toHaveProperty("logps/chosen");
  });
});

describe("accumulation", () => {
  /** Their mean mismatched log-ratio is positive, but that of some microbatches of 2 is not. */
  const examples = randomExamples(8, 2);
  const parts = (size: number) =>
    Array.from({ length: Math.ceil(examples.length / size) }, (_, k) => examples.slice(k * size, (k + 1) * size));
  const microbatches = parts(2).map((rows) => packBatch(rows, noCut));
  const runWhole = (rows: readonly (readonly BatchExample[])[], checkpointing = false) =>
    runUpdate(llama.policy, llama.reference, objective, packUpdate(rows, noCut, "step"), "step", checkpointing);

  it.each([1, 2, 3, 5])(
    "microbatches of %i with a reference point over the step equal 8 rows at once",
    async (size) => {
      const once = await runWhole([examples]);
      const accumulated = await runWhole(parts(size));
      expect(once.kl).toBeGreaterThan(0.05);
      expectWithin("z0", [accumulated.klUnclamped], [once.klUnclamped], () => LOG_PROB / 10);
      expectWithin("loss", [accumulated.loss], [once.loss], () => 1e-6);
      expect(relativeDistance(accumulated.gradients, once.gradients)).toBeLessThanOrEqual(1e-6);
      for (const name of ["pairs", "selfPairs", "desirable", "desirableReward", "correct"] as const) {
        expectWithin(name, [accumulated.sums(name)], [once.sums(name)], () => LOG_PROB);
      }
      const last = accumulated.coefficients;
      expectWithin("last coefficients", last, once.coefficients.subarray(8 - last.length), (i) => {
        return SAME_GRADIENT * Math.abs(at(once.coefficients, 8 - last.length + i));
      });
    },
  );

  it("8 rows at once are the same bits in both scopes", async () => {
    const own = await runUpdate(llama.policy, llama.reference, objective, [packBatch(examples, noCut)]);
    const whole = await runWhole([examples]);
    expect(bits(whole.gradients)).toEqual(bits(own.gradients));
    expect([whole.loss, whole.kl]).toEqual([own.loss, own.kl]);
  });

  it("gradient checkpointing of microbatches of one row gives the same bits", async () => {
    const kept = await runWhole(parts(1));
    const again = await runWhole(parts(1), true);
    expect(bits(again.gradients)).toEqual(bits(kept.gradients));
  });

  it("the second pass runs the policy alone over the examples alone, and the first one no completion of theirs", () => {
    const step = updateFor(llama.policy, llama.reference, objective, packUpdate(parts(1), noCut, "step"), "step");
    try {
      const ends = (rows: readonly { readonly completionIds: ArrayLike<number> }[]) =>
        rows.reduce((sum, { completionIds }) => sum + completionIds.length - 1, 0);
      const prompts = examples.reduce((sum, { promptIds }) => sum + promptIds.length, 0);
      const both = prompts + 2 * ends(examples);
      expect(step.rowsRun([packBatch(examples, noCut)])).toBe(2 * both);
      expect(step.rowsRun(packUpdate(parts(1), noCut, "step"))).toBe(2 * both + prompts);
    } finally {
      step.free();
    }
  });

  it("microbatches of one row give the same bits whatever stands beside them", async () => {
    const [first, second, ...rest] = examples as [BatchExample, BatchExample, ...BatchExample[]];
    const logProbs = async (rows: readonly BatchExample[]) => {
      const batches = packUpdate(
        rows.map((row) => [row]),
        noCut,
        "step",
      );
      const step = updateFor(llama.policy, llama.reference, objective, batches, "step");
      try {
        await step.gradients(batches);
        return (await step.readLogProbs(1)).policy[0];
      } finally {
        step.free();
      }
    };
    expect(await logProbs([second, first])).toEqual(await logProbs([...rest, first]));
  });

  it.each(["microbatch", "step"] as const)("reference_point_scope %s follows float64", async (scope) => {
    const uneven = [examples.slice(0, 3), examples.slice(3, 4), examples.slice(4)].filter(
      (rows) => scope === "step" || rows.length > 1,
    );
    const result = await runUpdate(llama.policy, llama.reference, objective, packUpdate(uneven, noCut, scope), scope);
    const exact = exactStep(...exactOf("llama"), objective, uneven, scope);
    expectWithin("z0", [result.kl], [exact.kl], () => LOG_PROB);
    expectWithin("loss", [result.loss], [exact.loss], () => LOSS);
    expectGradients(result, exact.gradients);
    expect(result.sums("pairs")).toBe(uneven.flat().length);
    expect(result.sums("selfPairs")).toBe(0);
  });

  it("the scopes differ where the clamp acts on some microbatches and not on others", async () => {
    const own = await runUpdate(llama.policy, llama.reference, objective, microbatches, "microbatch");
    const exact = exactStep(...exactOf("llama"), objective, parts(2), "microbatch");
    const shared = await runWhole(parts(2));
    expectWithin("z0", [own.kl], [exact.kl], () => LOG_PROB);
    expect(Math.abs(own.kl - shared.kl)).toBeGreaterThan(1e-3);
  });

  it("microbatches that were packed each for itself are refused where the reference point is shared", async () => {
    const step = updateFor(llama.policy, llama.reference, objective, microbatches, "step");
    try {
      await expect(step.gradients(microbatches)).rejects.toThrow("packUpdate");
    } finally {
      step.free();
    }
  });

  it.each(["microbatch", "step"] as const)("nothing of an earlier step is left in scope %s", async (scope) => {
    const own = packUpdate(parts(2), noCut, scope);
    const others = packUpdate([randomExamples(2, 6), randomExamples(2, 7)], noCut, scope);
    const fresh = await runUpdate(llama.policy, llama.reference, objective, own, scope);
    const step = updateFor(llama.policy, llama.reference, objective, [...own, ...others], scope);
    try {
      await gradientsOf(step, others);
      const second = await gradientsOf(step, own);
      expect([second.kl, second.klUnclamped]).toEqual([fresh.kl, fresh.klUnclamped]);
      expect(bits(second.gradients)).toEqual(bits(fresh.gradients));
    } finally {
      step.free();
    }
  });

  const options = { beta: objective.beta, learning_rate: 0, max_steps: 1, shuffle_dataset: false } as const;

  it("the trainer takes its scope from reference_point_scope", async () => {
    const four = { ...options, per_device_train_batch_size: 2, gradient_accumulation_steps: 4 };
    for (const scope of ["microbatch", "step"] as const) {
      const { metrics } = await train({ ...llama, examples, options: { ...four, reference_point_scope: scope } });
      const batches = packUpdate(parts(2), noCut, scope);
      const wanted = await runUpdate(llama.policy, llama.reference, objective, batches, scope);
      expect(metrics[0]).toMatchObject({ kl: wanted.kl, "kl/unclamped": wanted.klUnclamped });
    }
  });

  it("microbatches of one row take the reference point over the update, and say so", async () => {
    const warnings: string[] = [];
    const onWarning = (sentence: string) => warnings.push(sentence);
    const ones = { ...options, per_device_train_batch_size: 1, gradient_accumulation_steps: 8 };
    const { metrics } = await train({ ...llama, examples, onWarning, options: ones });
    const eight = { ...options, per_device_train_batch_size: 8 };
    const wanted = await train({ ...llama, examples, options: eight });
    for (const name of ["loss", "kl", "grad_norm", "logps/chosen", "rewards/margins"]) {
      expectWithin(name, [metrics[0]?.[name] ?? Number.NaN], [wanted.metrics[0]?.[name] ?? Number.NaN], () => LOG_PROB);
    }
    expect(warnings).toEqual([expect.stringContaining('reference_point_scope "step"')]);
    const alone = { ...options, per_device_train_batch_size: 1 };
    await expect(train({ ...llama, examples, options: alone })).rejects.toThrow('reference_point_scope "step"');
  });
});

describe("pairs that are not mismatched", () => {
  const [a, b, c, d] = randomExamples(4, 11) as [BatchExample, BatchExample, BatchExample, BatchExample];
  /** Rows 0 and 1 share their prompt, rows 2 and 3 their completion: pairs (0, 1) and (2, 3) say nothing. */
  const rows = [a, { ...b, promptIds: a.promptIds }, c, { ...d, completionIds: c.completionIds }];

  it.each(["microbatch", "step"] as const)("leave the mean and are counted, in scope %s", async (scope) => {
    const microbatches = [rows, randomExamples(3, 12)];
    const batches = packUpdate(microbatches, noCut, scope);
    expect(batches.map(({ pairValid }) => [...pairValid])).toEqual([
      [0, 1, 0, 1],
      [1, 1, 1],
    ]);
    const result = await runUpdate(llama.policy, llama.reference, objective, batches, scope);
    const exact = exactStep(...exactOf("llama"), objective, microbatches, scope);
    expectWithin("z0", [result.kl], [exact.kl], () => LOG_PROB);
    expectGradients(result, exact.gradients);
    expect(result.sums("pairs")).toBe(7);
    expect(result.sums("selfPairs")).toBe(2);
  });

  it("all rows with one prompt: every pair is counted, z0 is 0, and training goes on", async () => {
    const onePrompt = randomExamples(6, 13).map((row) => ({ ...row, promptIds: [7, 8] }));
    const inputs = { ...llama, examples: onePrompt };
    const options = { learning_rate: 0, max_steps: 1, shuffle_dataset: false } as const;
    const { metrics } = await train({ ...inputs, options });
    expect(metrics[0]).toMatchObject({ self_pairs: 1, cut_pairs: 0, kl: 0 });
    expect(metrics[0]).not.toHaveProperty("kl/unclamped");
    const zero = await train({ ...inputs, options: { ...options, loss_type: "apo_zero_unpaired" } });
    expect(metrics[0]?.grad_norm).toBeGreaterThan(0);
    expect(metrics[0]?.grad_norm).toBeCloseTo(zero.metrics[0]?.grad_norm ?? Number.NaN, 5);
    expect(metrics[0]?.loss).toBeCloseTo(zero.metrics[0]?.loss ?? Number.NaN, 6);
  });

  it("the share of self-pairs lies between 0 and 1 also when the reference point spans the step", async () => {
    const { metrics } = await train({
      ...llama,
      examples: [...rows, ...randomExamples(4, 14)],
      options: {
        learning_rate: 0,
        max_steps: 1,
        shuffle_dataset: false,
        per_device_train_batch_size: 4,
        gradient_accumulation_steps: 2,
        reference_point_scope: "step",
      },
    });
    expect(metrics[0]?.self_pairs).toBe(2 / 8);
  });
});

describe("an epoch", () => {
  /** With a learning rate of 0, means over an epoch's log-probabilities say which rows it used. */
  async function epoch(examples: BatchExample[], batchSize: number, shuffle: boolean, accumulation = 1) {
    const { metrics, totalSteps } = await train({
      ...llama,
      examples,
      options: {
        learning_rate: 0,
        num_train_epochs: 1,
        per_device_train_batch_size: batchSize,
        gradient_accumulation_steps: accumulation,
        shuffle_dataset: shuffle,
        logging_steps: 1000,
      },
    });
    expect(metrics).toHaveLength(1);
    return { metrics: metrics[0] ?? {}, totalSteps };
  }

  /** Fails unless the means of an epoch are those over every row once. */
  async function expectEveryRowOnce(examples: BatchExample[], metrics: Metrics): Promise<void> {
    const logProbs = await completionLogProbs(llama.policy, examples);
    for (const [metric, label] of [
      ["logps/chosen", true],
      ["logps/rejected", false],
    ] as const) {
      const own = examples.flatMap((row, i) => (row.label === label ? [at(logProbs, i)] : []));
      const mean = own.reduce((sum, logProb) => sum + logProb, 0) / own.length;
      expectWithin(metric, [metrics[metric] ?? Number.NaN], [mean], () => LOG_PROB);
    }
    const tokens = examples.reduce((sum, row) => sum + row.promptIds.length + row.completionIds.length, 0);
    expect(metrics.num_tokens).toBe(tokens);
  }

  it("9 rows at batch 4 are 3 microbatches: every row once, none with its own completion", async () => {
    const examples = randomExamples(9, 21);
    for (const [shuffle, accumulation, steps] of [
      [true, 1, 3],
      [false, 1, 3],
      [true, 2, 2],
      [false, 2, 2],
      [true, 5, 1],
    ] as const) {
      const { metrics, totalSteps } = await epoch(examples, 4, shuffle, accumulation);
      expect(totalSteps).toBe(steps);
      expect(metrics.self_pairs).toBe(0);
      await expectEveryRowOnce(examples, metrics);
    }
  });

  it("rows of any length may come at any step: memory is taken for the largest microbatch", async () => {
    const long = (row: BatchExample) => ({ ...row, completionIds: new Array(100).fill(row.completionIds[0] ?? 5) });
    const examples = randomExamples(8, 23).map((row, i) => (i < 4 ? row : long(row)));
    const { metrics } = await epoch(examples, 2, false);
    await expectEveryRowOnce(examples, metrics);
  });

  it("draws its microbatches again", async () => {
    const { metrics } = await train({
      ...llama,
      examples: randomExamples(12, 24),
      options: { learning_rate: 0, num_train_epochs: 2, per_device_train_batch_size: 4, logging_steps: 1 },
    });
    const losses = metrics.map(({ loss }) => loss);
    expect(losses).toHaveLength(6);
    expect(losses.slice(3).sort()).not.toEqual(losses.slice(0, 3).sort());
  });

  it("5 rows at batch 2 are 2 microbatches of 2: a row that would stand alone waits for another epoch", async () => {
    const examples = randomExamples(5, 22).map((row) => ({ ...row, promptIds: [3, 4], completionIds: [5, 6, 7] }));
    const { metrics, totalSteps } = await epoch(examples, 2, true);
    expect(totalSteps).toBe(2);
    expect(metrics.num_tokens).toBe(4 * 5);
  });
});

describe("packing", () => {
  const examples = readExamples("llama");
  const run = (rows: BatchExample[]) => runUpdate(llama.policy, llama.reference, objective, [packBatch(rows, noCut)]);

  it("rows in another order with the same pairs give the same loss and gradients", async () => {
    const first = await run(examples);
    for (const turn of [1, 3]) {
      const turned = await run([...examples.slice(turn), ...examples.slice(0, turn)]);
      expectWithin("z0", [turned.kl], [first.kl], () => 1e-5);
      expectWithin("loss", [turned.loss], [first.loss], () => LOSS / 10);
      expect(relativeDistance(turned.gradients, first.gradients)).toBeLessThanOrEqual(SAME_GRADIENT);
      expectWithin(
        "coefficients",
        turned.coefficients,
        [0, 1, 2, 3, 4].map((i) => at(first.coefficients, (i + turn) % 5)),
        (i) => {
          return SAME_GRADIENT * Math.abs(at(turned.coefficients, i));
        },
      );
    }
    // With other pairs it is another reference point.
    const other = await run([0, 2, 4, 1, 3].map((i) => examples[i] as BatchExample));
    expect(Math.abs(other.kl - first.kl)).toBeGreaterThan(1e-3);
  });

  it("padding up to a larger shape class changes nothing", async () => {
    const pairs = examples.map((_, i) => ({ completionIds: examples[(i + 1) % 5]?.completionIds ?? [] }));
    const snug = batchWithPairs(examples, pairs);
    const wide = batchWithPairs(examples, pairs, {
      gradientRows: snug.packed.shape.gradientRows + 192,
      branchRows: snug.packed.shape.branchRows + 64,
      gradientHeadRows: snug.packed.shape.gradientHeadRows + 128,
      branchHeadRows: snug.packed.shape.branchHeadRows + 64,
    });
    const first = await runUpdate(llama.policy, llama.reference, objective, [snug]);
    const second = await runUpdate(llama.policy, llama.reference, objective, [wide]);
    expectWithin("policy", second.policy, first.policy, (i) => 64 * EPSILON * Math.abs(at(first.policy, i)));
    expect(relativeDistance(second.gradients, first.gradients)).toBeLessThanOrEqual(SAME_GRADIENT);
  });

  it("what earlier, larger microbatches left in the memory changes no bit", async () => {
    const small = packBatch(examples.slice(0, 2), noCut);
    const large = packBatch(randomExamples(16, 31), noCut);
    expect(large.packed.shape).not.toEqual(small.packed.shape);
    const step = updateFor(llama.policy, llama.reference, objective, [small, large]);
    try {
      const clean = await gradientsOf(step, [small]);
      await gradientsOf(step, [large]);
      const after = await gradientsOf(step, [small]);
      expect(bits(after.gradients)).toEqual(bits(clean.gradients));
      expect(bits(after.policy)).toEqual(bits(clean.policy));
      expect([after.loss, after.kl]).toEqual([clean.loss, clean.kl]);
    } finally {
      step.free();
    }
  });

  it("one program serves every microbatch of a shape class", async () => {
    const [one, other] = [randomExamples(3, 41), randomExamples(3, 42)].map((rows) => packBatch(rows, noCut));
    if (one === undefined || other === undefined) throw new Error("no batches");
    expect(other.packed.shape).toEqual(one.packed.shape);
    expect(other.packed.usedRows).not.toBe(one.packed.usedRows);
    const step = updateFor(llama.policy, llama.reference, objective, [one, other]);
    try {
      await gradientsOf(step, [one]);
      const recorded = step.programs.length;
      const second = await gradientsOf(step, [other]);
      expect(step.programs).toHaveLength(recorded);
      const alone = await runUpdate(llama.policy, llama.reference, objective, [other]);
      expect(bits(second.gradients)).toEqual(bits(alone.gradients));
    } finally {
      step.free();
    }
  });

  it("of more kinds of microbatch than programs are kept, the oldest are recorded again, to the same bits", async () => {
    const rows = randomExamples(70, 43).map((row) => ({ ...row, completionIds: [5, 6] }));
    const batches = Array.from({ length: 67 }, (_, i) => packBatch(rows.slice(0, i + 2), noCut));
    const [first] = batches as [Batch, ...Batch[]];
    const step = updateFor(llama.policy, llama.reference, objective, batches);
    try {
      const before = await gradientsOf(step, [first]);
      for (const batch of batches.slice(1)) await step.gradients([batch]);
      expect(step.programs).toHaveLength(64);
      expect(bits((await gradientsOf(step, [first])).gradients)).toEqual(bits(before.gradients));
      for (const batch of batches.slice(1, 4)) await step.gradients([batch]);
      expect(step.programs).toHaveLength(64);
    } finally {
      step.free();
    }
  });

  it("a mismatched completion is cut to what max_length leaves it, at least one token", async () => {
    const maxLength = 9; // the first row's prompt has 6 tokens, the second's 9
    const batch = packBatch(examples, { mismatched: true, maxLength });
    const result = await runUpdate(llama.policy, llama.reference, objective, [batch]);
    const cut = examples.map(({ promptIds }, i) => {
      const completion = Array.from(examples[(i + 1) % 5]?.completionIds ?? []);
      return { promptIds, completionIds: completion.slice(0, Math.max(1, maxLength - promptIds.length)) };
    });
    expect(cut.map(({ completionIds }) => completionIds.length)).toEqual([3, 1, 5, 6, 7]);
    const [policy] = exactOf("llama");
    const wanted = cut.map((row) => policy.logProb(row.promptIds, row.completionIds));
    expectWithin("mismatched pairs", result.policy.subarray(5), wanted, () => LOG_PROB);
  });

  it("completions of one token have no rows of their own and are learnt from the prompt's last row", async () => {
    const short = examples.map((row) => ({ ...row, completionIds: Array.from(row.completionIds).slice(0, 1) }));
    const batch = packBatch(short, noCut);
    expect(batch.packed.shape.branchRows).toBe(0);
    const result = await runUpdate(llama.policy, llama.reference, objective, [batch]);
    const exact = exactStep(...exactOf("llama"), objective, [short]);
    expectWithin("loss", [result.loss], [exact.loss], () => LOSS);
    expectGradients(result, exact.gradients);
  });
});

describe("what the loss sees", () => {
  const examples = readExamples("llama");

  it("completion tokens alone: a prompt's tokens are conditions, by the chain rule of probability", async () => {
    const rows = examples.filter(({ promptIds }) => promptIds.length > 1);
    const ids = ({ promptIds, completionIds }: BatchExample) => [
      ...Array.from(promptIds),
      ...Array.from(completionIds),
    ];
    const from = (row: BatchExample, start: number, end: number) => ({
      promptIds: ids(row).slice(0, start),
      completionIds: ids(row).slice(start, end),
    });
    const whole = await completionLogProbs(
      llama.policy,
      rows.map((row) => from(row, 1, ids(row).length)),
    );
    const prompts = await completionLogProbs(
      llama.policy,
      rows.map((row) => from(row, 1, row.promptIds.length)),
    );
    const completions = await completionLogProbs(llama.policy, rows);
    const sums = completions.map((logProb, i) => logProb + at(prompts, i));
    expectWithin("sums", sums, whole, (i) => 64 * EPSILON * Math.abs(at(whole, i)));
    expect(prompts.every((logProb) => logProb < -1)).toBe(true);
  });

  it("rows of dLogits sum to 0, so the columns of the head's gradient do", async () => {
    const result = await runUpdate(llama.policy, llama.reference, objective, [packBatch(examples, noCut)]);
    const gradient = result.tensors.get("lm_head.weight") ?? new Float32Array(0);
    const { vocabSize, hiddenSize } = llama.policy.config;
    expect(gradient.length).toBe(vocabSize * hiddenSize);
    for (let column = 0; column < hiddenSize; column++) {
      let [sum, size] = [0, 0];
      for (let token = 0; token < vocabSize; token++) {
        sum += at(gradient, token * hiddenSize + column);
        size += Math.abs(at(gradient, token * hiddenSize + column));
      }
      expect(Math.abs(sum)).toBeLessThanOrEqual(SAME_GRADIENT * size);
    }
  });

  it("only tokens that condition an example's completion get an embedding gradient", async () => {
    const result = await runUpdate(llama.policy, llama.reference, objective, [packBatch(examples, noCut)]);
    const gradient = result.tensors.get("model.embed_tokens.weight") ?? new Float32Array(0);
    const { vocabSize, hiddenSize } = llama.policy.config;
    const moved = Array.from({ length: vocabSize }, (_, token) => token).filter((token) =>
      gradient.subarray(token * hiddenSize, (token + 1) * hiddenSize).some((value) => value !== 0),
    );
    // The last token of a completion conditions nothing, and the mismatched pairs carry no gradient.
    const conditions = examples.flatMap(({ promptIds, completionIds }) => [
      ...Array.from(promptIds),
      ...Array.from(completionIds).slice(0, -1),
    ]);
    expect(moved).toEqual([...new Set(conditions)].sort((one, other) => one - other));
  });

  it("saturates without harm: at beta 1e4 losses, coefficients and gradients are finite", async () => {
    const steep = { ...objective, beta: 1e4 };
    const result = await runUpdate(llama.policy, llama.reference, steep, [packBatch(examples, noCut)]);
    const exact = exactStep(...exactOf("llama"), steep, [examples]);
    expectWithin("loss", [result.loss], [exact.loss], () => LOSS);
    expect(result.sums("saturated")).toBe(examples.length);
    for (const values of [result.coefficients, result.gradients]) expect(values.every(Number.isFinite)).toBe(true);
    expect(Math.max(...result.coefficients.map(Math.abs))).toBeLessThan(1e-30);
  });
});

describe("reference", () => {
  /** Shares llama's vocabulary and nothing else. */
  const loadOther = async () => {
    const config = {
      model_type: "gpt2",
      vocab_size: llama.policy.config.vocabSize,
      n_embd: 24,
      n_head: 3,
      n_layer: 1,
      n_positions: 48,
      layer_norm_epsilon: 1e-5,
      activation_function: "gelu_new",
    };
    return Model.load(device, await randomModel(folder, config, 3));
  };

  it("of the policy's build runs in the policy's memory", async () => {
    const batches = [packBatch(readExamples("llama"), noCut)];
    const other = await loadOther();
    const bytes = [llama.reference, other].map((reference) => {
      const before = device.memory().activations ?? 0;
      const step = updateFor(llama.policy, reference, objective, batches);
      const taken = (device.memory().activations ?? 0) - before;
      step.free();
      return taken;
    });
    expect(bytes[0]).toBeGreaterThan(0);
    expect(bytes[1]).toBeGreaterThan(bytes[0] ?? 0);
    other.free();
  });

  it("bounds the rows by its context too", async () => {
    const reference = await loadOther();
    const examples = readExamples("llama").map((row) => ({ ...row, promptIds: new Array(40).fill(7) }));
    await expect(KtoTrainer.create({ policy: llama.policy, reference, examples })).rejects.toThrow(
      "Example 1 of 5 has 53 tokens, more than the model's context of 48; cut or drop it.",
    );
    reference.free();
  });

  it("of another build runs in memory of its own, against float64", async () => {
    const reference = await loadOther();
    try {
      const examples = readExamples("llama");
      const result = await runUpdate(llama.policy, reference, objective, [packBatch(examples, noCut)]);
      const exact = exactStep(exactOf("llama")[0], await float64Of(reference), objective, [examples]);
      expectWithin("loss", [result.loss], [exact.loss], () => LOSS);
      expectWithin("z0", [result.kl], [exact.kl], () => LOG_PROB);
      expectGradients(result, exact.gradients);
    } finally {
      reference.free();
    }
  });

  it("must share the vocabulary, and must not be the policy itself", async () => {
    const examples = readExamples("gpt2");
    await expect(KtoTrainer.create({ policy: llama.policy, reference: gpt2.reference, examples })).rejects.toThrow(
      /vocabulary of 96 tokens .* 120/,
    );
    await expect(KtoTrainer.create({ policy: llama.policy, reference: llama.policy, examples })).rejects.toThrow(
      ConfigError,
    );
  });

  it("is never changed by training", async () => {
    const policy = await loadModel(device, "llama", "policy");
    const before = await device.download(wholeArena(llama.reference.weights));
    await train({
      policy,
      reference: llama.reference,
      examples: readExamples("llama"),
      options: { learning_rate: 1e-3, max_steps: 2 },
    });
    expect(bits(await device.download(wholeArena(llama.reference.weights)))).toEqual(bits(before));
    policy.free();
  });
});
