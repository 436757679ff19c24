/**
 * Where the reference's log-probabilities come from changes nothing but memory and work: copied, adapter off and cached
 * give one run; uniform is a constant reference; what a cache was made from must be what it is used for.
 */
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { LoraAdapter } from "../../../src/engine/model/lora.ts";
import { Random } from "../../../src/engine/random.ts";
import { ConfigError } from "../../../src/errors.ts";
import { type BatchExample, packBatch, packUpdate } from "../../../src/kto/method/batch.ts";
import { ktoFloat64Gradient } from "../../../src/kto/method/float64/gradient.ts";
import { completionLogProbs } from "../../../src/kto/method/log-probs.ts";
import type { Metrics } from "../../../src/kto/method/metrics.ts";
import { mismatchedPairs } from "../../../src/kto/method/sampler.ts";
import { Update } from "../../../src/kto/method/update.ts";
import type { UpdateReference } from "../../../src/kto/method/update-options.ts";
import { KtoTrainer, type TrainerInputs } from "../../../src/kto/trainer.ts";
import { wholeArena } from "../../helpers/arenas.ts";
import { expectWithin } from "../../helpers/compare.ts";
import { sharedDevice } from "../../helpers/device.ts";
import { float64Fixture, loadModel, relativeDistance } from "../../helpers/fixtures.ts";
import { temporaryFolder } from "../../helpers/folders.ts";
import { gradientsOf, noOptimizer, shapesOfBatch } from "../../helpers/step.ts";

const device = await sharedDevice();
const folder = temporaryFolder();
const models = {
  policy: await loadModel(device, "llama", "policy"),
  reference: await loadModel(device, "llama", "reference"),
};
afterAll(() => {
  models.policy.free();
  models.reference.free();
});

let cache = "";
beforeEach(() => {
  cache = mkdtempSync(join(folder, "cache-"));
  vi.stubEnv("KTO_CACHE", cache);
});
afterEach(() => vi.unstubAllEnvs());
const cachedFile = () => join(cache, "reference", readdirSync(join(cache, "reference")).at(-1) ?? "");

/** Rows of random tokens, none of them alike. */
function randomExamples(count: number, seed: number): BatchExample[] {
  const random = new Random(seed);
  const ids = (from: number, to: number) =>
    Array.from({ length: from + random.below(to - from + 1) }, () => 3 + random.below(87));
  return Array.from({ length: count }, (_, i) => ({
    promptIds: ids(1, 9),
    completionIds: ids(2, 14),
    label: i % 3 !== 2,
  }));
}
const examples = randomExamples(11, 5);

/** The same numbers from two runs that differ in no arithmetic but the reference's source. */
const SAME = 1e-6;

const options = {
  beta: 0.1,
  desirable_weight: 1.5,
  learning_rate: 1e-3,
  lr_scheduler_type: "constant",
  logging_steps: 1,
  per_device_train_batch_size: 3,
  gradient_accumulation_steps: 2,
  max_steps: 5, // more than two epochs
} as const;

interface Run {
  readonly metrics: Metrics[];
  /** The gradients of the last update. */
  readonly gradients: Float32Array;
  readonly memory: Readonly<Record<string, number>>;
  readonly note: string | undefined;
  readonly isKept: boolean;
}

async function train(inputs: TrainerInputs): Promise<Run> {
  const trainer = await KtoTrainer.create(inputs);
  try {
    const metrics: Metrics[] = [];
    for await (const step of trainer) if (step.metrics) metrics.push(step.metrics);
    return {
      metrics,
      gradients: await device.download(wholeArena(trainer.update.optimizer.gradients)),
      memory: device.memory(),
      note: trainer.referenceNote,
      isKept: trainer.referenceIsKept,
    };
  } finally {
    trainer.free();
  }
}

/** A run from the fixture's policy, as it was loaded. */
async function trainWhole(changes: TrainerInputs["options"], reference?: TrainerInputs["reference"]): Promise<Run> {
  const policy = await loadModel(device, "llama", "policy");
  try {
    const own = { ...options, ...changes };
    return await train({ policy, ...(reference ? { reference } : {}), examples, options: own });
  } finally {
    policy.free();
  }
}

