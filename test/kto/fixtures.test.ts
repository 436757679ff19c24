/**
 * Whole models on the adapter against numbers that others computed: float64 PyTorch autograd on tiny models, golden
 * logits and greedy continuation of a real one. The tolerances are those of docs/design/method.md, "Numbers that
 * decide".
 */
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { Program } from "../../src/engine/gpu/program.ts";
import { sliceRows } from "../../src/engine/gpu/tensor.ts";
import type { ModelConfig } from "../../src/engine/model/config/config.ts";
import { PassMemory, positionLimit, recordLayers } from "../../src/engine/model/decoder.ts";
import { Generator } from "../../src/engine/model/generate/generate.ts";
import { recordHeadRows } from "../../src/engine/model/head.ts";
import { recordMatmul } from "../../src/engine/model/matmul.ts";
import { Model } from "../../src/engine/model/model.ts";
import { packRows, rowShape } from "../../src/engine/model/rows.ts";
import { METRIC_SUMS } from "../../src/kernels/kto-objective.ts";
import { checkGradients, type GradientCheck } from "../../src/kto/gradcheck.ts";
import { packBatch } from "../../src/kto/method/batch.ts";
import { completionLogProbs } from "../../src/kto/method/log-probs.ts";
import { Update } from "../../src/kto/method/update.ts";
import { KtoTrainer } from "../../src/kto/trainer.ts";
import { expectWithin } from "../helpers/compare.ts";
import { sharedDevice } from "../helpers/device.ts";
import {
  FIXTURES,
  loadModel,
  readExamples,
  readExpected,
  readExpectedGradients,
  readJson,
  relativeDistance,
} from "../helpers/fixtures.ts";
import { float64Updates } from "../helpers/float64-updates.ts";
import { stories } from "../helpers/folders.ts";
import { GRADIENT, LOG_PROB, LOSS, STEP_LOSS } from "../helpers/tolerances.ts";

const device = await sharedDevice();

/** Tokens of the fixtures' longest sequence, or more. */
const LONGEST = 64;

const within = (what: string, actual: ArrayLike<number>, expected: ArrayLike<number>, bound: number) =>
  expectWithin(what, actual, expected, () => bound);

