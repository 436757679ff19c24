/**
 * Whole trainings on the adapter: what is learnt and what is not, which bits come out, what is logged, when a run ends
 * or fails, what it leaves in memory. Tiny models, so that a run takes a second.
 */

import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import type { Model } from "../../../src/engine/model/model.ts";
import { Random } from "../../../src/engine/random.ts";
import { AdapterError, ConfigError, DatasetError, NumericError } from "../../../src/errors.ts";
import type { BatchExample } from "../../../src/kto/method/batch.ts";
import { completionLogProbs } from "../../../src/kto/method/log-probs.ts";
import type { Metrics } from "../../../src/kto/method/metrics.ts";
import type { TrainerOptions } from "../../../src/kto/options/kto.ts";
import { KtoTrainer, type TrainerInputs, type TrainingStep } from "../../../src/kto/trainer.ts";
import { wholeArena } from "../../helpers/arenas.ts";
import { bits, expectWithin } from "../../helpers/compare.ts";
import { sharedDevice, withLimits } from "../../helpers/device.ts";
import { type FixtureName, loadModel, readExamples } from "../../helpers/fixtures.ts";

const device = await sharedDevice();
/** Frozen; the policies of these tests start from "policy", another model. */
const reference = await loadModel(device, "llama", "reference");
afterAll(() => reference.free());

type Options = NonNullable<TrainerInputs["options"]>;

interface Run {
  readonly steps: TrainingStep[];
  /** The metrics of the logging steps. */
  readonly metrics: Metrics[];
  readonly weights: Float32Array<ArrayBuffer>;
}

const weightsOf = (model: Model) => device.download(wholeArena(model.weights));

/** Runs a trainer's updates that are left, or as many as asked for. */
async function advance(trainer: KtoTrainer, most = Number.POSITIVE_INFINITY): Promise<TrainingStep[]> {
  const steps: TrainingStep[] = [];
  if (most === 0) return steps;
  for await (const step of trainer) {
    steps.push(step);
    if (steps.length >= most) break;
  }
  return steps;
}

/** Trains a fixture's policy from the start. */
async function train(
  inputs: Pick<TrainerInputs, "examples" | "reference"> & { options: Options; name?: FixtureName },
): Promise<Run> {
  const { name = "llama", ...rest } = inputs;
  const policy = await loadModel(device, name, "policy");
  const trainer = await KtoTrainer.create({ policy, ...rest });
  try {
    const steps = await advance(trainer);
    const metrics = steps.flatMap((step) => (step.metrics ? [step.metrics] : []));
    return { steps, metrics, weights: await weightsOf(policy) };
  } finally {
    trainer.free();
    policy.free();
  }
}

/** All but the numbers that tell of time. */
function withoutTime(metrics: Metrics | undefined): Metrics {
  const { tokens_per_second: _, device_time_share: __, ...rest } = metrics ?? {};
  return rest;
}

function randomIds(random: Random, count: number, from: number, to: number): number[] {
  return Array.from({ length: count }, () => from + random.below(to - from));
}

/** Rows of random tokens. */
function randomExamples(count: number, seed: number, label = (i: number) => i % 2 === 0): BatchExample[] {
  const random = new Random(seed);
  return Array.from({ length: count }, (_, i) => ({
    promptIds: randomIds(random, 1 + random.below(6), 3, 90),
    completionIds: randomIds(random, 2 + random.below(9), 3, 90),
    label: label(i),
  }));
}

