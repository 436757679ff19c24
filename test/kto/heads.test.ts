/**
 * Whole models with the head sizes of real ones (64 to 256), whose attention the small fixtures do not meet, on every
 * kind of adapter that can be forced: against float64 PyTorch, and heads of 80 and 96 against our own float64 model.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Device } from "../../src/engine/gpu/device.ts";
import { elementCount } from "../../src/engine/gpu/tensor.ts";
import { Float64Model } from "../../src/engine/model/float64/decoder.ts";
import { adapterGradients, float64Weights } from "../../src/engine/model/float64/lora.ts";
import { Generator } from "../../src/engine/model/generate/generate.ts";
import { LoraAdapter } from "../../src/engine/model/lora.ts";
import { Model } from "../../src/engine/model/model.ts";
import { Random } from "../../src/engine/random.ts";
import { type BatchExample, packBatch } from "../../src/kto/method/batch.ts";
import type { ObjectiveOptions } from "../../src/kto/method/objective.ts";
import { KtoTrainer } from "../../src/kto/trainer.ts";
import { wholeArena } from "../helpers/arenas.ts";
import { bits, expectWithin, normals } from "../helpers/compare.ts";
import { ALL_SHAPES, type DeviceVariant, deviceVariants } from "../helpers/device.ts";
import {
  type Expected,
  exactGreedy,
  fixtureFolder,
  HEAD_FIXTURES,
  readExamples,
  readExpected,
  readExpectedGradients,
  relativeDistance,
} from "../helpers/fixtures.ts";
import { temporaryFolder } from "../helpers/folders.ts";
import { llamaConfig, randomModel } from "../helpers/models.ts";
import { exactStep, runUpdate } from "../helpers/step.ts";
import { GRADIENT, LOG_PROB, LOSS, STEP_LOSS } from "../helpers/tolerances.ts";

const folder = temporaryFolder();
/** The options of a fixture's objective; those of the random models. */
function objectiveOf({ expected }: Case): ObjectiveOptions {
  const { beta, desirable_weight, undesirable_weight } = expected?.hyperparameters ?? RANDOM_MODELS;
  return { beta, desirableWeight: desirable_weight, undesirableWeight: undesirable_weight, lossType: "kto" };
}
const RANDOM_MODELS = { beta: 0.1, desirable_weight: 1, undesirable_weight: 1.2 };

const lora = { rank: 4, alpha: 8, dropout: 0, rslora: false, targetModules: "all-linear" } as const;
const NEW_TOKENS = 6;

type Gradients = ReadonlyMap<string, Float64Array>;

/** A model and its microbatch. What it is held against and no file says is computed at the first variant, and kept. */
interface Case {
  readonly name: string;
  readonly policy: string;
  readonly reference: string;
  readonly examples: readonly BatchExample[];
  /** PyTorch's numbers, where there are any. */
  readonly expected: Expected | undefined;
  exact?: { readonly loss: number; readonly gradients: Gradients };
  adapterGradients?: Gradients;
  greedy?: readonly number[][];
}

async function randomCase(headSize: number): Promise<Case> {
  const config = llamaConfig({
    max_position_embeddings: 256,
    head_dim: headSize,
    num_attention_heads: 3,
    num_hidden_layers: 2,
  });
  const random = new Random(headSize);
  const ids = (length: number) => Array.from({ length }, () => 3 + random.below(100));
  const lengths = [
    [3, 19],
    [1, 12],
    [31, 4],
    [6, 1],
  ] as const;
  return {
    name: `heads of ${headSize}`,
    policy: await randomModel(folder, config, 1),
    reference: await randomModel(folder, config, 2),
    examples: lengths.map(([prompt, completion], i) => ({
      promptIds: ids(prompt),
      completionIds: ids(completion),
      label: i % 2 === 0,
    })),
    expected: undefined,
  };
}

const cases: Case[] = HEAD_FIXTURES.map((name) => {
  const expected = readExpected(name);
  const gradients = new Map([...readExpectedGradients(name)].map(([tensor, { data }]) => [tensor, data]));
  const [policy, reference] = [fixtureFolder(name, "policy"), fixtureFolder(name, "reference")];
  return { name, policy, reference, examples: readExamples(name), expected, exact: { loss: expected.loss, gradients } };
});
cases.push(await randomCase(80), await randomCase(96));

/** What runs by default: every size of heads once, every kind of device with one at least. */
const DEFAULT_HEADS: Readonly<Record<DeviceVariant["kind"], readonly string[]>> = {
  native: ["head64", "head128", "head256", "long64", "heads of 80"],
  core: ["heads of 96"],
  workgroups: ["head64"],
};

/**
 * The cases of a kind of device. Attention takes half a minute to compile for one size of heads without subgroups, and
 * a minute for heads of 80, 96 and 256 with them; KTO_TEST_SHAPES=all runs every size on every kind. Without subgroups,
 * whole models always run on the other WebGPU too (`scripts/second-webgpu.mjs`).
 */
