/**
 * Supervised fine-tuning on the adapter: gradients against float64, what accumulation and resuming leave as it is, what
 * is learnt, logged and refused. Tiny models, so that a run takes a second.
 */
import { mkdirSync } from "node:fs";
import { describe, expect, it } from "vitest";
import type { Float64Gradients, Float64Model } from "../../src/engine/model/float64/decoder.ts";
import { LoraAdapter } from "../../src/engine/model/lora.ts";
import { Model } from "../../src/engine/model/model.ts";
import { ConfigError, DatasetError } from "../../src/errors.ts";
import { sftObjective } from "../../src/kernels/float64/sft-objective.ts";
import { Evaluator } from "../../src/kto/evaluation/evaluator.ts";
import { type BatchExample, packBatch } from "../../src/kto/method/batch.ts";
import { completionLogProbs } from "../../src/kto/method/log-probs.ts";
import type { Metrics } from "../../src/kto/method/metrics.ts";
import { Update } from "../../src/kto/method/update.ts";

import { SftTrainer, type SftTrainerInputs } from "../../src/kto/sft-trainer.ts";
import { KtoTrainer } from "../../src/kto/trainer.ts";
import { wholeArena } from "../helpers/arenas.ts";
import { bits } from "../helpers/compare.ts";
import { sharedDevice } from "../helpers/device.ts";
import { FIXTURES, float64Fixture, loadModel, readExamples, relativeDistance } from "../helpers/fixtures.ts";
import { freshPath, llama, temporaryFolder } from "../helpers/folders.ts";
import { noOptimizer } from "../helpers/step.ts";

const device = await sharedDevice();
const folder = temporaryFolder();

/** A fixture's rows, all of them to be imitated; completions of different lengths. */
const rowsOf = (name: (typeof FIXTURES)[number]): BatchExample[] =>
  readExamples(name).map((row) => ({ ...row, label: true }));

/** The gradients of an update, in microbatches of these sizes, by Hugging Face name. */
async function gradientsOf(policy: Model, examples: readonly BatchExample[], sizes: readonly number[]) {
  let start = 0;
  const batches = sizes.map((size) => {
    start += size;
    return packBatch(examples.slice(start - size, start), {
      mismatched: false,
      maxLength: policy.config.contextLength,
    });
  });
  const step = new Update({
    policy,
    reference: "none",
    shapes: batches.map(({ packed }) => packed.shape),
    maxSize: Math.max(...sizes),
    objective: "sft",
    optimizer: noOptimizer,
    referencePointScope: "microbatch",
  });
  try {
    await step.gradients(batches);
    const metrics = step.objective.metricsOf(await device.download(step.objective.metrics), 0);
    return { metrics, tensors: await policy.readTensors(step.optimizer.gradients) };
  } finally {
    step.free();
  }
}

type Options = NonNullable<SftTrainerInputs["options"]>;

interface Run {
  readonly metrics: Metrics[];
  readonly weights: Float32Array<ArrayBuffer>;
  readonly log: string;
}

/** A whole run from the fixture's policy; `stopAfter` breaks it off without a word. */
async function train(
  options: Options,
  more: Partial<SftTrainerInputs> & { lora?: boolean; stopAfter?: number } = {},
): Promise<Run> {
  const { lora = false, stopAfter, ...inputs } = more;
  let policy = await Model.load(device, llama, { storage: "f32" });
  if (lora) {
    const adapter = LoraAdapter.create(device, policy.config, { rank: 2, alpha: 4, dropout: 0.25, rslora: false });
    adapter.initialize(5);
    policy = policy.withAdapter(adapter);
  }
  try {
    const trainer = await SftTrainer.create({ policy, examples: rowsOf("llama"), ...inputs, options });
    try {
      for await (const { step } of trainer) if (step === stopAfter) break;
      const log = JSON.stringify(trainer.log, (key, value) =>
        /_per_second$|_runtime$|_time_share$|^bytes\//.test(key) ? undefined : value,
      );
      return {
        metrics: trainer.log.filter((line) => "loss" in line) as Metrics[],
        weights: await device.download(wholeArena(policy.trained)),
        log,
      };
    } finally {
      trainer.free();
    }
  } finally {
    policy.adapter?.free();
    policy.free();
  }
}

/** Loss and gradient of one update, over all its examples. The formulas are `sftObjective`'s. */
function float64Gradient(policy: Float64Model, examples: readonly BatchExample[]) {
  const policyLogProbs = examples.map((row) => policy.logProb(row.promptIds, row.completionIds));
  const tokens = examples.reduce((sum, { completionIds }) => sum + completionIds.length, 0);
  const { loss, coefficients } = sftObjective({ policyLogProbs, tokens });
  const gradients: Float64Gradients = new Map();
  examples.forEach((row, i) => {
    policy.accumulateLogProbGradient(row.promptIds, row.completionIds, coefficients[i] ?? Number.NaN, gradients);
  });
  return { loss, gradients };
}

