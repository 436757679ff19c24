/**
 * Evaluation on the adapter: the numbers against the float64 objective, that training does not feel it, when it comes,
 * that the best weights are the ones saved.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it, vi } from "vitest";
import { LoraAdapter } from "../../../src/engine/model/lora.ts";
import { Random } from "../../../src/engine/random.ts";
import { ConfigError, DatasetError, FileError } from "../../../src/errors.ts";
import { ktoObjective, referencePoint } from "../../../src/kernels/float64/kto-objective.ts";
import { BestModel } from "../../../src/kto/evaluation/best-model.ts";
import { evaluationSchedule } from "../../../src/kto/evaluation/evaluation-plan.ts";
import { Evaluator, type EvaluatorOptions } from "../../../src/kto/evaluation/evaluator.ts";
import type { BatchExample } from "../../../src/kto/method/batch.ts";
import type { ObjectiveOptions } from "../../../src/kto/method/objective.ts";
import { mismatchedPairs } from "../../../src/kto/method/sampler.ts";
import { differenceInterval } from "../../../src/kto/report/statistics.ts";
import { KtoTrainer, type TrainerInputs, type TrainingStep } from "../../../src/kto/trainer.ts";
import { wholeArena } from "../../helpers/arenas.ts";
import { bits } from "../../helpers/compare.ts";
import { sharedDevice } from "../../helpers/device.ts";
import { float64Fixture, loadModel, readExamples } from "../../helpers/fixtures.ts";
import { freshPath, temporaryFolder } from "../../helpers/folders.ts";
import { exactTokenMetrics } from "../../helpers/token-metrics.ts";

const device = await sharedDevice();
const folder = temporaryFolder();
const reference = await loadModel(device, "llama", "reference");
afterAll(() => reference.free());

function randomExamples(count: number, seed: number): BatchExample[] {
  const random = new Random(seed);
  const ids = (length: number) => Array.from({ length }, () => 3 + random.below(87));
  return Array.from({ length: count }, (_, i) => ({
    promptIds: ids(1 + random.below(6)),
    completionIds: ids(2 + random.below(9)),
    label: i % 3 === 0,
  }));
}

describe("the numbers", () => {
  const exactPolicy = float64Fixture("llama", "policy");
  const exactReference = float64Fixture("llama", "reference");

  /** What docs/metrics.md says, in float64. */
  function exact(examples: readonly BatchExample[], batchSize: number, objective: ObjectiveOptions) {
    const { beta, lossType } = objective;
    const logProb = (prompt: ArrayLike<number>, completion: ArrayLike<number>) => ({
      policy: exactPolicy.logProb(prompt, completion),
      reference: exactReference.logProb(prompt, completion),
    });
    const schedule = evaluationSchedule(examples, { batchSize, mismatched: lossType === "kto" });
    const batches = schedule.map((rows) => {
      const batch = rows.flatMap((row) => examples[row] ?? []);
      const { pair, valid } = mismatchedPairs(batch);
      const own = batch.map((row) => logProb(row.promptIds, row.completionIds));
      const other = batch.map((row, i) => logProb(row.promptIds, batch[pair[i] ?? 0]?.completionIds ?? []));
      const point = referencePoint({
        policyLogProbs: other.map(({ policy }) => policy),
        referenceLogProbs: other.map((one) => one.reference),
        valid,
        lossType,
      });
      const { loss } = ktoObjective({
        policyLogProbs: own.map(({ policy }) => policy),
        referenceLogProbs: own.map((one) => one.reference),
        labels: batch.map(({ label }) => label),
        z0: point.z0,
        ...objective,
      });
      const rowsOf = batch.map(({ label }, i) => {
        const { policy = 0, reference = 0 } = own[i] ?? {};
        return { label, policy, ratio: policy - reference, z0: point.z0 };
      });
      return { loss, point, rows: rowsOf };
    });
    const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
    const rows = batches.flatMap((batch) => batch.rows);
    const of = (label: boolean) => rows.filter((row) => row.label === label);
    const measured = batches.filter(({ point }) => point.pairs > 0);
    const interval = differenceInterval(
      batches.map(({ rows: group }) => {
        const rewards = (label: boolean) => group.filter((row) => row.label === label).map(({ ratio }) => beta * ratio);
        const sum = (label: boolean) => rewards(label).reduce((total, reward) => total + reward, 0);
        return { counts: [rewards(true).length, rewards(false).length], sums: [sum(true), sum(false)] } as const;
      }),
    );
    expect(interval).toBeDefined();
    return {
      "eval_rewards/margins/low": interval?.low ?? 0,
      "eval_rewards/margins/high": interval?.high ?? 0,
      eval_loss: mean(batches.map(({ loss }) => loss)),
      eval_kl: mean(batches.map(({ point }) => point.z0)),
      ...(measured.length > 0 ? { "eval_kl/unclamped": mean(measured.map(({ point }) => point.unclamped)) } : {}),
      "eval_rewards/chosen": beta * mean(of(true).map(({ ratio }) => ratio)),
      "eval_rewards/rejected": beta * mean(of(false).map(({ ratio }) => ratio)),
      "eval_rewards/margins":
        beta * (mean(of(true).map(({ ratio }) => ratio)) - mean(of(false).map(({ ratio }) => ratio))),
      "eval_rewards/accuracies": mean(rows.map(({ label, ratio, z0 }) => ((label ? ratio > z0 : ratio < z0) ? 1 : 0))),
      "eval_logps/chosen": mean(of(true).map(({ policy }) => policy)),
      "eval_logps/rejected": mean(of(false).map(({ policy }) => policy)),
      ...Object.fromEntries(
        Object.entries(exactTokenMetrics(exactPolicy, examples)).map(([name, value]) => [`eval_${name}`, value]),
      ),
    };
  }

  it.each([
    ["microbatches of 4", { lossType: "kto", beta: 0.3, desirableWeight: 1.5, undesirableWeight: 1 }, 4],
    ["microbatches of 2 of an odd number", { lossType: "kto", beta: 0.1, desirableWeight: 1, undesirableWeight: 2 }, 2],
    ["microbatches of 1", { lossType: "kto", beta: 0.2, desirableWeight: 1, undesirableWeight: 1.2 }, 1],
    ["no reference point", { lossType: "apo_zero_unpaired", beta: 1, desirableWeight: 1, undesirableWeight: 1 }, 3],
  ] as const)("are those of the float64 objective: %s", async (_, objective, batchSize) => {
    const policy = await loadModel(device, "llama", "policy");
    const examples = [...readExamples("llama"), ...randomExamples(8, 3)];
    expect(examples.length % 2).toBe(1);
    const evaluator = new Evaluator({ policy, reference, examples, batchSize, objective, maxLength: 40 });
    try {
      const metrics = await evaluator.run();
      for (const [name, value] of Object.entries(exact(examples, batchSize, objective))) {
        expect(Math.abs((metrics[name] ?? Number.NaN) - value), name).toBeLessThan(1e-4 * Math.max(1, Math.abs(value)));
      }
      expect(metrics.eval_samples_per_second).toBeCloseTo(examples.length / (metrics.eval_runtime ?? 0), 6);
      const { eval_runtime, eval_samples_per_second, eval_steps_per_second, ...first } = metrics;
      expect(await evaluator.run()).toMatchObject(first); // nothing is carried over
    } finally {
      evaluator.free();
      policy.free();
    }
  });

  it("runs at the same time take turns: each has the numbers of one alone", async () => {
    const policy = await loadModel(device, "llama", "policy");
    const objective = { beta: 0.3, desirableWeight: 1, undesirableWeight: 1, lossType: "kto" } as const;
    const evaluator = new Evaluator({
      ...{ policy, reference, objective, batchSize: 2, maxLength: 40 },
      examples: randomExamples(9, 4),
    });
    try {
      const { eval_runtime, eval_samples_per_second, eval_steps_per_second, ...alone } = await evaluator.run();
      const aborted = evaluator.run({ signal: AbortSignal.abort("enough") }).catch((reason: unknown) => reason);
      const together = await Promise.all([evaluator.run(), aborted, evaluator.run()]);
      expect(together).toEqual([expect.objectContaining(alone), "enough", expect.objectContaining(alone)]);
    } finally {
      evaluator.free();
      policy.free();
    }
  });

  const few = randomExamples(4, 6);
  const constants = { beta: 0.3, desirableWeight: 1, undesirableWeight: 1, lossType: "kto" } as const;
  it.each<[string, Partial<EvaluatorOptions>, new (message: string) => Error, string]>([
    [
      "a token outside the vocabulary",
      { examples: [...few, { promptIds: [5], completionIds: [120], label: true }] },
      DatasetError,
      "Example 5 of 5 holds token id 120, outside the model's vocabulary of 120.",
    ],
    [
      "a row without a completion",
      { examples: [...few, { promptIds: [5], completionIds: [], label: true }] },
      DatasetError,
      "Example 5 of 5 has an empty completion; it needs one token or more.",
    ],
    [
      "a row longer than the length",
      {
        examples: [...few, { promptIds: [5, 6, 7], completionIds: new Array(14).fill(8), label: true }],
        maxLength: 16,
      },
      DatasetError,
      "Example 5 of 5 has 17 tokens, more than maxLength 16; cut or drop it.",
    ],
    ["a length", { maxLength: 1 }, ConfigError, "maxLength is 1; it must be a whole number of at least 2."],
    [
      "a beta",
      { objective: { ...constants, beta: Number.NaN } },
      ConfigError,
      "beta of the objective is NaN; it must be a number above 0.",
    ],
    [
      "a weight",
      { objective: { ...constants, undesirableWeight: 1e39 } },
      ConfigError,
      "undesirableWeight of the objective is 1e+39; it must be a number above 0.",
    ],
  ])("refuses %s that it cannot evaluate with", async (_, changes, kind, sentence) => {
    const policy = await loadModel(device, "llama", "policy");
    const before = device.memory();
    const options = { policy, reference, examples: few, batchSize: 2, objective: constants, maxLength: 40, ...changes };
    expect(() => new Evaluator(options)).toThrow(new kind(sentence));
    expect(device.memory()).toEqual(before);
    policy.free();
  });

  it("every row comes once, in the same microbatches each time, paired where pairs can be", () => {
    for (const [count, batchSize] of [
      [5, 2],
      [3, 2],
      [9, 4],
      [9, 1],
      [16, 8],
      [2, 8],
    ] as const) {
      const examples = randomExamples(count, count);
      const schedule = evaluationSchedule(examples, { batchSize, mismatched: true });
      expect(schedule.flat().sort((a, b) => a - b)).toEqual(examples.map((_, i) => i));
      expect(Math.min(...schedule.map(({ length }) => length))).toBeGreaterThanOrEqual(2);
      expect(evaluationSchedule(examples, { batchSize, mismatched: true })).toEqual(schedule);
    }
    // Pairs of one prompt stand together in files, and must not in microbatches.
    const pairs = randomExamples(8, 5).map((row, i, all) => ({
      ...row,
      promptIds: (all[i - (i % 2)] ?? row).promptIds,
    }));
    const schedule = evaluationSchedule(pairs, { batchSize: 4, mismatched: true });
    const valid = schedule.flatMap((rows) => mismatchedPairs(rows.flatMap((row) => pairs[row] ?? [])).valid);
    expect(valid.every(Boolean)).toBe(true);
  });
});

