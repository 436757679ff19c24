/**
 * What updates are said to have done with each example, against others' numbers: float64 PyTorch's log-ratios, kto
 * gradcheck's of the same rows, the float64 twin of the objective. With every kind of reference and of accumulation.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Model } from "../../src/engine/model/model.ts";
import { ktoObjective } from "../../src/kernels/float64/kto-objective.ts";
import { checkGradients } from "../../src/kto/gradcheck.ts";
import { exampleLog, type LoggedRow, MOST_EXAMPLES } from "../../src/kto/method/example-log.ts";
import type { TrainerOptions } from "../../src/kto/options/kto.ts";
import { type ExampleLine, exampleLineSchema, logsExamples } from "../../src/kto/run/example-line.ts";
import { KtoTrainer } from "../../src/kto/trainer.ts";
import { sharedDevice } from "../helpers/device.ts";
import { loadModel, readExamples, readExpected } from "../helpers/fixtures.ts";
import { LOG_PROB } from "../helpers/tolerances.ts";

const device = await sharedDevice();
const expected = readExpected("llama");
const rows = readExamples("llama");
const { beta, desirable_weight, undesirable_weight } = expected.hyperparameters;
const weights = { desirableWeight: desirable_weight, undesirableWeight: undesirable_weight };
const objective = { beta, ...weights, lossType: "kto" } as const;
let policy: Model;
let reference: Model;

beforeAll(async () => {
  policy = await loadModel(device, "llama", "policy");
  reference = await loadModel(device, "llama", "reference");
});

afterAll(() => {
  policy.free();
  reference.free();
});

/** What the first update did with each example; it leaves the model as it was. */
async function logged(options: Partial<TrainerOptions>, given: Model | null = reference): Promise<ExampleLine> {
  const trainer = await KtoTrainer.create({
    ...{ policy, examples: rows, ...(given ? { reference: given } : {}) },
    options: {
      ...{ beta, desirable_weight, undesirable_weight, max_steps: 1, logging_steps: 1, learning_rate: 0 },
      ...{ per_device_train_batch_size: rows.length, ...options },
    },
  });
  try {
    let found: ExampleLine | undefined;
    for await (const { examples } of trainer) found = examples;
    return exampleLineSchema.parse(JSON.parse(JSON.stringify(found)));
  } finally {
    trainer.free();
  }
}

function expectNear(found: readonly (number | null)[], wanted: readonly number[], within: number): void {
  expect(found).toHaveLength(wanted.length);
  found.forEach((value, i) => {
    expect(Math.abs((value ?? Number.NaN) - (wanted[i] ?? Number.NaN)), `value ${i}`).toBeLessThan(within);
  });
}

/** u and v are the twin's of the log-ratio and reference point beside them. */
function expectTwin(line: ExampleLine): void {
  for (const [at, ratio] of line.log_ratio.entries()) {
    const twin = ktoObjective({
      ...{ ...objective, policyLogProbs: [ratio ?? 0], referenceLogProbs: [0] },
      ...{ labels: [line.label[at] ?? false], z0: line.z0[line.group[at] ?? 0] ?? 0 },
    });
    expect(line.u[at]).toBeCloseTo(twin.utilities[0] ?? 0, 5);
    expect(line.v[at]).toBeCloseTo(twin.values[0] ?? 0, 5);
  }
}

describe("one microbatch", () => {
  test("has PyTorch's log-ratios, gradcheck's reference point, the twin's u and v", async () => {
    const line = await logged({});
    expect(line.rows).toBe(rows.length);
    expect([...line.index].sort((a, b) => a - b)).toEqual(rows.map((_, index) => index));
    expect(line.label).toEqual(line.index.map((index) => rows[index]?.label));
    expectNear(
      line.log_ratio,
      line.index.map((index) => expected.log_ratio[index] ?? 0),
      LOG_PROB,
    );
    const examples = line.index.flatMap((index) => rows[index] ?? []);
    const check = await checkGradients({ policy, reference, examples, objective });
    expectNear(line.log_ratio, check.logRatio, 1e-5);
    expectNear(line.z0, [check.kl], 1e-5);
    expectNear(line.z0_unclamped, [check.klUnclamped], 1e-5);
    expectTwin(line);
    expect(line.saturated).toEqual(line.u.map((u) => Math.cosh((u ?? 0) / 2) ** -2 / 4 < 0.01));
  });
});