async function trainAdapter(changes: TrainerInputs["options"]): Promise<Run> {
  const lora = { rank: 4, alpha: 8, dropout: 0, rslora: false, targetModules: "all-linear" as const };
  const adapter = LoraAdapter.create(device, models.policy.config, lora);
  adapter.initialize(3);
  try {
    const policy = models.policy.withAdapter(adapter);
    return await train({ policy, examples, options: { ...options, learning_rate: 1e-2, ...changes } });
  } finally {
    adapter.free();
  }
}

function expectSameRun(found: Run, wanted: Run): void {
  expect(wanted.metrics).toHaveLength(options.max_steps);
  wanted.metrics.forEach((metrics, step) => {
    for (const name of ["loss", "kl", "kl/unclamped", "grad_norm", "rewards/chosen", "rewards/margins"]) {
      const value = metrics[name] ?? Number.NaN;
      expectWithin(`${name} of update ${step + 1}`, [found.metrics[step]?.[name] ?? Number.NaN], [value], () => SAME);
    }
  });
  expect(relativeDistance(found.gradients, Float64Array.from(wanted.gradients))).toBeLessThanOrEqual(SAME);
  // They moved, and not by the reference alone.
  expect(Math.abs(wanted.metrics.at(-1)?.["rewards/margins"] ?? 0)).toBeGreaterThan(1e-3);
}

describe.each(["microbatch", "step"] as const)("with reference_point_scope %s", (reference_point_scope) => {
  it("cached and copied references make the same run, and the cached one takes no memory", async () => {
    const copied = await trainWhole({ reference: "copy", reference_point_scope });
    const cached = await trainWhole({ precompute_ref_log_probs: true, reference_point_scope });
    expectSameRun(cached, copied);
    const extra = copied.memory["reference weights"] ?? 0;
    // The other fixture of this file stays loaded as "weights".
    expect(extra).toBeGreaterThan(0);
    expect(cached.memory).not.toHaveProperty("reference weights");
    const computed = [cached, copied].map(({ metrics }) => metrics.at(-1)?.tokens_computed ?? 0);
    const [policy = 0, both = 0] = computed;
    // With one reference point an update the policy runs the prompts of an update of several microbatches twice.
    if (reference_point_scope === "microbatch") expect(policy).toBe(both / 2);
    else expect(policy).toBeGreaterThan(both / 2);
    expect(policy).toBeLessThan(0.6 * both);
  });

  it("so do they with a reference model of its own", async () => {
    const live = await trainWhole({ reference_point_scope }, models.reference);
    const cached = await trainWhole({ reference: "cached", reference_point_scope }, models.reference);
    expectSameRun(cached, live);
  });

  it("and, for an adapter, the model without it", async () => {
    const off = await trainAdapter({ reference: "base", reference_point_scope });
    const copied = await trainAdapter({ reference: "copy", reference_point_scope });
    const cached = await trainAdapter({ reference: "cached", reference_point_scope });
    expectSameRun(copied, off);
    expectSameRun(cached, off);
    expect(off.memory).not.toHaveProperty("reference weights");
  });
});

it("a cached reference that is the trainer's own is freed before the run is allocated", async () => {
  const policy = await loadModel(device, "llama", "policy");
  const weights = () => device.memory().weights ?? 0;
  const alone = weights();
  for (const ownsReference of [true, false]) {
    const reference = await loadModel(device, "llama", "reference");
    const both = weights();
    expect(both).toBeGreaterThan(alone);
    const held: number[] = [];
    const { allocate } = device;
    vi.spyOn(device, "allocate").mockImplementation((...args) => {
      if (args[0] === "optimizer") held.push(weights()); // nothing but the run has any of that
      return allocate.apply(device, args);
    });
    const trainer = await KtoTrainer.create({
      ...{ policy, reference, ownsReference, examples },
      options: { ...options, reference: "cached" },
    });
    expect(held[0]).toBe(ownsReference ? alone : both);
    vi.restoreAllMocks();
    trainer.free();
    reference.free();
  }
  policy.free();
});

