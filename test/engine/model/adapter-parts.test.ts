/**
 * What an adapter trains beside A and B of the blocks' linear layers: embedding and head as targets, modules that are
 * trained whole, biases; each gradient against float64, tied and untied, and the passes of generation.
 */
import { afterAll, describe, expect, it } from "vitest";
import { float64Model } from "../../../src/engine/model/float64/lora.ts";
import { LoraAdapter } from "../../../src/engine/model/lora.ts";
import type { LoraOptions } from "../../../src/engine/model/lora-modules.ts";
import type { Model } from "../../../src/engine/model/model.ts";
import { checkGradients } from "../../../src/kto/gradcheck.ts";
import { packBatch } from "../../../src/kto/method/batch.ts";
import { completionLogProbs } from "../../../src/kto/method/log-probs.ts";
import { Update } from "../../../src/kto/method/update.ts";
import { float64, normals, seeded } from "../../helpers/compare.ts";
import { sharedDevice } from "../../helpers/device.ts";
import { mismatchOf } from "../../helpers/families.ts";
import { type FixtureName, loadModel, readExamples, relativeDistance } from "../../helpers/fixtures.ts";

const device = await sharedDevice();
const NAMES = ["llama", "gpt2", "qwen2"] as const;
const loaded = await Promise.all(NAMES.map((name) => loadModel(device, name as FixtureName, "policy")));
const models = Object.fromEntries(NAMES.map((name, i) => [name, loaded[i]])) as Record<(typeof NAMES)[number], Model>;
afterAll(() => {
  for (const model of loaded) model.free();
});

const objective = { beta: 0.1, desirableWeight: 1.3, undesirableWeight: 0.8, lossType: "kto" } as const;
const options = (changes: Partial<LoraOptions>): LoraOptions => {
  return { rank: 4, alpha: 6, dropout: 0, rslora: false, ...changes };
};

/** An adapter of random numbers in A and B, and of what it takes from its base times numbers around 1. */
async function randomAdapter(model: Model, own: LoraOptions, seed: number): Promise<LoraAdapter> {
  const adapter = LoraAdapter.create(device, model.config, own);
  await adapter.readBase(model);
  const random = seeded(seed);
  for (const part of adapter.parts()) {
    const window = adapter.weights.at(part, part.shape);
    const before = await device.download(window);
    const drawn = normals(random, before.length, 0.2);
    const isOwn = /lora_(A|B|embedding_A|embedding_B)/.test(part.name);
    device.upload(window, isOwn ? drawn : before.map((value, i) => value * (1 + (drawn[i] ?? 0))));
  }
  return adapter;
}

describe("gradients", () => {
  it.each<[(typeof NAMES)[number], Partial<LoraOptions>, number]>([
    ["llama", { targetModules: ["embed_tokens", "q_proj"] }, 6],
    ["llama", { targetModules: ["lm_head"], rank: 5 }, 2],
    ["llama", { targetModules: ["lm_head", "embed_tokens"], dora: true, rank: 3 }, 6],
    ["gpt2", { targetModules: ["wte", "lm_head", "c_proj"], dora: true }, 18],
    ["gpt2", { targetModules: ["c_attn"], savedModules: ["lm_head", "ln_f"] }, 7],
    ["qwen2", { targetModules: ["q_proj"], savedModules: ["embed_tokens", "norm"], bias: "lora_only" }, 12],
    ["gpt2", { targetModules: ["c_fc"], bias: "all" }, 17],
  ])("of %s with %j are those of float64", async (name, changes, count) => {
    const adapter = await randomAdapter(models[name], options(changes), 3);
    const policy = models[name].withAdapter(adapter);
    const check = await checkGradients({ policy, reference: policy.base, examples: readExamples(name), objective });
    const written = new Set([...adapter.parts()].map((part) => policy.storedName(part.name)));
    expect(written.size).toBe(count);
    for (const { name: tensor, data } of check.gradients) {
      expect(data.some((value) => value !== 0)).toBe(written.has(tensor));
    }
    expect(`${check.comparison?.worstParameter} ${check.comparison?.maxRelativeError.toExponential(1)}`).toMatch(
      /e-[5-9]$/,
    );
    expect(check.comparison?.passed).toBe(true);
    adapter.free();
  });
});