describe.each(FIXTURES)("%s against float64 PyTorch", (name) => {
  const expected = readExpected(name);
  const examples = readExamples(name);
  const { beta, desirable_weight, undesirable_weight } = expected.hyperparameters;
  const objective = {
    beta,
    desirableWeight: desirable_weight,
    undesirableWeight: undesirable_weight,
    lossType: "kto",
  } as const;
  let policy: Model;
  let reference: Model;
  let check: GradientCheck;

  beforeAll(async () => {
    policy = await loadModel(device, name, "policy");
    reference = await loadModel(device, name, "reference");
    check = await checkGradients({ policy, reference, examples, objective });
  });

  afterAll(() => {
    policy.free();
    reference.free();
  });

  it("log-probabilities of the packed microbatch, mismatched pairs among them", async () => {
    const batch = packBatch(examples, { mismatched: true, maxLength: policy.config.contextLength });
    const step = new Update({
      policy,
      reference,
      shapes: [batch.packed.shape],
      maxSize: batch.size,
      objective,
      optimizer: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0, maxGradientNorm: 0 },
      referencePointScope: "microbatch",
    });
    try {
      await step.gradients([batch]);
      const sums = await step.readLogProbs(batch.size);
      within("policy", sums.policy, [...expected.policy_logps, ...expected.kl_policy_logps], LOG_PROB);
      within("reference", sums.reference, [...expected.reference_logps, ...expected.kl_reference_logps], LOG_PROB);
    } finally {
      step.free();
    }
  });

  it("log-probabilities without packing, in batches that the rows do not fill", async () => {
    within("policy", await completionLogProbs(policy, examples, 2), expected.policy_logps, LOG_PROB);
    const pairs = examples.map(({ promptIds }, i) => ({
      promptIds,
      completionIds: examples[(i + 1) % examples.length]?.completionIds ?? [],
    }));
    within("pairs", await completionLogProbs(reference, pairs, 3), expected.kl_reference_logps, LOG_PROB);
  });

  it("log-ratios, reference point before and after the clamp, loss and gradient norm", () => {
    // A log-ratio is the difference of two log-probabilities.
    within("log-ratios", check.logRatio, expected.log_ratio, 2 * LOG_PROB);
    within("mismatched log-ratios", check.klLogRatio, expected.kl_log_ratio, 2 * LOG_PROB);
    within("z0", [check.kl, check.klUnclamped], [expected.kl, expected.kl_unclamped], 2 * LOG_PROB);
    expect(check.kl).toBe(Math.max(0, check.klUnclamped));
    within("loss", [check.loss], [expected.loss], LOSS);
    within("gradient norm", [check.gradientNorm], [expected.gradient_norm], GRADIENT * expected.gradient_norm);
  });

  it("every gradient tensor", () => {
    const wanted = readExpectedGradients(name);
    expect(check.gradients.map((tensor) => tensor.name).sort()).toEqual([...wanted.keys()].sort());
    for (const { name: parameter, shape, data } of check.gradients) {
      const tensor = wanted.get(parameter);
      expect(shape, parameter).toEqual(tensor?.shape);
      expect(relativeDistance(data, tensor?.data ?? []), parameter).toBeLessThanOrEqual(GRADIENT);
    }
  });

  it.each(["bf16", "f16"] as const)(
    "with weights stored as %s, the gradients of float64 on the rounded weights",
    async (dtype) => {
      const rounded = await Model.load(device, policy.folder, { dtype });
      expect(rounded.weights.layout.format).toBe(dtype);
      const check = await checkGradients({ policy: rounded, reference, examples, objective });
      expect(check.comparison?.passed).toBe(true);
      expect(check.comparison?.maxRelativeError).toBeLessThanOrEqual(GRADIENT / 10);
      // Rounding is seen: the loss is near PyTorch's on the weights that were not rounded, and is not it.
      expect(Math.abs(check.loss - expected.loss)).toBeLessThan(5e-3);
      expect(check.loss).not.toBe(expected.loss);
      rounded.free();
    },
  );

  it("the gradient check passes, and fails by name where one tensor or the loss is off", async () => {
    expect(check.comparison?.passed).toBe(true);
    expect(check.comparison?.maxRelativeError).toBeLessThanOrEqual(GRADIENT);
    const again = () => checkGradients({ policy, reference, examples, objective });
    const wrong = check.gradients[5]?.name ?? "";
    const read = policy.readTensors.bind(policy);
    const readTensors = vi.spyOn(policy, "readTensors").mockImplementation(async (arena) => {
      const factor = (name: string) => (arena !== policy.weights && name === wrong ? 1.002 : 1);
      return (await read(arena)).map((tensor) => ({
        ...tensor,
        data: tensor.data.map((g) => factor(tensor.name) * g),
      }));
    });
    const { comparison } = await again();
    readTensors.mockRestore();
    expect(comparison).toMatchObject({ passed: false, worstParameter: wrong, lossError: check.comparison?.lossError });
    expect(comparison?.maxRelativeError).toBeCloseTo(0.002, 5);
    const downloadAll = device.download.bind(device);
    const download = vi.spyOn(device, "download").mockImplementation(async (tensor) => {
      const values = await downloadAll(tensor);
      if (tensor.shape[0] === METRIC_SUMS.size) values[METRIC_SUMS.loss] = (values[METRIC_SUMS.loss] ?? 0) + 1e-4;
      return values;
    });
    const off = await again();
    download.mockRestore();
    expect(off.comparison).toMatchObject({ passed: false, maxRelativeError: check.comparison?.maxRelativeError });
    // By so much, give or take what the loss was off by before, and f32's rounding of the sum.
    const before = check.comparison?.lossError ?? Number.NaN;
    expect(Math.abs((off.comparison?.lossError ?? Number.NaN) - 1e-4)).toBeLessThanOrEqual(before + 2e-7);
  });

  it("the gradient check has no absolute floor: gradients a billion times smaller fail as well", async () => {
    const small = { ...objective, beta: objective.beta * 1e-9 };
    const again = () => checkGradients({ policy, reference, examples, objective: small });
    const honest = await again();
    expect(honest.comparison?.passed).toBe(true);
    expect(honest.gradientNorm).toBeLessThan(1e-8);
    const read = policy.readTensors.bind(policy);
    const readTensors = vi.spyOn(policy, "readTensors").mockImplementation(async (arena) => {
      const sign = arena === policy.weights ? 1 : -1;
      return (await read(arena)).map((tensor) => ({ ...tensor, data: tensor.data.map((g) => sign * g) }));
    });
    const { comparison } = await again();
    readTensors.mockRestore();
    expect(comparison).toMatchObject({ passed: false });
  });

  it("five updates through the trainer: loss, reference point, rewards, norm before the clip, weights", async () => {
    const { adamw } = expected;
    const trained = await loadModel(device, name, "policy");
    const trainer = await KtoTrainer.create({
      policy: trained,
      reference,
      examples,
      options: {
        beta,
        desirable_weight,
        undesirable_weight,
        learning_rate: adamw.learning_rate,
        adam_beta1: adamw.adam_beta1,
        adam_beta2: adamw.adam_beta2,
        adam_epsilon: adamw.adam_epsilon,
        weight_decay: adamw.weight_decay,
        max_grad_norm: adamw.max_grad_norm,
        lr_scheduler_type: "constant",
        per_device_train_batch_size: examples.length,
        shuffle_dataset: false,
        max_steps: adamw.steps.length,
        logging_steps: 1,
      },
    });
    try {
      const { weights: wanted } = float64Updates(name);
      for await (const { step, metrics } of trainer) {
        const at = adamw.steps[step - 1];
        if (metrics === undefined || at === undefined) throw new Error(`step ${step} has no numbers`);
        const { loss = Number.NaN, kl = Number.NaN, grad_norm = Number.NaN } = metrics;
        within(`loss of step ${step}`, [loss], [at.loss], STEP_LOSS);
        within(`z0 of step ${step}`, [kl], [at.kl], STEP_LOSS);
        for (const [metric, label] of [
          ["rewards/chosen", true],
          ["rewards/rejected", false],
        ] as const) {
          const rewards = at.log_ratio.filter((_, i) => examples[i]?.label === label).map((ratio) => beta * ratio);
          const mean = rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length;
          within(`${metric} of step ${step}`, [metrics[metric] ?? Number.NaN], [mean], STEP_LOSS);
        }
        within(`norm of step ${step}`, [grad_norm], [at.grad_norm], STEP_LOSS * at.grad_norm);
      }
      const before = new Map((await policy.readTensors(policy.weights)).map((tensor) => [tensor.name, tensor.data]));
      for (const { name: parameter, data } of await trained.readTensors(trained.weights)) {
        const start = before.get(parameter) ?? new Float32Array(0);
        const target = wanted.get(parameter) ?? new Float64Array(0);
        const counts = (i: number) => !isIdleKeyBias(policy.config, parameter, i, data.length);
        const moved = data.map((value, i) => (counts(i) ? value - (start[i] ?? Number.NaN) : 0));
        const wantedMove = target.map((value, i) => (counts(i) ? value - (start[i] ?? Number.NaN) : 0));
        expect(relativeDistance(moved, wantedMove), parameter).toBeLessThanOrEqual(GRADIENT);
      }
    } finally {
      trainer.free();
      trained.free();
    }
  });
});