describe("evaluation with cached log-probabilities", () => {
  const evalExamples = randomExamples(7, 8);
  const evaluated = { eval_steps: 2, eval_on_start: true, per_device_eval_batch_size: 3, max_length: 20 } as const;

  /** The evaluations of a run over the fixture's policy, or over an adapter of it. */
  async function evaluate(reference: "copy" | "cached", own?: TrainerInputs["reference"], withAdapter = false) {
    const base = await loadModel(device, "llama", "policy");
    const adapter = LoraAdapter.create(device, base.config, { rank: 4, alpha: 8, dropout: 0, rslora: false });
    adapter.initialize(3);
    const trainer = await KtoTrainer.create({
      policy: withAdapter ? base.withAdapter(adapter) : base,
      ...(own ? { reference: own } : {}),
      examples: examples.filter((row) => row.promptIds.length + row.completionIds.length <= 20),
      evalExamples: evalExamples.filter((row) => row.promptIds.length + row.completionIds.length <= 20),
      options: { ...options, ...evaluated, reference },
    });
    try {
      const memory = device.memory();
      const evaluations: Metrics[] = [];
      for await (const { evaluation } of trainer) if (evaluation) evaluations.push(evaluation.metrics);
      const now = await trainer.evaluate();
      return { evaluations, now, memory, note: trainer.referenceNote };
    } finally {
      trainer.free();
      adapter.free();
      base.free();
    }
  }

  it.each([
    ["a copy", undefined, false],
    ["a reference model of its own", models.reference, false],
    ["the model without its adapter", undefined, true],
  ] as const)("tells what it tells with %s, without that model in memory", async (_, own, withAdapter) => {
    const live = await evaluate("copy", own, withAdapter);
    const cached = await evaluate("cached", own, withAdapter);
    expect(live.evaluations).toHaveLength(4); // steps 0, 2, 4, 5
    live.evaluations.forEach((metrics, index) => {
      const found = cached.evaluations[index] ?? {};
      expect(Object.keys(found)).toEqual(Object.keys(metrics));
      for (const [name, value] of Object.entries(metrics)) {
        if (!/runtime|per_second/.test(name)) expectWithin(name, [found[name] ?? Number.NaN], [value], () => SAME);
      }
    });
    expect(cached.now["eval_rewards/margins"]).toBe(cached.evaluations.at(-1)?.["eval_rewards/margins"]);
    expect(Math.abs(cached.now["eval_rewards/margins"] ?? 0)).toBeGreaterThan(1e-3);
    expect(cached.memory).not.toHaveProperty("reference weights");
    if (own === undefined) expect(live.memory["reference weights"]).toBeGreaterThan(0);
    expect(cached.note).toMatch(
      /^log-probabilities of the reference computed for 5 updates; .*; log-prob.* computed for \d evaluation microbatches; /,
    );
    expect((await evaluate("cached", own, withAdapter)).note).toMatch(
      /^log-probabilities of the reference read from .*; log-probabilities of the reference read from /,
    );
  });

  it("computes nothing for rows on which a run does not evaluate", async () => {
    const policy = await loadModel(device, "llama", "policy");
    const own = { ...options, reference: "cached", eval_strategy: "no" } as const;
    const trainer = await KtoTrainer.create({ policy, examples, evalExamples, options: own });
    expect(trainer.referenceNote).not.toContain("evaluation");
    trainer.free();
    policy.free();
  });
});