type Options = NonNullable<TrainerInputs["options"]>;
const evalExamples = randomExamples(7, 11);

interface Run {
  readonly steps: TrainingStep[];
  /** What is trained, at each step that was yielded and at the end. */
  readonly trained: Float32Array<ArrayBuffer>[];
  readonly trainer: KtoTrainer;
}

/** Trains the fixture's policy, with or without an adapter. */
async function train(
  options: Options,
  inputs: Partial<Pick<TrainerInputs, "evalExamples" | "outputFolder">> & { adapter?: boolean } = {},
): Promise<Run> {
  const { adapter: withAdapter, ...given } = inputs;
  const base = await loadModel(device, "llama", "policy");
  const adapter = LoraAdapter.create(device, base.config, { rank: 4, alpha: 8, dropout: 0.2, rslora: false });
  adapter.initialize(1);
  const policy = withAdapter ? base.withAdapter(adapter) : base;
  const examples = randomExamples(12, 2);
  let trainer: KtoTrainer | undefined;
  try {
    trainer = await KtoTrainer.create({ policy, examples, ...given, options });
    const run: Run = { steps: [], trained: [], trainer };
    for await (const step of trainer) {
      run.steps.push(step);
      run.trained.push(await device.download(wholeArena(policy.trained)));
    }
    return run;
  } finally {
    trainer?.free();
    adapter.free();
    base.free();
  }
}

