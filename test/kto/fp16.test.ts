/**
 * Activations in f16: gradients near float64's, runs that follow f32's, the same bits however they are reached, the
 * memory that it is for, and what is said where it cannot be. Without the feature there is only the refusal to test.
 */
import { describe, expect, it } from "vitest";
import { Device } from "../../src/engine/gpu/device.ts";
import { planningDevice } from "../../src/engine/gpu/memory-plan.ts";
import { elementCount } from "../../src/engine/gpu/tensor.ts";
import { layerKinds } from "../../src/engine/model/activations.ts";
import { parseModelConfig } from "../../src/engine/model/config/config.ts";
import { PassMemory } from "../../src/engine/model/decoder.ts";
import { LoraAdapter } from "../../src/engine/model/lora.ts";
import { Model } from "../../src/engine/model/model.ts";
import { Random } from "../../src/engine/random.ts";
import { AdapterError } from "../../src/errors.ts";
import type { BatchExample } from "../../src/kto/method/batch.ts";
import type { Metrics } from "../../src/kto/method/metrics.ts";
import { SftTrainer } from "../../src/kto/sft-trainer.ts";
import { KtoTrainer, type TrainerInputs } from "../../src/kto/trainer.ts";
import { wholeArena } from "../helpers/arenas.ts";
import { bits, expectWithin, normals } from "../helpers/compare.ts";
import { ALL_SHAPES, activationFormats, sharedDevice } from "../helpers/device.ts";
import { fp16Errors } from "../helpers/families.ts";
import { FAMILY_FIXTURES, FIXTURES, loadModel, readExamples, relativeDistance } from "../helpers/fixtures.ts";
import { temporaryFolder } from "../helpers/folders.ts";
import { FAMILY_CONFIGS, llamaConfig, randomModel } from "../helpers/models.ts";
import { microbatchGradients, type Passes } from "../helpers/step.ts";
import { boundsOf, ROUNDED_GRADIENT, ROUNDED_LOSS, roundedLogProb } from "../helpers/tolerances.ts";

const device = await sharedDevice();
const offered = (await activationFormats()).includes("f16");
const folder = temporaryFolder();

/** The errors allowed to log-probabilities of the tests' rows of up to 16 tokens, in nats. */
const LOG_PROB = roundedLogProb(16);

const objective = { beta: 0.1, desirableWeight: 1, undesirableWeight: 1.2, lossType: "kto" } as const;

const gradients = (policy: Model, reference: Model, examples: readonly BatchExample[], passes: Passes) =>
  microbatchGradients(policy, reference, objective, examples, passes);

// Each family compiles the f16 texts of its own layers: some of them everywhere, the rest with all shapes.
const usual = [...FIXTURES, ...FAMILY_FIXTURES].filter((name) => {
  return ALL_SHAPES || ["gpt2", "qwen3", "lfm2"].includes(name);
});
const families = Object.entries(FAMILY_CONFIGS).filter(([name]) => ALL_SHAPES || name === "qwen3");

describe.runIf(offered).each(usual)("%s in f16 against float64 PyTorch", (name) => {
  it("log-probabilities, loss and every gradient tensor", async () => {
    const policy = await loadModel(device, name, "policy");
    const reference = await loadModel(device, name, "reference");
    try {
      const errors = await fp16Errors(name, policy, reference);
      expect(errors.loss).toBeLessThanOrEqual(ROUNDED_LOSS);
      // It is f16: f32 comes a hundred times nearer.
      expect(errors.loss).toBeGreaterThan(1e-6);
      if (boundsOf(name).isSteep) return;
      expect(errors.logProbs).toBeLessThanOrEqual(1);
      expect(errors.gradient, errors.worst).toBeLessThanOrEqual(ROUNDED_GRADIENT);
    } finally {
      policy.free();
      reference.free();
    }
  });
});

const random = new Random(12);
const ids = (length: number) => Array.from({ length }, () => 3 + random.below(90));
/** Longer than every sliding window. */
const examples = [
  [3, 9],
  [1, 12],
  [11, 4],
  [6, 1],
].map(([prompt = 0, completion = 0], i) => ({
  promptIds: ids(prompt),
  completionIds: ids(completion),
  label: i % 2 === 0,
}));

/** Widths of 2-byte numbers that leave no place of a layer aligned by themselves. */
const oddWidths = llamaConfig({
  hidden_size: 15,
  intermediate_size: 25,
  num_attention_heads: 3,
  head_dim: 6,
  num_hidden_layers: 3,
});