describe("several microbatches", () => {
  const accumulated = { per_device_train_batch_size: 2, gradient_accumulation_steps: 2 };

  test("each has a reference point of its own", async () => {
    const line = await logged({ ...accumulated, reference_point_scope: "microbatch" });
    expect(line.z0).toHaveLength(2);
    expectTwin(line);
    for (const [group, z0] of line.z0.entries()) {
      const examples = line.index.filter((_, at) => line.group[at] === group).flatMap((index) => rows[index] ?? []);
      const check = await checkGradients({ policy, reference, examples, objective });
      expectNear([z0], [check.kl], 1e-5);
      expectNear(
        line.log_ratio.filter((_, at) => line.group[at] === group),
        check.logRatio,
        1e-5,
      );
    }
  });

  test.each([
    ["a live reference", {}],
    ["a cached one", { precompute_ref_log_probs: true }],
  ])("or one of the whole update, with %s", async (_, options) => {
    const gradient_accumulation_steps = Math.ceil(rows.length / 2);
    const line = await logged({
      ...accumulated,
      ...options,
      gradient_accumulation_steps,
      reference_point_scope: "step",
    });
    const examples = line.index.flatMap((index) => rows[index] ?? []);
    expect(examples).toHaveLength(rows.length);
    const check = await checkGradients({ policy, reference, examples, objective });
    expectNear(line.z0, [check.kl], 1e-5);
    expectNear(line.z0_unclamped, [check.klUnclamped], 1e-5);
    expectNear(line.log_ratio, check.logRatio, 1e-5);
    expect(line.pairs).toEqual([rows.length]);
    expectTwin(line);
  });
});

test("without a reference point z0 is 0, and there is no mean before the clamp", async () => {
  const line = await logged({ loss_type: "apo_zero_unpaired" });
  expect(line).toMatchObject({ z0: [0], z0_unclamped: [null], pairs: [0] });
  expectTwin(line);
});

test("against the uniform reference rewards are log-probs and z0 is below 0, unclamped", async () => {
  const line = await logged({ reference: "uniform" }, null);
  expect(line.z0[0]).toBeLessThan(0);
  expect(line.z0).toEqual(line.z0_unclamped);
  expectNear(
    line.log_ratio,
    line.index.map((index) => expected.policy_logps[index] ?? 0),
    LOG_PROB,
  );
  expectTwin(line);
});

test("is left out where it is not wanted, and the training is the same, bit by bit", async () => {
  const run = async (log_examples: boolean) => {
    const own = await loadModel(device, "llama", "policy");
    const options = { max_steps: 3, logging_steps: 1, learning_rate: 1e-3, log_examples };
    const trainer = await KtoTrainer.create({ policy: own, reference, examples: rows, options });
    const lines: (ExampleLine | undefined)[] = [];
    for await (const { examples } of trainer) lines.push(examples);
    const logits = trainer.log.map(({ loss, grad_norm, entropy }) => [loss, grad_norm, entropy]);
    trainer.free();
    own.free();
    return { lines, logits };
  };
  const [without, having] = [await run(false), await run(true)];
  expect(without.lines).toEqual([undefined, undefined, undefined]);
  expect(having.lines.map((line) => line?.step)).toEqual([1, 2, 3]);
  expect(having.logits).toEqual(without.logits);
});

test("rows are saturated on both sides of the sigmoid, whatever their class", () => {
  const labels = [true, true, true, false, false, false];
  // Utilities of -20, 0.5 and 20, at a reference point of 0.
  const rows = [-20, 0.5, 20, 20, -0.5, -20].map((u, i): LoggedRow => {
    return { label: labels[i] ?? false, valid: true, example: [u / objective.beta, 0], pair: [0, 0] };
  });
  const log = exampleLog([rows], objective);
  expect(log.examples.map(({ u }) => Math.round(10 * u) / 10)).toEqual([-20, 0.5, 20, -20, 0.5, 20]);
  expect(log.examples.map(({ saturated }) => saturated)).toEqual([true, false, true, true, false, true]);
});

describe("is bounded", () => {
  test("of an update with many examples some are logged, measured against the reference point of all", () => {
    const policyLogProbs = Array.from({ length: 3 * MOST_EXAMPLES }, (_, i) => Math.sin(i));
    const many = policyLogProbs.map((value, i): LoggedRow => {
      return { label: i % 3 === 0, valid: i % 5 > 0, example: [value, 0], pair: [value + 1, 0] };
    });
    const log = exampleLog([many], objective);
    expect(log.rows).toBe(many.length);
    expect(log.examples.map(({ place }) => place)).toEqual(Array.from({ length: MOST_EXAMPLES }, (_, i) => 3 * i));
    const counted = policyLogProbs.filter((_, i) => many[i]?.valid);
    const mean = counted.reduce((sum, value) => sum + value + 1, 0) / counted.length;
    expect(log.referencePoints[0]?.unclamped).toBeCloseTo(mean, 12);
    expect(log.examples.map(({ logRatio }) => logRatio)).toEqual(
      Array.from({ length: MOST_EXAMPLES }, (_, i) => policyLogProbs[3 * i]),
    );
  });

  test.each([
    [60, 1, 60],
    [1000, 1, 1000],
    [100_000, 1, 1001],
    [100_000, 10, 1001],
    [7, 3, 4],
  ])("of %d updates, logged every %d, %d are logged with their examples", (total, every, wanted) => {
    const steps = Array.from({ length: total }, (_, i) => i + 1).filter((step) => logsExamples(step, total, every));
    expect(steps.length).toBe(wanted);
    expect([steps[0], steps.at(-1)]).toEqual([1, total]);
  });
});