describe("what is learnt", () => {
  it.each(["llama", "gpt2"] as const)("8 rows of %s are learnt by heart", async (name) => {
    const { metrics } = await train({
      name,
      examples: randomExamples(8, 1),
      options: { learning_rate: 2e-3, lr_scheduler_type: "constant", max_steps: 15, logging_steps: 1 },
    });
    const [first, last] = [metrics[0] ?? {}, metrics.at(-1) ?? {}];
    expect(first).toMatchObject({ loss: 0.5, "rewards/margins": 0 });
    expect(last["rewards/accuracies"]).toBe(1);
    // The gradients of every weight in f32, and twice as much for the moments.
    expect(last["bytes/optimizer"]).toBeGreaterThan(2 * (last["bytes/gradients"] ?? Number.NaN));
    for (const line of metrics) {
      if (device.gpu.features.has("timestamp-query")) {
        expect(line.device_time_share).toBeGreaterThan(0);
        expect(line.device_time_share).toBeLessThanOrEqual(1);
      } else {
        expect(line).not.toHaveProperty("device_time_share");
      }
    }
    expect(last["rewards/margins"]).toBeGreaterThan(4);
    expect(last["rewards/chosen"]).toBeGreaterThan(1);
    expect(last["rewards/rejected"]).toBeLessThan(-1);
    expect(last.loss).toBeLessThan(0.1);
  });

  it("the same 8 rows under labels that change from step to step are not told apart", async () => {
    const rows = randomExamples(8, 1);
    const random = new Random(2);
    // Each row is as often up as down: every draw of labels is followed by its opposite.
    const draws = Array.from({ length: 8 }, () => random.shuffle(rows.map((_, i) => i % 2 === 0)));
    const examples = draws.flatMap((labels) =>
      [true, false].flatMap((as) => rows.map((row, i) => ({ ...row, label: labels[i] === as }))),
    );
    const policy = await loadModel(device, "llama", "policy");
    const before = await completionLogProbs(policy, rows);
    const trainer = await KtoTrainer.create({
      policy,
      examples,
      options: { learning_rate: 2e-3, lr_scheduler_type: "constant", num_train_epochs: 1, shuffle_dataset: false },
    });
    expect(await advance(trainer)).toHaveLength(16);
    const after = await completionLogProbs(policy, rows);
    trainer.free();
    policy.free();
    const margin = rows.reduce(
      (sum, { label }, i) => sum + ((label ? 1 : -1) * 0.1 * ((after[i] ?? 0) - (before[i] ?? 0))) / 4,
      0,
    );
    expect(Math.abs(margin)).toBeLessThan(1); // 4 and more under labels that stay
  });

  it("a label that follows from the text carries over to unseen rows; labels that do not, separate nothing", async () => {
    /** Completions of low tokens and of high ones: what the true label tells apart. */
    const rows = (count: number, seed: number) => {
      const random = new Random(seed);
      return Array.from({ length: count }, (_, i) => ({
        promptIds: randomIds(random, 2, 3, 120),
        completionIds: i % 2 === 0 ? randomIds(random, 6, 20, 30) : randomIds(random, 6, 70, 80),
        label: i % 2 === 0,
      }));
    };
    const [seen, unseen] = [rows(128, 2), rows(48, 3)];
    // Shuffled among the rows of either kind, so that labels and texts are unrelated, not only on average.
    const random = new Random(4);
    const shuffled = [0, 1].flatMap((kind) => {
      const own = seen.filter((_, i) => i % 2 === kind);
      const labels = random.shuffle(own.map((_, i) => i % 2 === 0));
      return own.map((row, i) => ({ ...row, label: labels[i] === true }));
    });
    /** Mean reward of the unseen rows of the one kind, less that of the other; and how often pairs are in order. */
    const separation = async (examples: BatchExample[]) => {
      const policy = await loadModel(device, "llama", "policy");
      const before = await completionLogProbs(policy, unseen, 16);
      const trainer = await KtoTrainer.create({
        policy,
        examples,
        options: {
          learning_rate: 1e-3,
          lr_scheduler_type: "constant",
          per_device_train_batch_size: 16,
          num_train_epochs: 4,
        },
      });
      await advance(trainer);
      const after = await completionLogProbs(policy, unseen, 16);
      trainer.free();
      policy.free();
      const rewards = [true, false].map((label) =>
        unseen.flatMap((row, i) => (row.label === label ? [0.1 * ((after[i] ?? 0) - (before[i] ?? 0))] : [])),
      );
      const [good = [], bad = []] = rewards;
      const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
      const ordered = good.flatMap((g) => bad.map((b) => Number(g > b)));
      return { margin: mean(good) - mean(bad), ordered: mean(ordered) };
    };
    const [learnt, control] = [await separation(seen), await separation(shuffled)];
    expect(learnt.ordered).toBeGreaterThan(0.95);
    expect(Math.abs(control.ordered - 0.5)).toBeLessThan(0.25);
    expect(Math.abs(control.margin)).toBeLessThan(learnt.margin / 5);
  });

  it("apo_zero_unpaired learns too, to another model where z0 is above 0", async () => {
    const examples = readExamples("llama");
    const options = { learning_rate: 2e-3, lr_scheduler_type: "constant", max_steps: 15, logging_steps: 15 } as const;
    const zero = await train({ examples, reference, options: { ...options, loss_type: "apo_zero_unpaired" } });
    const kto = await train({ examples, reference, options });
    expect(zero.metrics[0]?.kl).toBe(0);
    expect(kto.metrics[0]?.kl).toBeGreaterThan(0);
    for (const { metrics } of [zero, kto]) expect(metrics[0]?.["rewards/margins"]).toBeGreaterThan(2);
    expect(bits(zero.weights)).not.toEqual(bits(kto.weights));
  });
});