const stepsEvaluated = ({ steps }: Run) => steps.flatMap(({ step, evaluation }) => (evaluation ? [step] : []));
const quick = { learning_rate: 1e-3, per_device_train_batch_size: 4, logging_steps: 3 };

describe("training", () => {
  it.each([
    ["all weights", {}, false],
    ["an adapter with dropout", { disable_dropout: false }, true],
  ])("gives the same bits with and without evaluation: %s", async (_, more, adapter) => {
    const options = { ...quick, ...more, max_steps: 5 };
    const plain = await train(options, { adapter });
    const evaluated = await train(
      { ...options, eval_steps: 1, eval_on_start: true, per_device_eval_batch_size: 3 },
      { adapter, evalExamples },
    );
    expect(stepsEvaluated(evaluated)).toEqual([0, 1, 2, 3, 4, 5]);
    expect(bits(evaluated.trained.at(-1) ?? new Float32Array())).toEqual(
      bits(plain.trained.at(-1) ?? new Float32Array()),
    );
    const told = (run: Run) =>
      run.steps.flatMap(({ metrics = {} }) => {
        const told = Object.entries(metrics).filter(
          ([name]) => !/^(bytes\/|(tokens_per_second|device_time_share)$)/.test(name),
        );
        return told.length > 0 ? [Object.fromEntries(told)] : [];
      });
    expect(told(evaluated)).toEqual(told(plain));
    const [start] = evaluated.steps;
    expect(start).toMatchObject({ step: 0, epoch: 0 });
    if (adapter) expect(start?.evaluation?.metrics).toMatchObject({ eval_loss: 0.5, "eval_rewards/margins": 0 });
  });

  it("evaluates by steps, by a share of the run, by epochs, and always at the end", async () => {
    const evaluated = async (options: Options) => {
      return stepsEvaluated(await train({ ...quick, max_steps: 7, ...options }, { evalExamples }));
    };
    expect(await evaluated({})).toEqual([3, 6, 7]); // logging_steps
    expect(await evaluated({ eval_steps: 2 })).toEqual([2, 4, 6, 7]);
    expect(await evaluated({ eval_steps: 0.5 })).toEqual([4, 7]);
    expect(await evaluated({ eval_strategy: "epoch", max_steps: 6 })).toEqual([3, 6]);
    expect(await evaluated({ eval_strategy: "no" })).toEqual([]);
  });

  it("evaluates once before the first update, however often the loop is left there", async () => {
    const policy = await loadModel(device, "llama", "policy");
    const options = { ...quick, max_steps: 1, eval_steps: 1, eval_on_start: true };
    const trainer = await KtoTrainer.create({ policy, examples: randomExamples(12, 2), evalExamples, options });
    const steps: number[] = [];
    for (let times = 0; times < 2; times++) {
      for await (const { step, evaluation } of trainer) {
        if (evaluation) steps.push(step);
        if (step === 0) break;
      }
    }
    expect(steps).toEqual([0, 1]);
    expect(trainer.log.filter((line) => "eval_loss" in line).map(({ step }) => step)).toEqual([0, 1]);
    trainer.free();
    policy.free();
  });

  it("stops early, tells why, and the best weights are back bit for bit", async () => {
    for (const adapter of [false, true]) {
      const outputFolder = freshPath(folder, "out");
      const run = await train(
        // The loss of rows that are not trained on gets worse where a rate is far too high.
        {
          ...quick,
          learning_rate: adapter ? 0.5 : 0.1,
          lr_scheduler_type: "constant",
          max_steps: 40,
          ...{ eval_steps: 1, load_best_model_at_end: true, early_stopping_patience: 3 },
        },
        { evalExamples, outputFolder, adapter },
      );
      const losses = run.steps.map(({ evaluation }) => evaluation?.metrics.eval_loss ?? Number.NaN);
      const best = losses.indexOf(Math.min(...losses));
      expect(run.steps.length).toBe(best + 1 + 3);
      expect(run.steps.map(({ evaluation }) => evaluation?.isBest).lastIndexOf(true)).toBe(best);
      expect(run.trainer.stopReason).toMatch(
        /^eval_loss has not improved in 3 evaluations in a row: its best is 0\.\d+ at step \d+\.$/,
      );
      expect(run.steps.at(-1)?.metrics).toBeDefined(); // the window that was begun
      expect(run.trainer.bestStep).toBe(best + 1);
      expect(bits(run.trained.at(-1) ?? new Float32Array())).toEqual(bits(run.trained[best] ?? new Float32Array()));
      const header = readFileSync(join(outputFolder, "best", "trained.safetensors")).toString("latin1", 8, 400);
      expect(header).toContain(`"step":"${best + 1}"`);
    }
  });

  it("best weights of another step are not put back, and ones that cannot be written do not end the run", async () => {
    const options = {
      ...{ ...quick, learning_rate: 0.1, lr_scheduler_type: "constant" as const, max_steps: 40 },
      ...{ eval_steps: 1, load_best_model_at_end: true, early_stopping_patience: 3 },
    };
    const { keep } = BestModel.prototype;
    const told = vi.spyOn(console, "warn").mockImplementation(() => undefined);
    const kept = vi.spyOn(BestModel.prototype, "keep");
    // A run that was killed and goes on from an earlier checkpoint finds the best weights of a later step.
    kept.mockImplementation(function (this: BestModel, about) {
      return keep.call(this, { ...about, step: about.step + 100 });
    });
    const other = await train(options, { evalExamples, outputFolder: freshPath(folder, "out") });
    expect(other.trainer.bestStep).toBeUndefined();
    expect(told.mock.lastCall?.[0]).toMatch(
      /^The best model cannot be put back: .+ holds the weights of step 1\d\d, not of step \d+\. The model is that of the last update\.$/,
    );
    expect(told.mock.calls.filter(([sentence]) => String(sentence).includes("cannot be put back"))).toHaveLength(1);
    kept.mockRejectedValue(new FileError("no space left on device"));
    const full = await train(options, { evalExamples, outputFolder: freshPath(folder, "out") });
    expect(full.steps.flatMap(({ evaluation }) => evaluation?.warning ?? [])[0]).toMatch(
      /^The best model so far, of step 1, was not kept: no space left on device/,
    );
    expect(full.trainer.bestStep).toBeUndefined();
    vi.restoreAllMocks();
  });

  it("without load_best_model_at_end the last weights stay, and nothing is written", async () => {
    const run = await train({ ...quick, max_steps: 2, eval_steps: 1 }, { evalExamples });
    expect(run.trainer.bestStep).toBeUndefined();
    expect(run.trainer.stopReason).toBeUndefined();
  });
});