describe("the cache of log-probabilities", () => {
  const read = /^log-probabilities of the reference read from /;
  const written = /^log-probabilities of the reference computed for 5 updates; they are kept in /;
  const run = (changes: TrainerInputs["options"] = {}) => trainWhole({ reference: "cached", ...changes });

  it("is found again by a run of the same model, data and schedule, whatever else differs", async () => {
    const first = await run();
    expect(first.note).toMatch(written);
    const again = await run();
    expect(again.note).toMatch(read);
    expectSameRun(again, first);
    expect((await run({ beta: 0.3, learning_rate: 1e-4, undesirable_weight: 2 })).note).toMatch(read);
    expect((await run({ overwrite_cache: true })).note).toMatch(written);
  });

  it.each([
    ["seed", { seed: 7 }],
    ["batch size", { per_device_train_batch_size: 4 }],
    ["accumulation", { gradient_accumulation_steps: 1 }],
    ["order", { shuffle_dataset: false }],
    ["grouping", { group_by_length: true }],
    ["cut", { max_length: 23 }],
    ["loss without pairs", { loss_type: "apo_zero_unpaired" as const }],
  ])("notices another %s", async (_name, changes) => {
    await run();
    expect((await run(changes)).note).toMatch(written);
  });

  it("notices one token of the data, and one weight of the model", async () => {
    const policy = await loadModel(device, "llama", "policy");
    const own = { ...options, learning_rate: 0, reference: "cached" } as const;
    try {
      await train({ policy, examples, options: own });
      expect((await train({ policy, examples, options: own })).note).toMatch(read);
      const [first, ...rest] = examples as [BatchExample, ...BatchExample[]];
      const changed = { ...first, completionIds: [...Array.from(first.completionIds).slice(0, -1), 4] };
      expect((await train({ policy, examples: [changed, ...rest], options: own })).note).toMatch(written);
      const weight = policy.weights.at({ segment: 0, offset: 1000 }, [1]);
      const [value = 0] = await device.download(weight);
      device.upload(weight, Float32Array.of(value + 1e-3));
      expect((await train({ policy, examples, options: own })).note).toMatch(written);
    } finally {
      policy.free();
    }
  });

  it("is passed over where it is damaged, shortened or cannot be written", async () => {
    const first = await run();
    const whole = readFileSync(cachedFile());
    const broken = Buffer.from(whole);
    broken[5] = (broken[5] ?? 0) ^ 1;
    for (const content of [broken, whole.subarray(0, 80), Buffer.alloc(0)]) {
      writeFileSync(cachedFile(), content);
      const again = await run();
      expect(again.isKept).toBe(true);
      expect(again.note).toMatch(written);
      expectSameRun(again, first);
    }
    const file = join(folder, "file");
    writeFileSync(file, "");
    vi.stubEnv("KTO_CACHE", file);
    expect(await run()).toMatchObject({ note: expect.stringMatching(/they are not kept: .+/), isKept: false });
  });
});

describe("uniform", () => {
  const batch = examples.slice(0, 8);
  const packed = packBatch(batch, { mismatched: true, maxLength: 1000 });
  const objective = { beta: 0.1, desirableWeight: 1.5, undesirableWeight: 0.75, lossType: "kto" } as const;

  async function gradients(
    reference: UpdateReference,
    batches: Parameters<typeof gradientsOf>[1],
    scope: "microbatch" | "step" = "microbatch",
  ) {
    const step = new Update({
      policy: models.policy,
      reference,
      shapes: batches.flatMap(shapesOfBatch),
      maxSize: 8,
      maxUpdateRows: 8,
      objective,
      optimizer: noOptimizer,
      referencePointScope: scope,
    });
    try {
      return await gradientsOf(step, batches);
    } finally {
      step.free();
    }
  }

  /** A power of two below all log-probabilities, so that f32 loses little by the difference. */
  const CONSTANT = -256;

  it("equals a reference whose log-probabilities are all one constant, low enough for the clamp not to act", async () => {
    const uniform = await gradients("uniform", [packed]);
    const referenceLogProbs = new Float32Array(16).fill(CONSTANT);
    const constant = await gradients("cached", [{ ...packed, referenceLogProbs }]);
    expect(constant.kl).toBeGreaterThan(0);
    expectWithin("z0", [uniform.kl - CONSTANT], [constant.kl], () => 1e-4);
    expectWithin("loss", [uniform.loss], [constant.loss], () => SAME);
    expect(relativeDistance(uniform.coefficients, Float64Array.from(constant.coefficients))).toBeLessThanOrEqual(
      3 * SAME,
    );
    expectWithin("gradients", uniform.gradients, constant.gradients, () => SAME);
  });

  it("follows float64, which agrees with that constant to 1e-6", async () => {
    const { pair, valid } = mismatchedPairs(batch);
    const inputs = { policy: float64Fixture("llama", "policy"), examples: batch, pairs: pair, pairValid: valid };
    const reference = { logProb: () => CONSTANT };
    const exact = ktoFloat64Gradient({ ...inputs, ...objective, reference, referenceKind: "uniform" });
    const constant = ktoFloat64Gradient({ ...inputs, ...objective, reference });
    expect(Math.abs(exact.loss - constant.loss)).toBeLessThan(1e-12);
    for (const [name, gradient] of exact.gradients) {
      expect(relativeDistance(gradient, constant.gradients.get(name) ?? []), name).toBeLessThan(1e-10);
    }
    const found = await gradients("uniform", [packed]);
    expectWithin("z0", [found.kl], [exact.kl], () => 1e-4);
    expect(exact.kl).toBeLessThan(0);
    expectWithin("loss", [found.loss], [exact.loss], () => 1e-5);
    for (const [name, gradient] of found.tensors) {
      expect(relativeDistance(gradient, exact.gradients.get(name) ?? []), name).toBeLessThan(1e-3);
    }
  });

  it("the trainer has no reference in memory and runs one model", async () => {
    const run = await trainWhole({ reference: "uniform" });
    const copied = await trainWhole({ reference: "copy" });
    expect(run.memory).not.toHaveProperty("reference weights");
    expect(run.metrics.at(-1)?.tokens_computed).toBe((copied.metrics.at(-1)?.tokens_computed ?? 0) / 2);
    expect(run.metrics[0]?.kl).toBeLessThan(0);
    expect(run.metrics[0]?.kl).toBe(run.metrics[0]?.["kl/unclamped"]);
  });

  it("accumulates to the step's reference point: 4 microbatches of 2 equal 8 rows at once, in every mode", async () => {
    const rows = randomExamples(8, 2);
    const pairsOf = (i: number) => ({ completionIds: rows[(i + 1) % 8]?.completionIds ?? [] });
    const options = { mismatched: true, maxLength: 1000 };
    const whole = packBatch(rows, options);
    const microbatches = packUpdate(
      [0, 2, 4, 6].map((first) => rows.slice(first, first + 2)),
      options,
      "step",
    );
    const own = await completionLogProbs(models.reference, rows);
    const pairs = await completionLogProbs(
      models.reference,
      rows.map(({ promptIds }, i) => ({ promptIds, ...pairsOf(i) })),
    );
    const numbers = (from: number, to: number) => Float32Array.from([...own.slice(from, to), ...pairs.slice(from, to)]);
    for (const reference of [models.reference, "cached", "uniform"] as const) {
      const attach = <B extends object>(batch: B, from: number, to: number) =>
        reference === "cached" ? { ...batch, referenceLogProbs: numbers(from, to) } : batch;
      const once = await gradients(reference, [attach(whole, 0, 8)]);
      const accumulated = await gradients(
        reference,
        microbatches.map((microbatch, k) => attach(microbatch, 2 * k, 2 * k + 2)),
        "step",
      );
      expectWithin("loss", [accumulated.loss], [once.loss], () => SAME);
      expectWithin("gradients", accumulated.gradients, once.gradients, () => SAME);
    }
  });
});