describe("repeatability", () => {
  const examples = randomExamples(14, 7);
  const options: Options = {
    learning_rate: 1e-3,
    per_device_train_batch_size: 4,
    gradient_accumulation_steps: 2,
    num_train_epochs: 3,
    logging_steps: 2,
    seed: 5,
  };

  it.each(["microbatch", "step"] as const)("the same seed gives the same bits (scope %s)", async (scope) => {
    const own = { ...options, reference_point_scope: scope };
    const first = await train({ examples, options: own });
    const second = await train({ examples, options: own });
    expect(bits(second.weights)).toEqual(bits(first.weights));
    expect(first.metrics.length).toBe(3);
    expect(second.metrics.map(withoutTime)).toEqual(first.metrics.map(withoutTime));
  });

  it("another seed draws other microbatches and gives another model", async () => {
    const first = await train({ examples, options });
    const second = await train({ examples, options: { ...options, seed: 6 } });
    expect(bits(second.weights)).not.toEqual(bits(first.weights));
    expect(second.metrics[0]?.loss).not.toBe(first.metrics[0]?.loss);
  });

  it("the loop may be left, in the middle of a logging window too, and entered again", async () => {
    const whole = await train({ examples, options });
    const policy = await loadModel(device, "llama", "policy");
    const trainer = await KtoTrainer.create({ policy, examples, options });
    try {
      const steps = [...(await advance(trainer, 1)), ...(await advance(trainer, 2))];
      expect(trainer.stepsDone).toBe(3);
      // What others do on the device in between is no matter.
      await completionLogProbs(policy, examples.slice(0, 3));
      steps.push(...(await advance(trainer)));
      expect(await advance(trainer)).toEqual([]);
      expect(steps.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6]);
      expect(steps.map(({ metrics }) => metrics && withoutTime(metrics))).toEqual(
        whole.steps.map(({ metrics }) => metrics && withoutTime(metrics)),
      );
      expect(bits(await weightsOf(policy))).toEqual(bits(whole.weights));
    } finally {
      trainer.free();
      policy.free();
    }
  });
});