/**
 * A bias of the keys shifts all scores of a query alike, so its gradient is 0; what rounding leaves of it, AdamW scales
 * up to whole steps. With rotary positions this holds for the channels that hardly turn within a sequence.
 */
function isIdleKeyBias(config: ModelConfig, parameter: string, index: number, length: number): boolean {
  if (parameter.endsWith("attn.c_attn.bias")) return Math.floor((3 * index) / length) === 1;
  if (!parameter.endsWith("k_proj.bias")) return false;
  const theta = config.layerRope[0]?.theta ?? Number.NaN;
  const frequency = theta ** ((-2 * (index % (config.headSize / 2))) / config.headSize);
  return LONGEST * frequency < 0.1;
}

describe("stories260K", () => {
  const golden = readJson<{ input_ids: number[]; last_logits: number[] }>(
    "test/fixtures/stories260K/golden_logits.json",
  );
  let model: Model;

  beforeAll(async () => {
    model = await Model.load(device, stories);
  });

  afterAll(() => model.free());

  it("golden logits of the last position", async () => {
    const sequence = { promptIds: golden.input_ids, completionIds: [0] };
    const shape = rowShape([sequence]);
    const memory = new PassMemory(device, model.config, [shape], { gradients: false });
    const logits = device.allocate("scratch", "logits", [1, model.config.vocabSize]);
    const program = new Program(device, "logits");
    try {
      const rows = { ...memory.rows.tensors(shape), positionLimit: positionLimit(shape) };
      const output = recordLayers(program, model, memory.activations, shape, rows);
      const normed = recordHeadRows({ program, model, buffers: memory.head }, output, sliceRows(rows.headRows, 0, 1));
      recordMatmul(program, "NT", normed, model.parameter(model.headName), logits);
      await program.prepare();
      memory.upload(packRows([sequence], [], shape));
      program.run();
      within("logits", await device.download(logits), golden.last_logits, 1e-3);
    } finally {
      program.dispose();
      memory.free();
      device.free(logits);
    }
  });

  it("log-probabilities of every next token are the log-softmax of the golden logits", async () => {
    const everyToken = golden.last_logits.map((_, token) => ({ promptIds: golden.input_ids, completionIds: [token] }));
    const logProbs = await completionLogProbs(model, everyToken, 64);
    const logSumExp = Math.log(golden.last_logits.reduce((sum, logit) => sum + Math.exp(logit), 0));
    within(
      "log-probabilities",
      logProbs,
      golden.last_logits.map((logit) => logit - logSumExp),
      1e-3,
    );
    within("their sum", [logProbs.reduce((sum, logProb) => sum + Math.exp(logProb), 0)], [1], 1e-5);
  });

  it("greedy continuation", async () => {
    const { ids } = readJson<{ ids: number[] }>("test/fixtures/stories260K/golden_greedy.json");
    const generator = new Generator(model, { maxBatch: 1, maxLength: ids.length });
    try {
      const [sequence] = await generator.generate([ids.slice(0, 1)], {
        maxNewTokens: ids.length - 1,
        temperature: 0,
        topK: 0,
        topP: 1,
        seed: 0,
      });
      expect(sequence).toEqual({ ids: ids.slice(1), finish: "length" });
    } finally {
      generator.free();
    }
  });
});