describe("what is computed", () => {
  it("without a reference point no mismatched pair is run: the tokens of the examples alone, once a model", async () => {
    const own = { reference: "copy", learning_rate: 0, max_steps: 1, per_device_train_batch_size: 11 } as const;
    const kto = await trainWhole(own);
    const zero = await trainWhole({ ...own, loss_type: "apo_zero_unpaired" });
    const sum = (count: (row: BatchExample) => number) => examples.reduce((total, row) => total + count(row), 0);
    const rows = sum(({ promptIds, completionIds }) => promptIds.length + completionIds.length - 1);
    const branches = sum(({ completionIds }) => completionIds.length - 1);
    expect(zero.metrics[0]?.tokens_computed).toBe(2 * rows);
    expect(kto.metrics[0]?.tokens_computed).toBe(2 * (rows + branches));
    expect(zero.metrics[0]?.num_tokens).toBe(kto.metrics[0]?.num_tokens);
  });
});

describe("references that cannot be", () => {
  it.each([
    [{ reference: "base" }, false, /"base", but the model has no adapter to take off: set use_peft true/],
    [{ reference: "base" }, true, /"base", the model without its adapter, but another reference model/],
    [{ reference: "uniform" }, true, /"uniform", which needs no reference model, but one is given/],
    [{ reference: "uniform", loss_type: "kto_zero" }, false, /measured on mismatched pairs, but loss_type "apo_zero_/],
    [
      { reference: "uniform", precompute_ref_log_probs: true },
      false,
      /"precompute_ref_log_probs" is true, but reference "uniform" has no model to compute them with/,
    ],
  ])("%j, own model %s", async (changes, given, message) => {
    const inputs = { policy: models.policy, examples, ...(given ? { reference: models.reference } : {}) };
    const made = KtoTrainer.create({ ...inputs, options: { ...options, ...(changes as TrainerInputs["options"]) } });
    await expect(made).rejects.toThrow(message);
    await expect(made).rejects.toThrow(ConfigError);
  });
});