describe("logging", () => {
  /** Two microbatches that hold one and three desirable rows. */
  const examples = randomExamples(8, 9, (i) => [true, false, false, false, true, true, false, true][i] === true);
  const beta = 0.2;

  it("means are sums over the window divided by its rows, and each window starts from zero", async () => {
    const { metrics } = await train({
      examples,
      reference,
      options: {
        beta,
        learning_rate: 0,
        shuffle_dataset: false,
        per_device_train_batch_size: 4,
        num_train_epochs: 2,
        logging_steps: 2,
      },
    });
    const policy = await loadModel(device, "llama", "policy");
    const [own, frozen] = [await completionLogProbs(policy, examples), await completionLogProbs(reference, examples)];
    policy.free();
    const mean = (values: ArrayLike<number>, label: boolean) => {
      const chosen = Array.from(values).filter((_, i) => examples[i]?.label === label);
      return chosen.reduce((sum, value) => sum + value, 0) / chosen.length;
    };
    const rewards = own.map((logProb, i) => beta * (logProb - (frozen[i] ?? Number.NaN)));
    const wanted = {
      "rewards/chosen": mean(rewards, true),
      "rewards/rejected": mean(rewards, false),
      "rewards/margins": mean(rewards, true) - mean(rewards, false),
      "logps/chosen": mean(own, true),
      "logps/rejected": mean(own, false),
    };
    expect(metrics).toHaveLength(2);
    for (const window of metrics) {
      for (const [name, value] of Object.entries(wanted)) {
        expectWithin(name, [window[name] ?? Number.NaN], [value], () => 1e-4);
      }
    }
    // The second epoch saw the same rows under the same weights.
    const [
      { epoch: _one, num_tokens: tokens = 0, tokens_computed: computed = 0, ...first },
      { epoch, num_tokens, tokens_computed, ...second },
    ] = metrics.map(withoutTime) as [Metrics, Metrics];
    expect(second).toEqual(first);
    expect(epoch).toBe(2);
    expect(num_tokens).toBe(2 * tokens);
    expect(tokens_computed).toBe(2 * computed);
  });

  it("a window's loss, kl and accuracy are those of its updates one by one", async () => {
    const options: Options = {
      learning_rate: 1e-3,
      per_device_train_batch_size: 4,
      num_train_epochs: 3,
      lr_scheduler_type: "constant",
    };
    const each = await train({ examples, reference, options: { ...options, logging_steps: 1 } });
    const three = await train({ examples, reference, options: { ...options, logging_steps: 3 } });
    expect(bits(three.weights)).toEqual(bits(each.weights));
    expect(three.metrics).toHaveLength(2);
    for (const [window, metrics] of three.metrics.entries()) {
      const steps = each.metrics.slice(3 * window, 3 * window + 3);
      for (const name of ["loss", "kl", "kl/unclamped", "rewards/accuracies", "saturated"]) {
        const mean = steps.reduce((sum, step) => sum + (step[name] ?? Number.NaN), 0) / 3;
        expectWithin(`${name} of window ${window}`, [metrics[name] ?? Number.NaN], [mean], () => 1e-6 * (1 + mean));
      }
      // These are of the last update.
      for (const name of ["grad_norm", "learning_rate", "num_tokens", "epoch"]) {
        expect(metrics[name], name).toBe(steps[2]?.[name]);
      }
    }
  });

  it("logs every logging_steps updates, the last one, and the first where asked", async () => {
    const logged = async (own: Options) => {
      const { steps } = await train({ examples, options: { max_steps: 5, learning_rate: 0, ...own } });
      expect(steps.map(({ step, totalSteps }) => [step, totalSteps])).toEqual([1, 2, 3, 4, 5].map((step) => [step, 5]));
      return steps.filter(({ metrics }) => metrics !== undefined).map(({ step }) => step);
    };
    expect(await logged({ logging_steps: 2 })).toEqual([2, 4, 5]);
    expect(await logged({ logging_steps: 3, logging_first_step: true })).toEqual([1, 3, 5]);
    expect(await logged({ logging_steps: 100 })).toEqual([5]);
  });

  it("warns once where no row moves the model any more, as after a rate that ruins it", async () => {
    for (const [learning_rate, count] of [
      [1, 1],
      [1e-4, 0],
    ] as const) {
      const warnings: string[] = [];
      const policy = await loadModel(device, "llama", "policy");
      const trainer = await KtoTrainer.create({
        policy,
        examples: readExamples("llama"),
        onWarning: (sentence) => void warnings.push(sentence),
        options: { learning_rate, beta: 1, max_steps: 4, logging_steps: 1, lr_scheduler_type: "constant" },
      });
      for await (const _ of trainer);
      trainer.free();
      policy.free();
      expect(
        warnings.filter((sentence) => /^since step 2 no row moves the model any more/.test(sentence)),
      ).toHaveLength(count);
    }
  });
});