describe("what a trainer refuses of an evaluation", () => {
  it.each<[string, Options, readonly BatchExample[], RegExp]>([
    ["bleu", {}, evalExamples, /: eval_loss, eval_kl, .*eval_rewards\/margins, .*eval_steps_per_second\.$/],
    ["eval_rewards/margins", {}, evalExamples.filter(({ label }) => label), /: eval_loss, .*eval_rewards\/chosen, /],
    ["kl/unclamped", { loss_type: "apo_zero_unpaired" }, evalExamples, /: eval_loss, eval_kl, eval_rewards/],
  ])("a metric_for_best_model that its rows will not have, before anything is computed: %s", async (...given) => {
    const [metric_for_best_model, more, rows, names] = given;
    const policy = await loadModel(device, "llama", "policy");
    const options = { ...quick, ...more, metric_for_best_model, max_steps: 1, eval_steps: 1 };
    const inputs = { policy, examples: randomExamples(12, 2), evalExamples: rows };
    const error = await KtoTrainer.create({ ...inputs, options }).catch((reason: unknown) => reason as Error);
    expect(error).toBeInstanceOf(ConfigError);
    const { message } = error as Error;
    expect(message).toMatch(
      /^metric_for_best_model is "eval_.*", which the evaluation of these rows does not have; give/,
    );
    expect(message).toMatch(names);
    // The names are those that an evaluation has.
    const trainer = await KtoTrainer.create({ ...inputs, options: { ...options, metric_for_best_model: "loss" } });
    expect(Object.keys(await trainer.evaluate())).toEqual(message.slice(message.indexOf(": ") + 2, -1).split(", "));
    trainer.free();
    policy.free();
  });

  it("options without rows, a metric that there is not, the best without a folder, rows that cannot be used", async () => {
    const refusal = async (options: Options, inputs: Parameters<typeof train>[1] = {}) => {
      const before = device.memory();
      const error = await train({ ...quick, max_steps: 2, ...options }, inputs).then(
        () => undefined,
        (reason: unknown) => reason as Error,
      );
      expect(device.memory()).toEqual(before);
      return error;
    };
    const without = await refusal({ eval_strategy: "steps" });
    expect(without).toBeInstanceOf(ConfigError);
    expect(without?.message).toMatch(/there are no rows to evaluate on: give evalExamples/);
    expect((await refusal({ early_stopping_patience: 1 }))?.message).toMatch(/the run does not evaluate/);
    expect((await refusal({ load_best_model_at_end: true }, { evalExamples }))?.message).toMatch(/give outputFolder/);
    const [first] = evalExamples as [BatchExample];
    const outside = await refusal({}, { evalExamples: [first, { ...first, completionIds: [500] }] });
    expect(outside).toBeInstanceOf(DatasetError);
    expect(outside?.message).toMatch(/^Example 2 of 2 holds token id 500/);
    const one = await refusal({}, { evalExamples: [first] });
    expect(one).toBeInstanceOf(DatasetError);
    expect(one?.message).toMatch(/^There is only 1 example to evaluate on, /);
    expect(await refusal({}, { evalExamples: [] })).toEqual(new DatasetError("There are no examples to evaluate on."));
  });
});