describe("an update", () => {
  it.each(FIXTURES)("%s: loss and every gradient tensor against float64", async (name) => {
    const policy = await loadModel(device, name, "policy");
    const examples = rowsOf(name);
    const exact = float64Gradient(float64Fixture(name, "policy"), examples);
    const { metrics, tensors } = await gradientsOf(policy, examples, [examples.length]);
    policy.free();
    expect(Math.abs((metrics.loss ?? Number.NaN) - exact.loss)).toBeLessThan(1e-5);
    expect(tensors.length).toBe(exact.gradients.size);
    for (const { name: parameter, data } of tensors) {
      expect(relativeDistance(data, exact.gradients.get(parameter) ?? []), parameter).toBeLessThanOrEqual(1e-3);
    }
  });

  it("4 microbatches of 2 give the gradient and the loss of 8, though their completions differ in length", async () => {
    const policy = await loadModel(device, "llama", "policy");
    const rows = [...rowsOf("llama"), ...rowsOf("llama")].slice(0, 8);
    const [whole, parts, single] = [
      await gradientsOf(policy, rows, [8]),
      await gradientsOf(policy, rows, [2, 2, 2, 2]),
      await gradientsOf(policy, rows, [1, 3, 1, 3]), // nothing needs a second row
    ];
    policy.free();
    expect(new Set(rows.slice(0, 4).map(({ completionIds }) => completionIds.length)).size).toBeGreaterThan(1);
    for (const { metrics, tensors } of [parts, single]) {
      expect(Math.abs((metrics.loss ?? Number.NaN) - (whole.metrics.loss ?? 0))).toBeLessThan(1e-6);
      expect(metrics.mean_token_accuracy).toBe(whole.metrics.mean_token_accuracy);
      for (const [i, { name, data }] of tensors.entries()) {
        expect(relativeDistance(data, whole.tensors[i]?.data ?? []), name).toBeLessThan(1e-6);
      }
    }
  });
});

describe("a run", () => {
  it("learns its rows by heart, without a reference in memory", async () => {
    const { metrics } = await train({
      learning_rate: 5e-3,
      lr_scheduler_type: "constant",
      max_steps: 25,
      logging_steps: 1,
      per_device_train_batch_size: 4,
    });
    const [first, last] = [metrics[0] ?? {}, metrics.at(-1) ?? {}];
    expect(first.loss).toBeGreaterThan(2);
    expect(last.loss).toBeLessThan(0.3);
    expect(last.mean_token_accuracy).toBeGreaterThan(0.95);
    expect(last["bytes/reference_weights"] ?? 0).toBe(0);
    expect(Object.keys(last).filter((name) => /^(kl|rewards|logps|self_pairs)/.test(name))).toEqual([]);
  });

  it("logs the mean of the rows' log-probabilities per token, before any update and in an evaluation", async () => {
    const examples = rowsOf("llama");
    const policy = await loadModel(device, "llama", "policy");
    const logProbs = await completionLogProbs(policy, examples);
    const tokens = examples.reduce((sum, { completionIds }) => sum + completionIds.length, 0);
    const wanted = -logProbs.reduce((sum, value) => sum + value, 0) / tokens;
    const trainer = await SftTrainer.create({
      policy,
      examples,
      evalExamples: examples,
      options: { per_device_train_batch_size: 8, per_device_eval_batch_size: 1, max_steps: 1, eval_on_start: true },
    });
    for await (const step of trainer) {
      if (step.step === 0) expect(step.evaluation?.metrics.eval_loss).toBeCloseTo(wanted, 6);
      else expect(step.metrics?.loss).toBeCloseTo(wanted, 6);
    }
    expect(trainer.stepsDone).toBe(1);
    trainer.free();
    policy.free();
  });

  it("goes by metrics of its own alone", async () => {
    const [examples, policy] = [rowsOf("llama"), await loadModel(device, "llama", "policy")];
    const options = { max_steps: 1, metric_for_best_model: "rewards/margins" };
    const made = SftTrainer.create({ policy, examples, evalExamples: examples, options });
    await expect(made).rejects.toThrow(
      /^metric_for_best_model is "eval_rewards\/margins", .* it has: eval_loss, eval_mean_token_accuracy, eval_entropy, eval_r/,
    );
    policy.free();
  });

  it("logs the entropy that an evaluation of KTO finds on the same rows", async () => {
    const examples = rowsOf("llama");
    const policy = await loadModel(device, "llama", "policy");
    const common = { policy, examples, batchSize: 8, maxLength: policy.config.contextLength };
    const constants = { beta: 0.1, desirableWeight: 1, undesirableWeight: 1, lossType: "kto" } as const;
    const runs: Metrics[] = [];
    for (const evaluator of [
      new Evaluator({ ...common, objective: "sft", reference: "none" }),
      new Evaluator({ ...common, objective: constants, reference: "uniform" }),
    ]) {
      runs.push(await evaluator.run());
      evaluator.free();
    }
    policy.free();
    const [sft, kto] = runs;
    expect(sft?.eval_entropy).toBeGreaterThan(0);
    expect(sft?.eval_entropy).toBeCloseTo(kto?.eval_entropy ?? Number.NaN, 6);
  });

  it.each([false, true])("broken off and resumed ends in the same bits (LoRA with dropout: %s)", async (lora) => {
    const options: Options = {
      per_device_train_batch_size: 1,
      gradient_accumulation_steps: 3,
      learning_rate: 1e-3,
      max_steps: 6,
      logging_steps: 4,
      save_steps: 1,
      disable_dropout: !lora,
    };
    const evalExamples = rowsOf("llama").slice(0, 2);
    const [whole, parted] = [freshPath(folder, "whole"), freshPath(folder, "parted")];
    for (const path of [whole, parted]) mkdirSync(path);
    const wanted = await train(options, { lora, evalExamples, outputFolder: whole });
    await train(options, { lora, evalExamples, outputFolder: parted, stopAfter: 3 });
    const found = await train(
      { ...options, resume_from_checkpoint: true },
      { lora, evalExamples, outputFolder: parted },
    );
    expect(bits(found.weights)).toEqual(bits(wanted.weights));
    expect(found.log).toBe(wanted.log);
  });

  it("gradient checkpointing and the keeping of the best model are the run's own", async () => {
    const outputFolder = freshPath(folder, "best");
    mkdirSync(outputFolder);
    const options: Options = { learning_rate: 1e-3, max_steps: 4, per_device_train_batch_size: 2, eval_steps: 1 };
    const plain = await train(options);
    const checkpointed = await train({ ...options, gradient_checkpointing: true });
    expect(bits(checkpointed.weights)).toEqual(bits(plain.weights));
    const best = await train(
      { ...options, load_best_model_at_end: true, early_stopping_patience: 3, learning_rate: 1e-1 },
      { outputFolder, evalExamples: rowsOf("llama").slice(2), examples: rowsOf("llama").slice(0, 2) },
    );
    expect(best.log).toContain("eval_loss");
    expect(best.weights.every(Number.isFinite)).toBe(true);
  });
});