describe("the schedule", () => {
  const examples = randomExamples(12, 15);

  it("epochs and max_steps: a part of an epoch counts, and more steps than an epoch go on into the next", async () => {
    const policy = await loadModel(device, "llama", "policy");
    const totals = async (own: Options) => {
      const trainer = await KtoTrainer.create({ policy, reference, examples, options: { learning_rate: 0, ...own } });
      const { totalSteps, stepsPerEpoch } = trainer;
      const steps = await advance(trainer);
      trainer.free();
      expect(steps).toHaveLength(totalSteps);
      return [stepsPerEpoch, totalSteps, steps.at(-1)?.epoch];
    };
    expect(await totals({ per_device_train_batch_size: 4, num_train_epochs: 1.5 })).toEqual([3, 5, 5 / 3]);
    expect(await totals({ per_device_train_batch_size: 5, max_steps: 7 })).toEqual([3, 7, 7 / 3]);
    // 3 microbatches, two in an update: the last update of an epoch has one.
    expect(
      await totals({ per_device_train_batch_size: 4, gradient_accumulation_steps: 2, num_train_epochs: 2 }),
    ).toEqual([2, 4, 2]);
    policy.free();
  });

  it("the learning rate follows warm-up and decay, and is the one that moves the weights", async () => {
    const options: Options = { learning_rate: 1e-3, max_steps: 4, per_device_train_batch_size: 4, logging_steps: 1 };
    const { steps } = await train({ examples, options: { ...options, warmup_steps: 2 } });
    expect(steps.map(({ learningRate }) => learningRate)).toEqual([0, 5e-4, 1e-3, 5e-4]);
    expect(steps.map(({ metrics }) => metrics?.learning_rate)).toEqual([0, 5e-4, 1e-3, 5e-4]);
    // An update at rate 0 moves nothing, so the second is again at the identity of step 0.
    expect(steps.map(({ metrics }) => metrics?.["rewards/margins"] === 0)).toEqual([true, true, false, false]);
    for (const share of [{ warmup_ratio: 0.5 }, { warmup_steps: 0.5 }]) {
      const { steps: same } = await train({ examples, options: { ...options, ...share } });
      expect(same.map(({ learningRate }) => learningRate)).toEqual([0, 5e-4, 1e-3, 5e-4]);
    }
  });

  it("accumulated updates are averages: the first AdamW update is as large as without", async () => {
    const step = async (accumulation: number) => {
      const { metrics } = await train({
        examples: randomExamples(16, 16),
        options: {
          per_device_train_batch_size: 16 / accumulation,
          gradient_accumulation_steps: accumulation,
          max_steps: 1,
          loss_type: "apo_zero_unpaired",
        },
      });
      return metrics[0] ?? {};
    };
    // The same 16 rows, of half of either class in each microbatch: the mean of means is the mean.
    const [once, accumulated] = [await step(1), await step(4)];
    expect(accumulated.num_tokens).toBe(once.num_tokens);
    expectWithin("norm", [accumulated.grad_norm ?? 0], [once.grad_norm ?? 1], () => 1e-5 * (once.grad_norm ?? 0));
    expectWithin("loss", [accumulated.loss ?? 0], [once.loss ?? 1], () => 1e-6);
  });
});

describe("numbers that are not finite", () => {
  /** A weight that every token meets. */
  const poison = (policy: Model, value: number) => {
    device.upload({ ...policy.parameter("finalNorm.weight"), shape: [1] }, Float32Array.of(value));
  };

  it("no update of a whole run possible: NumericError, and the weights are as they were", async () => {
    const policy = await loadModel(device, "llama", "policy");
    poison(policy, Number.NaN);
    const before = await weightsOf(policy);
    const trainer = await KtoTrainer.create({
      policy,
      reference,
      examples: randomExamples(6, 17),
      options: { learning_rate: 1e-3, max_steps: 4, logging_steps: 2 },
    });
    try {
      await expect(advance(trainer)).rejects.toThrow(NumericError);
      expect(trainer.stepsDone).toBe(4);
      expect(bits(await weightsOf(policy))).toEqual(bits(before));
    } finally {
      trainer.free();
      policy.free();
    }
  });

  it("ten updates in a row not possible end a run that went well, nine do not", async () => {
    const policy = await loadModel(device, "llama", "policy");
    const trainer = await KtoTrainer.create({
      policy,
      reference,
      examples: randomExamples(6, 17),
      options: { learning_rate: 1e-3, max_steps: 30, logging_steps: 1 },
    });
    try {
      const [good = Number.NaN] = await device.download({ ...policy.parameter("finalNorm.weight"), shape: [1] });
      expect(await advance(trainer, 3)).toHaveLength(3);
      poison(policy, Number.NaN);
      expect(await advance(trainer, 9)).toHaveLength(9);
      poison(policy, good);
      expect(await advance(trainer, 1)).toHaveLength(1);
      poison(policy, Number.NaN);
      await expect(advance(trainer)).rejects.toThrow(/not finite in any of the 10 updates up to step 23/);
    } finally {
      trainer.free();
      policy.free();
    }
  });

  it("an update that is not possible is skipped and counted, and training goes on", async () => {
    const policy = await loadModel(device, "llama", "policy");
    const trainer = await KtoTrainer.create({
      policy,
      reference,
      examples: randomExamples(6, 18),
      options: { learning_rate: 1e-3, lr_scheduler_type: "constant", max_steps: 4, logging_steps: 3 },
    });
    try {
      const metrics: Metrics[] = [];
      const [good = Number.NaN] = await device.download({ ...policy.parameter("finalNorm.weight"), shape: [1] });
      let before = await weightsOf(policy);
      for await (const step of trainer) {
        const after = await weightsOf(policy);
        if (step.step === 2) expect(bits(after)).toEqual(bits(before));
        else expect(bits(after)).not.toEqual(bits(before));
        poison(policy, step.step === 1 ? Number.POSITIVE_INFINITY : good);
        before = await weightsOf(policy);
        if (step.metrics) metrics.push(step.metrics);
      }
      expect(metrics.map(({ skipped_steps }) => skipped_steps)).toEqual([1, 1]);
      // The next window has nothing of it.
      expect(Number.isFinite(metrics[1]?.loss)).toBe(true);
      expect((await weightsOf(policy)).every(Number.isFinite)).toBe(true);
    } finally {
      trainer.free();
      policy.free();
    }
  });
});