describe.runIf(offered).each([...families, ["odd widths", oddWidths]] as const)("%s in f16", (_, config) => {
  it("is near f32, and has the same bits again, also where layers run again", async () => {
    const policy = await Model.load(device, await randomModel(folder, config, 1));
    const reference = await Model.load(device, await randomModel(folder, config, 2));
    try {
      const [exact, found, again] = [
        await gradients(policy, reference, examples, {}),
        await gradients(policy, reference, examples, { precision: "fp16" }),
        await gradients(policy, reference, examples, { precision: "fp16", gradientCheckpointing: true }),
      ];
      expectWithin("log-probabilities", found.policy, exact.policy, () => LOG_PROB);
      expect(relativeDistance(found.gradients, exact.gradients)).toBeLessThanOrEqual(ROUNDED_GRADIENT);
      expect(bits(found.gradients)).not.toEqual(bits(exact.gradients));
      expect(bits(again.gradients)).toEqual(bits(found.gradients));
    } finally {
      policy.free();
      reference.free();
    }
  });
});

it.runIf(offered)("an adapter with dropout over a base in bf16, with and without gradient checkpointing", async () => {
  const base = await Model.load(device, await randomModel(folder, llamaConfig({ num_hidden_layers: 3 }), 3), {
    dtype: "bf16",
  });
  const lora = { rank: 3, alpha: 6, dropout: 0.3, rslora: false, targetModules: "all-linear" };
  const adapter = LoraAdapter.create(device, base.config, lora);
  try {
    const whole = wholeArena(adapter.weights);
    device.upload(whole, normals(new Random(9), elementCount(whole.shape), 0.1));
    const policy = base.withAdapter(adapter);
    const passes = { dropoutSeed: 9 };
    const exact = await gradients(policy, base, examples, passes);
    const found = await gradients(policy, base, examples, { ...passes, precision: "fp16" });
    const again = await gradients(policy, base, examples, {
      ...passes,
      precision: "fp16",
      gradientCheckpointing: true,
    });
    expect(relativeDistance(found.gradients, exact.gradients)).toBeLessThanOrEqual(ROUNDED_GRADIENT);
    expect(bits(again.gradients)).toEqual(bits(found.gradients));
  } finally {
    adapter.free();
    base.free();
  }
});

type Options = NonNullable<TrainerInputs["options"]>;

/** 24 updates of the fixture with an evaluation in their middle and at their end. */
const OPTIONS: Options = {
  learning_rate: 3e-4,
  max_steps: 24,
  per_device_train_batch_size: 4,
  logging_steps: 1,
  eval_steps: 12,
  seed: 5,
};

async function train(options: Options, Trainer: typeof KtoTrainer | typeof SftTrainer = KtoTrainer) {
  const policy = await loadModel(device, "llama", "policy");
  const rows = readExamples("llama");
  const sft = Trainer === SftTrainer;
  const given = {
    policy,
    examples: sft ? rows.map((row) => ({ ...row, label: true })) : rows,
    evalExamples: sft ? rows.map((row) => ({ ...row, label: true })) : rows,
    options: { ...OPTIONS, ...options },
  };
  const trainer = await Trainer.create(given);
  const activations = device.memory().activations ?? Number.NaN;
  const metrics: Metrics[] = [];
  const evaluations: Metrics[] = [];
  try {
    for await (const step of trainer) {
      if (step.metrics) metrics.push(step.metrics);
      if (step.evaluation) evaluations.push(step.evaluation.metrics);
    }
    return { metrics, evaluations, activations, weights: await device.download(wholeArena(policy.trained)) };
  } finally {
    trainer.free();
    policy.free();
  }
}

const values = (metrics: readonly Metrics[], name: string) => metrics.map((line) => line[name] ?? Number.NaN);