function casesOf({ kind }: DeviceVariant): Case[] {
  if (ALL_SHAPES) return cases;
  return cases.filter(({ name }) => DEFAULT_HEADS[kind]?.includes(name));
}

const variants = (await deviceVariants()).filter((one) => casesOf(one).length > 0);

describe.each(variants)("$variant", (one) => {
  const chosen = casesOf(one);
  let device: Device;
  let close: () => void;
  beforeAll(async () => {
    ({ device, close } = await one.open());
  });
  afterAll(() => close());

  describe.each(chosen)("$name", (own) => {
    const { examples, expected } = own;
    const objective = objectiveOf(own);
    let policy: Model;
    let reference: Model;
    let kept: Awaited<ReturnType<typeof runUpdate>>;
    beforeAll(async () => {
      policy = await Model.load(device, own.policy);
      reference = await Model.load(device, own.reference);
      kept = await runUpdate(policy, reference, objective, [packed(examples)]);
    });
    afterAll(() => {
      policy.free();
      reference.free();
    });

    const packed = (rows: readonly BatchExample[]) =>
      packBatch(rows, { mismatched: true, maxLength: policy.config.contextLength });
    const float64Of = async (model: Model) => new Float64Model(model.config, await float64Weights(model));

    it("loss, log-probabilities and every gradient of a microbatch with its mismatched pairs", async () => {
      own.exact ??= exactStep(await float64Of(policy), await float64Of(reference), objective, [examples]);
      expectWithin("loss", [kept.loss], [own.exact.loss], () => LOSS);
      expect([...kept.tensors.keys()].sort()).toEqual([...own.exact.gradients.keys()].sort());
      for (const [name, wanted] of own.exact.gradients)
        expect(relativeDistance(kept.tensors.get(name) ?? [], wanted), name).toBeLessThanOrEqual(GRADIENT);
      if (expected === undefined) return;
      expectWithin("policy", kept.policy, [expected.policy_logps, expected.kl_policy_logps].flat(), () => LOG_PROB);
      expectWithin(
        "reference",
        kept.reference,
        [expected.reference_logps, expected.kl_reference_logps].flat(),
        () => LOG_PROB,
      );
    });

    it("gradient checkpointing gives the same bits", async () => {
      const again = await runUpdate(policy, reference, objective, [packed(examples)], "microbatch", true);
      expect(again.loss).toBe(kept.loss);
      expect(bits(again.gradients)).toEqual(bits(kept.gradients));
    });

    it("gradients of an adapter on every linear layer", async () => {
      const rows = examples.slice(0, 2);
      const adapter = LoraAdapter.create(device, policy.config, lora);
      try {
        const whole = wholeArena(adapter.weights);
        device.upload(whole, normals(new Random(9), elementCount(whole.shape), 0.1));
        const adapted = policy.withAdapter(adapter);
        own.adapterGradients ??= await adapterGradients(
          adapted,
          exactStep(await float64Of(adapted), await float64Of(policy), objective, [rows]).gradients,
        );
        const { tensors } = await runUpdate(adapted, policy, objective, [packed(rows)]);
        expect([...tensors.keys()].sort()).toEqual([...own.adapterGradients.keys()].sort());
        for (const [name, wanted] of own.adapterGradients)
          expect(relativeDistance(tensors.get(name) ?? [], wanted), name).toBeLessThanOrEqual(GRADIENT);
      } finally {
        adapter.free();
      }
    });

    it("greedy continuations with the cache are the likeliest tokens of the whole sequence", async () => {
      const prompts = examples.slice(0, 2).map(({ promptIds }) => Array.from(promptIds));
      const generator = new Generator(policy, { maxBatch: 2, maxLength: 200 });
      const options = { maxNewTokens: NEW_TOKENS, temperature: 0, topK: 0, topP: 1, seed: 0, eosTokenIds: [] };
      const results = await generator.generate(prompts, options).finally(() => generator.free());
      if (own.greedy === undefined) {
        const exact = await float64Of(policy);
        own.greedy = prompts.map((prompt) => exactGreedy(exact, prompt, NEW_TOKENS, policy.config.vocabSize));
      }
      expect(results.map(({ ids }) => ids)).toEqual(own.greedy);
    });

    if (expected === undefined) return;
    it("five AdamW steps", async () => {
      const { adamw } = expected;
      const trained = await Model.load(device, own.policy);
      const trainer = await KtoTrainer.create({
        policy: trained,
        reference,
        examples,
        options: {
          ...expected.hyperparameters,
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
        for await (const { step, metrics } of trainer) {
          const at = adamw.steps[step - 1];
          if (metrics === undefined || at === undefined) throw new Error(`step ${step} has no numbers`);
          const { loss = Number.NaN, kl = Number.NaN, grad_norm = Number.NaN } = metrics;
          expectWithin(`loss and z0 of step ${step}`, [loss, kl], [at.loss, at.kl], () => STEP_LOSS);
          expectWithin(`norm of step ${step}`, [grad_norm], [at.grad_norm], () => STEP_LOSS * at.grad_norm);
        }
      } finally {
        trainer.free();
        trained.free();
      }
    });
  });
});