describe("memory", () => {
  it("free gives back what the run took; two trainers one after another, and side by side, do not meet", async () => {
    const examples = readExamples("llama");
    const options: Options = { learning_rate: 1e-3, max_steps: 2, logging_steps: 1 };
    const alone = await train({ examples, options });
    const policies = [await loadModel(device, "llama", "policy"), await loadModel(device, "llama", "policy")];
    const [one, other] = policies as [Model, Model];
    const before = device.memory();
    const first = await KtoTrainer.create({ policy: one, examples, options });
    expect(device.memory()["reference weights"] ?? 0).toBeGreaterThan(before["reference weights"] ?? 0);
    const second = await KtoTrainer.create({ policy: other, examples, options });
    await advance(first, 1);
    await advance(second, 1);
    await advance(first);
    await advance(second);
    for (const policy of [one, other]) expect(bits(await weightsOf(policy))).toEqual(bits(alone.weights));
    first.free();
    second.free();
    // The rotary angles belong to the models, which stay.
    const { scratch: scratchBefore = 0, ...restBefore } = before;
    const { scratch: scratchAfter = 0, ...restAfter } = device.memory();
    expect(restAfter).toEqual(restBefore);
    const { contextLength, headSize } = one.config;
    expect(scratchAfter - scratchBefore).toBeLessThanOrEqual(2 * 4 * contextLength * headSize);
    one.free();
    other.free();
  });

  it("a trainer that cannot be made leaves nothing behind", async () => {
    const policy = await loadModel(device, "llama", "policy");
    const before = device.memory();
    // Activations fit, the arena of gradients (97 KiB) does not.
    await withLimits({ maxBufferSize: 90_000 }, async () => {
      const failing = KtoTrainer.create({ policy, reference, examples: randomExamples(2, 19) });
      await expect(failing).rejects.toThrow(AdapterError);
      await expect(failing).rejects.toThrow(/^"gradients" needs \d+ bytes .* allows 90000; use a smaller/);
    });
    expect(device.memory()).toEqual(before);
    policy.free();
  });
});