describe.runIf(offered)("a run with fp16", () => {
  it("that overflows in every update ends with what may be done", async () => {
    const policy = await loadModel(device, "llama", "policy");
    device.upload({ ...policy.parameter("layers.1.mlpNorm.weight"), shape: [1] }, Float32Array.of(1e6));
    const inputs = { policy, examples: readExamples("llama"), options: { fp16: true, max_steps: 2 } };
    const trainer = await KtoTrainer.create(inputs);
    try {
      const run = (async () => {
        for await (const _ of trainer);
      })();
      await expect(run).rejects.toThrow(
        /lower learning_rate, leave fp16 out \(an activation may be beyond 65504\), or look/,
      );
    } finally {
      trainer.free();
      policy.free();
    }
  });

  it("follows that in f32, evaluations too, from a log-ratio of exactly 0 on, and has the same bits again", async () => {
    const [exact, found, again] = [await train({}), await train({ fp16: true }), await train({ fp16: true })];
    expectWithin("losses", values(found.metrics, "loss"), values(exact.metrics, "loss"), () => 2e-3);
    // It learns, by far more than it is off.
    expect((exact.metrics[0]?.loss ?? 0) - (exact.metrics.at(-1)?.loss ?? 1)).toBeGreaterThan(0.05);
    expectWithin("eval", values(found.evaluations, "eval_loss"), values(exact.evaluations, "eval_loss"), () => 2e-3);
    expect(found.evaluations).toHaveLength(2);
    // Policy and reference are rounded alike.
    expect(found.metrics[0]).toMatchObject({ "rewards/margins": 0, "kl/unclamped": 0 });
    expect(bits(again.weights)).toEqual(bits(found.weights));
    expect(values(found.metrics, "skipped_steps").at(-1)).toBe(0);
    expect(found.activations).toBeLessThan(0.65 * exact.activations);
  });

  it("with a cached reference is that with a live one, bit for bit; f32's cache is another", async () => {
    await train({ reference: "cached", max_steps: 4 });
    const cached = await train({ fp16: true, reference: "cached", max_steps: 4 });
    const live = await train({ fp16: true, max_steps: 4 });
    expect(bits(cached.weights)).toEqual(bits(live.weights));
  });

  it("of supervised fine-tuning follows that in f32", async () => {
    const [exact, found] = [await train({}, SftTrainer), await train({ fp16: true }, SftTrainer)];
    expectWithin(
      "losses",
      values(found.metrics, "loss"),
      values(exact.metrics, "loss"),
      (i) => 2e-3 * (exact.metrics[i]?.loss ?? 0),
    );
    expect(found.activations).toBeLessThan(0.65 * exact.activations);
  });

  it("skips and counts an update in which an activation is beyond f16, and leaves the weights", async () => {
    const policy = await loadModel(device, "llama", "policy");
    const gain = { ...policy.parameter("layers.1.mlpNorm.weight"), shape: [1] };
    const trainer = await KtoTrainer.create({
      policy,
      examples: readExamples("llama"),
      options: { fp16: true, max_steps: 3, logging_steps: 1, learning_rate: 1e-3 },
    });
    const [good = Number.NaN] = await device.download(gain);
    const skipped: number[] = [];
    try {
      device.upload(gain, Float32Array.of(1e6)); // within f32 by far
      const before = await device.download(wholeArena(policy.trained));
      for await (const { step, metrics } of trainer) {
        skipped.push(metrics?.skipped_steps ?? Number.NaN);
        if (step > 1) continue;
        expect(bits(await device.download(wholeArena(policy.trained)))).toEqual(bits(before));
        device.upload(gain, Float32Array.of(good));
      }
      expect(skipped).toEqual([1, 1, 1]);
      device.upload(gain, Float32Array.of(1e6));
      const reference = {
        policy,
        examples: readExamples("llama"),
        options: { fp16: true, reference: "cached" },
      } as const;
      await expect(KtoTrainer.create(reference)).rejects.toThrow(
        /or leave fp16 out \(an activation may be beyond 65504\)/,
      );
    } finally {
      trainer.free();
      policy.free();
    }
  });
});

describe("memory of activations", () => {
  /** SmolLM2 135M and Qwen2.5 0.5B, by their config.json. */
  const SIZES = {
    smollm2: {
      hidden_size: 576,
      intermediate_size: 1536,
      num_attention_heads: 9,
      num_key_value_heads: 3,
      num_hidden_layers: 30,
    },
    qwen2: {
      hidden_size: 896,
      intermediate_size: 4864,
      num_attention_heads: 14,
      num_key_value_heads: 2,
      num_hidden_layers: 24,
    },
  };

  it.each(Object.entries(SIZES))("of %s is little more than half, counted before a run", (name, sizes) => {
    const model_type = name === "qwen2" ? "qwen2" : "llama";
    const config = parseModelConfig(JSON.stringify(llamaConfig({ ...sizes, model_type })), name);
    const shape = {
      gradientRows: 128,
      branchRows: 64,
      gradientHeadRows: 64,
      branchHeadRows: 64,
      sequences: 4,
      longest: 64,
    };
    const bytesOf = (format: "f32" | "f16") => {
      const plan = planningDevice(device);
      new PassMemory(plan, config, [shape], { gradients: true, format });
      return plan.memory().activations ?? Number.NaN;
    };
    const { input, middle, attentionStats, mlpStats, logSumExp, qkInverse, ...halved } = layerKinds(config);
    const width = Object.values(halved).reduce((sum, columns) => sum + columns, 0);
    const { gradientRows: A, branchRows: B } = shape;
    expect(bytesOf("f32") - bytesOf("f16")).toBe(2 * width * (config.layers * A + B));
    expect(bytesOf("f16") / bytesOf("f32")).toBeLessThan(0.58);
  });
});

it("is refused in a sentence where the adapter has no f16", async () => {
  const core = await Device.open({ adapter: device.kind, features: "core" });
  const policy = await loadModel(core, "llama", "policy");
  try {
    for (const Trainer of [KtoTrainer, SftTrainer]) {
      const rows = readExamples("llama").map((row) => ({ ...row, label: true }));
      const created = Trainer.create({ policy, examples: rows, options: { fp16: true } });
      await expect(created).rejects.toThrow(AdapterError);
      await expect(created).rejects.toThrow(
        /^option "fp16" is true, but the adapter ".+" does not have shader-f16, or KTO_FEATURES=core leaves it out: leave fp16 out to train in f32\.$/,
      );
    }
  } finally {
    policy.free();
    core.close();
  }
});
