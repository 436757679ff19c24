/** Gradient checkpointing: the same bits as with all activations kept, in the memory that the layers' inputs need. */
import { describe, expect, it } from "vitest";
import { planningDevice } from "../../src/engine/gpu/memory-plan.ts";
import { layerKinds } from "../../src/engine/model/activations.ts";
import { PassMemory } from "../../src/engine/model/decoder.ts";
import { LoraAdapter } from "../../src/engine/model/lora.ts";
import { Model } from "../../src/engine/model/model.ts";
import { Random } from "../../src/engine/random.ts";
import { packBatch } from "../../src/kto/method/batch.ts";
import { Update } from "../../src/kto/method/update.ts";
import { KtoTrainer } from "../../src/kto/trainer.ts";
import { bits } from "../helpers/compare.ts";
import { sharedDevice } from "../helpers/device.ts";
import { temporaryFolder } from "../helpers/folders.ts";
import { FAMILY_CONFIGS, llamaConfig, randomModel } from "../helpers/models.ts";
import { gradientsOf, noOptimizer } from "../helpers/step.ts";

const device = await sharedDevice();
const folder = temporaryFolder();

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
const batch = packBatch(examples, { mismatched: true, maxLength: 1000 });
const objective = { beta: 0.1, desirableWeight: 1, undesirableWeight: 1.2, lossType: "kto" } as const;

async function gradients(policy: Model, reference: Model, gradientCheckpointing: boolean, dropoutSeed?: number) {
  const before = device.memory().activations ?? 0;
  const step = new Update({
    policy,
    reference,
    shapes: [batch.packed.shape],
    maxSize: batch.size,
    objective,
    optimizer: noOptimizer,
    referencePointScope: "microbatch",
    gradientCheckpointing,
    dropoutSeed,
  });
  try {
    const activationBytes = (device.memory().activations ?? 0) - before;
    return { ...(await gradientsOf(step, [batch])), activationBytes };
  } finally {
    step.free();
  }
}

/** Every family with more than one layer: window and rope patterns, norms of heads, both kinds of MLP. */
const families = Object.entries(FAMILY_CONFIGS).filter(([, config]) => {
  return Number(config.num_hidden_layers ?? config.n_layer) > 1;
});

describe.each(families)("%s", (_, config) => {
  it("has the same gradients, bit for bit", async () => {
    const policy = await Model.load(device, await randomModel(folder, config, 1));
    const reference = await Model.load(device, await randomModel(folder, config, 2));
    try {
      const kept = await gradients(policy, reference, false);
      const again = await gradients(policy, reference, true);
      expect(again.loss).toBe(kept.loss);
      expect(kept.gradients.some((value) => value !== 0)).toBe(true);
      expect(bits(again.gradients)).toEqual(bits(kept.gradients));
      expect(again.activationBytes).toBeLessThan(kept.activationBytes);
    } finally {
      policy.free();
      reference.free();
    }
  });
});

it.each([0, 0.3])("an adapter with a dropout of %f has the same gradients, bit for bit", async (dropout) => {
  const model = await Model.load(device, await randomModel(folder, llamaConfig({ num_hidden_layers: 3 }), 3));
  const lora = { rank: 3, alpha: 6, dropout, rslora: false, targetModules: "all-linear" };
  const adapter = LoraAdapter.create(device, model.config, lora);
  try {
    adapter.initialize(4);
    for (const { name, outputs } of adapter.modules) {
      const b = Float32Array.from({ length: 3 * outputs }, () => random.float() - 0.5);
      device.upload(adapter.weights.window(`${name}.lora_B`), b);
    }
    const policy = model.withAdapter(adapter);
    const kept = await gradients(policy, model, false, 9);
    const again = await gradients(policy, model, true, 9);
    expect(kept.gradients.some((value) => value !== 0)).toBe(true);
    expect(bits(again.gradients)).toEqual(bits(kept.gradients));
  } finally {
    adapter.free();
    model.free();
  }
});

describe("memory of activations", () => {
  it("is that of the layers' inputs and of one layer", async () => {
    const layers = 12;
    const model = await Model.load(device, await randomModel(folder, llamaConfig({ num_hidden_layers: layers }), 5));
    const { config } = model;
    model.free();
    const shape = {
      gradientRows: 512,
      branchRows: 128,
      gradientHeadRows: 256,
      branchHeadRows: 128,
      sequences: 16,
      longest: 64,
    };
    const bytesOf = (checkpointing: boolean) => {
      const plan = planningDevice(device);
      new PassMemory(plan, config, [shape], { gradients: true, checkpointing });
      return plan.memory().activations ?? Number.NaN;
    };
    const { input, ...others } = layerKinds(config);
    const width = Object.values(others).reduce((sum, columns) => sum + columns, 0);
    const { gradientRows: A, branchRows: B } = shape;
    // A buffer of nothing has 16 bytes; what belongs to a mixer that no layer has, has none.
    const empty = Object.entries(others).filter(([kind, columns]) => columns === 0 && !/^(convol|delta)/.test(kind));
    const inputs = 16 * empty.length + 4 * input * ((layers + 1) * A + B);
    expect(bytesOf(false)).toBe(inputs + 4 * width * (layers * A + B));
    expect(bytesOf(true)).toBe(inputs + 4 * width * (A + B));
    // A layer has `share` times the numbers of its input: layers * share / (layers + share) is 6 here, without region
    // B.
    const share = (input + width) / input;
    expect(bytesOf(false) / bytesOf(true)).toBeGreaterThan(0.9 * ((layers * share) / (layers + share)));
  });

  it("a run takes it from gradient_checkpointing, to the same weights", async () => {
    const path = await randomModel(folder, llamaConfig({ num_hidden_layers: 6 }), 6);
    const run = async (gradient_checkpointing: boolean) => {
      const policy = await Model.load(device, path);
      const trainer = await KtoTrainer.create({
        policy,
        examples,
        options: { gradient_checkpointing, max_steps: 6, per_device_train_batch_size: 4, learning_rate: 1e-3 },
      });
      const activations = device.memory().activations ?? Number.NaN;
      for await (const _ of trainer);
      const weights = await policy.readTensors(policy.weights);
      trainer.free();
      policy.free();
      return { activations, weights };
    };
    const [kept, again] = [await run(false), await run(true)];
    expect(again.activations).toBeLessThan(kept.activations / 2);
    expect(again.weights.map(({ data }) => bits(data))).toEqual(kept.weights.map(({ data }) => bits(data)));
  });
});