describe("what a trainer refuses", () => {
  const good = readExamples("llama");
  const refused = async (examples: BatchExample[], options: Options = {}) => {
    const policy = await loadModel(device, "llama", "policy");
    const before = device.memory();
    try {
      const trainer = await KtoTrainer.create({ policy, reference, examples, options });
      trainer.free();
      return undefined;
    } catch (error) {
      expect(device.memory()).toEqual(before);
      return error as Error;
    } finally {
      policy.free();
    }
  };

  it.each([
    ["an empty prompt", { promptIds: [] }, /^Example 2 of 6 has an empty prompt/],
    ["an empty completion", { completionIds: [] }, /^Example 2 of 6 has an empty completion/],
    ["a token outside the vocabulary", { completionIds: [5, 120] }, /^Example 2 of 6 holds token id 120.* 120\.$/],
    ["a negative token", { promptIds: [-1] }, /^Example 2 of 6 holds token id -1/],
    ["a token that is no whole number", { promptIds: [1.5] }, /^Example 2 of 6 holds token id 1.5/],
    ["more tokens than max_length", { promptIds: new Array(30).fill(5) }, /^Example 2 of 6 has 41 tokens.* 40/],
  ])("%s, by the example's number", async (_, change, message) => {
    const [first, second, ...rest] = good as [BatchExample, BatchExample, ...BatchExample[]];
    const error = await refused([first, { ...second, ...change }, ...rest, second], { max_length: 40 });
    expect(error).toBeInstanceOf(DatasetError);
    expect(error?.message).toMatch(message);
  });

  it("a microbatch of one row, one example, and options out of range", async () => {
    expect(await refused(good, { per_device_train_batch_size: 1 })).toBeInstanceOf(ConfigError);
    expect(await refused(good.slice(0, 1))).toBeInstanceOf(DatasetError);
    expect(await refused([])).toBeInstanceOf(DatasetError);
    expect(await refused(good, { beta: 0 })).toBeInstanceOf(ConfigError);
    expect(await refused(good, { learning_rate: -1 })).toBeInstanceOf(ConfigError);
    expect(await refused(good, { betas: 0.1 } as Options)).toBeInstanceOf(ConfigError);
  });

  it("but not one row in a microbatch without a reference point", async () => {
    expect(await refused(good, { per_device_train_batch_size: 1, loss_type: "apo_zero_unpaired" })).toBeUndefined();
  });
});

describe("what a run does not use is counted", () => {
  it("a row that would be a microbatch of its own waits an epoch", async () => {
    const policy = await loadModel(device, "llama", "policy");
    const create = (rows: number, options: Partial<TrainerOptions>) =>
      KtoTrainer.create({ policy, reference, examples: randomExamples(rows, 3), options });
    try {
      for (const [rows, options, left] of [
        [3, { per_device_train_batch_size: 2 }, 1],
        [4, { per_device_train_batch_size: 2 }, 0],
        [9, { per_device_train_batch_size: 4 }, 0],
        [3, { per_device_train_batch_size: 2, loss_type: "apo_zero_unpaired" }, 0],
      ] as const) {
        const trainer = await create(rows, { ...options, max_steps: 1 });
        expect(trainer.rowsLeftOut).toBe(left);
        trainer.free();
      }
    } finally {
      policy.free();
    }
  });

  it("a mismatched completion that its new prompt cuts", async () => {
    const policy = await loadModel(device, "llama", "policy");
    const ids = (count: number, first: number) => Uint32Array.from({ length: count }, (_, i) => first + i);
    const examples = [
      { promptIds: ids(6, 3), completionIds: ids(2, 4), label: true },
      { promptIds: ids(2, 9), completionIds: ids(6, 5), label: false },
    ];
    const options = { per_device_train_batch_size: 2, max_length: 8, max_steps: 1, learning_rate: 0 };
    const trainer = await KtoTrainer.create({ policy, reference, examples, options });
    try {
      const [step] = await advance(trainer);
      // Six tokens after a prompt of six do not fit into eight; two after a prompt of two do.
      expect(step?.metrics?.cut_pairs).toBe(0.5);
    } finally {
      trainer.free();
      policy.free();
    }
  });
});