describe("what is refused", () => {
  const create = async (inputs: Partial<SftTrainerInputs> & { options?: Record<string, unknown> }) => {
    const policy = await loadModel(device, "llama", "policy");
    try {
      const trainer = await SftTrainer.create({ policy, examples: rowsOf("llama"), ...inputs } as SftTrainerInputs);
      trainer.free();
    } finally {
      policy.free();
    }
  };

  it("options of KTO, and parts of TRL's SFT that there are none of, in one sentence", async () => {
    for (const [options, sentence] of [
      [{ beta: 0.1 }, 'option "beta" is 0.1, which belongs to KTO'],
      [{ desirable_weight: 2 }, "belongs to KTO, and supervised fine-tuning has no reference and no labels"],
      [{ loss_type: "kto" }, 'option "loss_type" is "kto", which is no loss of supervised fine-tuning'],
      [{ completion_only_loss: false }, "the loss is over completion tokens only"],
    ] as const) {
      await expect(create({ options })).rejects.toThrow(ConfigError);
      await expect(create({ options })).rejects.toThrow(sentence);
    }
    await create({ options: { loss_type: "nll", completion_only_loss: true, max_steps: 1 } });
  });

  it("a row that is thumbs down", async () => {
    const examples = rowsOf("llama").map((row, i) => ({ ...row, label: i !== 1 }));
    await expect(create({ examples })).rejects.toThrow(DatasetError);
    await expect(create({ examples })).rejects.toThrow("Example 2 of 5 has the label false");
  });

  it("the checkpoint of a run of KTO, and the other way round", async () => {
    const outputFolder = freshPath(folder, "kto");
    mkdirSync(outputFolder);
    const options = { max_steps: 1, per_device_train_batch_size: 4 };
    const policy = await loadModel(device, "llama", "policy");
    const inputs = { policy, examples: rowsOf("llama"), outputFolder };
    const run = async (trainer: SftTrainer | KtoTrainer) => {
      for await (const _ of trainer);
      trainer.free();
    };
    const resumed = { ...options, resume_from_checkpoint: true };
    await run(await KtoTrainer.create({ ...inputs, options }));
    await expect(SftTrainer.create({ ...inputs, options: resumed })).rejects.toThrow(
      "is KTO training and this one is supervised fine-tuning",
    );
    await run(await SftTrainer.create({ ...inputs, options }));
    await expect(KtoTrainer.create({ ...inputs, options: resumed })).rejects.toThrow(
      "is supervised fine-tuning and this one is KTO training",
    );
    policy.free();
  });
});
