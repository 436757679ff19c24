/**
 * Families and switches that no fixture shows, whole models on the adapter against the float64 one: log-probabilities
 * and gradients of a packed microbatch, greedy generation. Sequences are longer than every sliding window.
 */
import { describe, expect, it } from "vitest";
import { elementCount } from "../../src/engine/gpu/tensor.ts";
import { Generator } from "../../src/engine/model/generate/generate.ts";
import { LoraAdapter } from "../../src/engine/model/lora.ts";
import { Model } from "../../src/engine/model/model.ts";
import { Random } from "../../src/engine/random.ts";
import { checkGradients } from "../../src/kto/gradcheck.ts";
import { completionLogProbs } from "../../src/kto/method/log-probs.ts";
import { wholeArena } from "../helpers/arenas.ts";
import { expectWithin, normals } from "../helpers/compare.ts";
import { sharedDevice } from "../helpers/device.ts";
import { exactGreedy, float64Of } from "../helpers/fixtures.ts";
import { temporaryFolder } from "../helpers/folders.ts";
import { FAMILY_CONFIGS, llamaConfig, randomModel } from "../helpers/models.ts";

const device = await sharedDevice();
const folder = temporaryFolder();

function randomIds(random: Random, length: number): number[] {
  return Array.from({ length }, () => 3 + random.below(90));
}

/** A model with other weights at each seed, on the device; freed afterwards. */
async function withModel<T>(config: Record<string, unknown>, seed: number, work: (model: Model) => Promise<T>) {
  const model = await Model.load(device, await randomModel(folder, config, seed));
  try {
    return await work(model);
  } finally {
    model.free();
  }
}

const random = new Random(12);
const examples = [
  [3, 9],
  [1, 12],
  [11, 4],
  [6, 1],
].map(([prompt = 0, completion = 0], i) => ({
  promptIds: randomIds(random, prompt),
  completionIds: randomIds(random, completion),
  label: i % 2 === 0,
}));

describe.each(Object.entries(FAMILY_CONFIGS))("%s against float64", (_, config) => {
  it("log-probabilities, loss and every gradient of a microbatch with its mismatched pairs", async () => {
    await withModel(config, 1, (policy) =>
      withModel(config, 2, async (reference) => {
        const objective = { beta: 0.1, desirableWeight: 1, undesirableWeight: 1.2, lossType: "kto" } as const;
        const { comparison, gradients } = await checkGradients({ policy, reference, examples, objective });
        expect(comparison).toMatchObject({ passed: true });
        for (const { name, data } of gradients)
          expect(
            data.some((value) => value !== 0),
            name,
          ).toBe(true);
        const exact = await float64Of(policy);
        const wanted = examples.map((row) => exact.logProb(row.promptIds, row.completionIds));
        expectWithin("log-probs", await completionLogProbs(policy, examples, 3), wanted, () => 1e-4);
      }),
    );
  });

  it("gradients of an adapter on every linear layer, and nothing else", async () => {
    await withModel(config, 1, async (model) => {
      const options = { rank: 3, alpha: 6, dropout: 0, rslora: false, targetModules: "all-linear" };
      const adapter = LoraAdapter.create(device, model.config, options);
      try {
        const whole = wholeArena(adapter.weights);
        device.upload(whole, normals(new Random(9), elementCount(whole.shape), 0.1));
        const objective = { beta: 0.1, desirableWeight: 1, undesirableWeight: 1, lossType: "kto" } as const;
        const policy = model.withAdapter(adapter);
        const { comparison, gradients } = await checkGradients({ policy, reference: model, examples, objective });
        expect(comparison).toMatchObject({ passed: true });
        expect(gradients.filter(({ name }) => !/lora_[AB]/.test(name)).map(({ name }) => name)).toEqual([]);
      } finally {
        adapter.weights.free();
      }
    });
  });

  it("greedy continuations with the cache are the likeliest tokens of the whole sequence, computed without a cache", async () => {
    await withModel(config, 3, async (model) => {
      const prompts = [1, 2, 9, 17].map((length) => randomIds(random, length));
      const generator = new Generator(model, { maxBatch: 8, maxLength: 40 });
      const options = { maxNewTokens: 12, temperature: 0, topK: 0, topP: 1, seed: 0, eosTokenIds: [] };
      const results = await generator.generate(prompts, options).finally(() => generator.free());
      const exact = await float64Of(model);
      expect(results.map(({ ids }) => ids)).toEqual(
        prompts.map((prompt) => exactGreedy(exact, prompt, 12, model.config.vocabSize)),
      );
    });
  });
});

describe("rotary angles", () => {
  it("take memory for the positions in use, not for the whole context, and grow where more are asked for", async () => {
    const config = llamaConfig({ max_position_embeddings: 131072, head_dim: 64 });
    await withModel(config, 4, async (model) => {
      const before = device.memory().scratch ?? 0;
      const rope = model.config.layerRope[0];
      const rows = (positions: number) => rope && model.ropeTable(rope, positions).shape[0];
      expect([rows(1), rows(256)]).toEqual([256, 256]);
      expect(device.memory().scratch).toBe(before + 256 * 64 * 4);
      expect([rows(257), rows(100)]).toEqual([512, 256]);
      expect(rows(100_000)).toBe(131072);
      expect(rows(1_000_000)).toBe(131072);
    });
    await withModel(llamaConfig({ max_position_embeddings: 100 }), 4, async (model) => {
      const rope = model.config.layerRope[0];
      expect(rope && model.ropeTable(rope, 64).shape[0]).toBe(100);
    });
  });
});