describe("misuse", () => {
  it("a second loop beside the first, and any loop after free, are refused", async () => {
    const policy = await loadModel(device, "llama", "policy");
    const trainer = await KtoTrainer.create({ policy, reference, examples: randomExamples(4, 5) });
    for await (const _ of trainer) {
      await expect(advance(trainer, 1)).rejects.toThrow(ConfigError);
      break;
    }
    expect(await advance(trainer, 1)).toHaveLength(1); // the first was left
    trainer.free();
    await expect(advance(trainer, 1)).rejects.toThrow(/was freed/);
    policy.free();
  });

  it("a run that is freed inside its own loop ends there with a sentence, and evaluates no more", async () => {
    const policy = await loadModel(device, "llama", "policy");
    const [examples, evalExamples] = [randomExamples(4, 5), randomExamples(4, 6)];
    const options = { max_steps: 3, per_device_train_batch_size: 4, eval_strategy: "epoch" as const };
    const trainer = await KtoTrainer.create({ policy, reference, examples, evalExamples, options });
    let steps = 0;
    const loop = async () => {
      for await (const _ of trainer) {
        steps++;
        trainer.free();
      }
    };
    await expect(loop()).rejects.toThrow(new ConfigError("The trainer was freed; create another one."));
    expect(steps).toBe(1);
    await expect(trainer.evaluate()).rejects.toThrow(new ConfigError("The trainer was freed; evaluate before that."));
    policy.free();
  });

  it("examples without a label are refused by number", async () => {
    const policy = await loadModel(device, "llama", "policy");
    const examples = randomExamples(4, 5).map((row, i) => (i === 2 ? { ...row, label: "false" as never } : row));
    await expect(KtoTrainer.create({ policy, reference, examples })).rejects.toThrow(
      /^Example 3 of 4 has the label "false"/,
    );
    policy.free();
  });

  it("a save and an evaluation that nobody waits for see the weights of one update, and change none", async () => {
    const inputs = { reference, examples: randomExamples(6, 7), evalExamples: randomExamples(4, 8) };
    const options = { max_steps: 4, learning_rate: 1e-2, logging_steps: 1, eval_strategy: "epoch" } as const;
    const run = async (waits: boolean) => {
      const policy = await loadModel(device, "llama", "policy");
      const trainer = await KtoTrainer.create({ policy, ...inputs, options });
      const folders: string[] = [];
      const work: Promise<unknown>[] = [];
      const metrics: Metrics[] = [];
      const evaluations: unknown[] = [];
      for await (const step of trainer) {
        folders.push(mkdtempSync(join(tmpdir(), "kto-save-")));
        const evaluated = trainer.evaluate().then(({ eval_loss }) => evaluations.push(eval_loss));
        const both = [trainer.save(folders.at(-1) ?? ""), evaluated];
        work.push(...both);
        if (waits) await Promise.all(both);
        metrics.push(withoutTime(step.metrics));
      }
      await Promise.all(work);
      const files = folders.map((folder) =>
        createHash("sha256")
          .update(readFileSync(join(folder, "model.safetensors")))
          .digest("hex"),
      );
      for (const folder of folders) rmSync(folder, { recursive: true });
      trainer.free();
      policy.free();
      return { files, metrics, evaluations };
    };
    expect(await run(false)).toEqual(await run(true));
  });

  it("microbatches and updates of more rows than there are take memory for these alone", async () => {
    const policy = await loadModel(device, "llama", "policy");
    const examples = randomExamples(6, 7);
    const bytes = async (rows: number, accumulated: number): Promise<number> => {
      const before = device.totalBytes;
      const trainer = await KtoTrainer.create({
        ...{ policy, reference, examples },
        options: {
          per_device_train_batch_size: rows,
          gradient_accumulation_steps: accumulated,
          reference_point_scope: "step",
          max_steps: 1,
        },
      });
      const taken = device.totalBytes - before;
      expect(await advance(trainer)).toHaveLength(1);
      trainer.free();
      return taken;
    };
    await bytes(6, 1); // the models make their tables of rotary angles, once
    const all = await bytes(6, 1);
    expect(await bytes(1_000_000, 1)).toBe(all);
    expect(await bytes(6, 1_000_000)).toBe(all);
    policy.free();
  });

  it("millions of updates take no more rows to plan than a few epochs, with room for every microbatch", async () => {
    const policy = await loadModel(device, "llama", "policy");
    /** How often a row is looked at before the first update. */
    const planned = async (max_steps: number) => {
      let looks = 0;
      const examples = randomExamples(40, 6).map(
        (example) =>
          new Proxy(example, {
            get: (target, name) => {
              looks++;
              return Reflect.get(target, name);
            },
          }),
      );
      const options = { max_steps, per_device_train_batch_size: 3, logging_steps: 1000 };
      const trainer = await KtoTrainer.create({ policy, reference, examples, options });
      const before = looks;
      expect(await advance(trainer, 14)).toHaveLength(14); // an epoch: the longest rows come by
      trainer.free();
      return before;
    };
    const few = await planned(1000);
    expect(few).toBeGreaterThan(0);
    expect(await planned(5_000_000)).toBeLessThanOrEqual(few);
    policy.free();
  });
});