it("starts as the base model and generates what float64 does", async () => {
  const own = options({ targetModules: ["embed_tokens", "lm_head", "v_proj"], dora: true, savedModules: ["norm"] });
  for (const name of ["llama"] as const) {
    const examples = readExamples(name);
    const fresh = LoraAdapter.create(device, models[name].config, own);
    fresh.initialize(3);
    await fresh.readBase(models[name]);
    const [base, start] = [
      await completionLogProbs(models[name], examples),
      await completionLogProbs(models[name].withAdapter(fresh), examples),
    ];
    expect(relativeDistance(start, float64(base))).toBeLessThan(1e-6);
    fresh.free();
    const adapter = await randomAdapter(models[name], own, 4);
    const policy = models[name].withAdapter(adapter);
    const prompts = examples.slice(0, 2).map(({ promptIds }) => Array.from(promptIds));
    expect(await mismatchOf(policy, prompts, 6)).toBeUndefined();
    const exact = await float64Model(policy);
    const wanted = examples.map((row) => exact.logProb(row.promptIds, row.completionIds));
    expect(relativeDistance(await completionLogProbs(policy, examples), Float64Array.from(wanted))).toBeLessThan(1e-5);
    adapter.free();
  }
});

describe("the head's adapter with dropout", () => {
  it.each([false, true])("has the slopes of its own loss, with DoRA %s", async (dora) => {
    const { llama } = models;
    const own = options({ targetModules: ["lm_head"], dropout: 0.3, rank: 3, dora });
    const adapter = await randomAdapter(llama, own, 5);
    const policy = llama.withAdapter(adapter);
    const examples = readExamples("llama").slice(0, 3);
    const batch = packBatch(examples, { mismatched: true, maxLength: llama.config.contextLength });
    const update = new Update({
      ...{ policy, reference: policy.base, shapes: [batch.packed.shape], maxSize: batch.size, objective },
      optimizer: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0, maxGradientNorm: 0 },
      referencePointScope: "microbatch",
      dropoutSeed: 11,
    });
    await update.gradients([batch]);
    const coefficients = await device.download(update.objective.coefficients(batch.size));
    // Rows weigh differently, so slopes are those of the weighted sum of log-probs at these weights.
    const weighted = async () => {
      await update.gradients([batch]);
      const { policy: values } = await update.readLogProbs(batch.size);
      return coefficients.reduce((sum, weight, i) => sum + weight * (values[i] ?? 0), 0);
    };
    const names = ["lm_head.lora_A", "lm_head.lora_B", "lm_head.lora_magnitude_vector"].slice(
      dora ? 2 : 0,
      dora ? 3 : 2,
    );
    await update.gradients([batch]);
    for (const name of names) {
      const window = adapter.weights.window(name);
      const [start, gradient] = [
        await device.download(window),
        await device.download(update.optimizer.gradients.window(name)),
      ];
      const direction = normals(seeded(8), start.length);
      const slope = direction.reduce((sum, value, i) => sum + value * (gradient[i] ?? 0), 0);
      const step = 2e-2;
      const at = async (t: number) => {
        device.upload(
          window,
          start.map((value, i) => value + t * (direction[i] ?? 0)),
        );
        return await weighted();
      };
      const difference =
        (8 * ((await at(step)) - (await at(-step))) - ((await at(2 * step)) - (await at(-2 * step)))) / (12 * step);
      device.upload(window, start);
      await update.gradients([batch]);
      expect(Math.abs(difference / slope - 1), `${name}: ${difference} and ${slope}`).toBeLessThan(5e-3);
    }
    update.free();
    adapter.free();
  });
});
