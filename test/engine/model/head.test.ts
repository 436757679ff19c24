/**
 * Tables that do not fit one binding: lookup, head and their gradients walk the vocabulary in windows. A small model
 * under a device that reports small limits, against float64 and against the same work in one window.
 */
import { afterAll, describe, expect, it } from "vitest";
import { Generator } from "../../../src/engine/model/generate/generate.ts";
import { Model } from "../../../src/engine/model/model.ts";
import { AdapterError } from "../../../src/errors.ts";
import { type BatchExample, packBatch } from "../../../src/kto/method/batch.ts";
import { completionLogProbs } from "../../../src/kto/method/log-probs.ts";
import { objectiveMetrics } from "../../../src/kto/method/metrics.ts";
import type { ObjectiveOptions } from "../../../src/kto/method/objective.ts";
import { EPSILON, expectWithin } from "../../helpers/compare.ts";
import { sharedDevice, withLimits } from "../../helpers/device.ts";
import { float64Of, relativeDistance } from "../../helpers/fixtures.ts";
import { temporaryFolder } from "../../helpers/folders.ts";
import { llamaConfig, randomModel } from "../../helpers/models.ts";
import { exactStep, gradientsOf, type StepResult, updateFor } from "../../helpers/step.ts";
import { exactTokenMetrics } from "../../helpers/token-metrics.ts";

const device = await sharedDevice();
const folder = temporaryFolder();

/**
 * Three full windows of 256 tokens at the limit below and a fourth that is not. A multiple of 4: kernels for other
 * sizes have tests of their own, and a software adapter takes a minute to compile them.
 */
const VOCABULARY = 1004;
/** 256 rows of a table [V, 16]; all else in these tests fits. */
const LIMITS = { maxStorageBufferBindingSize: 4 * 16 * 256 };

const load = async (changes: Record<string, unknown>, seed: number) =>
  Model.load(device, await randomModel(folder, llamaConfig({ intermediate_size: 16, ...changes }), seed));

const sizes = { vocab_size: VOCABULARY };
const models = {
  tied: { policy: await load(sizes, 1), reference: await load(sizes, 2) },
  untied: {
    policy: await load({ ...sizes, tie_word_embeddings: false }, 3),
    reference: await load({ ...sizes, tie_word_embeddings: false }, 4),
  },
};
afterAll(() => {
  for (const { policy, reference } of Object.values(models)) {
    policy.free();
    reference.free();
  }
});

/** Tokens at both ends of windows of 64, 128 and 256. */
const edges = [0, 1, 63, 64, 127, 128, 255, 256, 257, 319, 320, 511, 512, 767, 768, 1002, 1003];
const examples: BatchExample[] = [0, 6, 11].map((from, i) => ({
  promptIds: [edges[from + 1] ?? 0, 700 + i],
  completionIds: edges.slice(from, from + 6),
  label: i !== 1,
}));
const objective: ObjectiveOptions = { beta: 0.3, desirableWeight: 1, undesirableWeight: 1.5, lossType: "kto" };
const batches = [packBatch(examples, { mismatched: true, maxLength: 64 })];

describe.each(["tied", "untied"] as const)("a vocabulary in windows, %s embeddings", (kind) => {
  const { policy, reference } = models[kind];

  it("log-probabilities are those of one window, bit by bit, and of float64", async () => {
    const prompts = [
      [5, 9],
      [1003, 256],
    ];
    const sequences = prompts.flatMap((promptIds) => edges.map((token) => ({ promptIds, completionIds: [token] })));
    const whole = await completionLogProbs(policy, sequences, 32);
    const windowed = await withLimits(LIMITS, () => completionLogProbs(policy, sequences, 32));
    expect([...windowed]).toEqual([...whole]);
    const exact = await float64Of(policy);
    const wanted = sequences.map((row) => exact.logProb(row.promptIds, row.completionIds));
    expectWithin("log-probabilities", windowed, wanted, (i) => 64 * EPSILON * Math.abs(wanted[i] ?? Number.NaN));
  });

  it("loss and gradients are those of float64, and the windows were there", async () => {
    const exact = exactStep(await float64Of(policy), await float64Of(reference), objective, [examples]);
    const run = async (): Promise<{ result: StepResult; dispatches: number }> => {
      const step = updateFor(policy, reference, objective, batches);
      try {
        const result = await gradientsOf(step, batches);
        return { result, dispatches: step.programs.reduce((sum, program) => sum + program.dispatches, 0) };
      } finally {
        step.free();
      }
    };
    const whole = await run();
    const windowed = await withLimits(LIMITS, run);
    for (const { result } of [whole, windowed]) {
      expectWithin("loss", [result.loss], [exact.loss], () => 1e-5);
      for (const [name, data] of result.tensors) {
        expect(relativeDistance(data, exact.gradients.get(name) ?? []), name).toBeLessThanOrEqual(1e-3);
      }
    }
    // Of each model: lookup and pass 1 in four windows instead of one. Of the policy: the lookup's gradient likewise,
    // and pass 2, three dispatches a window, in 16 windows of 64 tokens instead of 8 of 128.
    expect(windowed.dispatches - whole.dispatches).toBe(2 * (3 + 3) + 3 + 3 * (16 - 8));
  });
});

it.each(["tied", "untied"] as const)(
  "entropies and mean logits in windows are float64's, %s embeddings",
  async (kind) => {
    const { policy, reference } = models[kind];
    const wanted = exactTokenMetrics(await float64Of(policy), examples);
    await withLimits(LIMITS, async () => {
      const step = updateFor(policy, reference, objective, batches);
      await step.gradients(batches, 0, 0, { tokens: true });
      const found = objectiveMetrics(await device.download(step.objective.metrics), 0);
      step.free();
      for (const [name, value] of Object.entries(wanted)) {
        expectWithin(name, [found[name] ?? Number.NaN], [value], () => 1e-5 * Math.max(1, Math.abs(value)));
      }
    });
  },
);

describe("a vocabulary of which one binding does not hold a sixteenth", () => {
  it("is walked in smaller splits, to the log-probabilities of float64", async () => {
    // Sixteen splits would be of 512 tokens; a binding of LIMITS holds 256.
    const model = await load({ vocab_size: 5000 }, 6);
    const tokens = [0, 255, 256, 511, 512, 2047, 4864, 4999];
    const sequences = tokens.map((token) => ({ promptIds: [5, 9], completionIds: [token] }));
    const exact = await float64Of(model);
    const wanted = sequences.map((row) => exact.logProb(row.promptIds, row.completionIds));
    const windowed = await withLimits(LIMITS, () => completionLogProbs(model, sequences));
    expectWithin("log-probabilities", windowed, wanted, (i) => 64 * EPSILON * Math.abs(wanted[i] ?? Number.NaN));
    model.free();
  });
});

describe("generation", () => {
  it("from logits in windows draws the same tokens", async () => {
    // A prefill pass of 1024 rows of 32 columns needs 128 KiB; the table [5000, 16] needs more than twice that.
    const model = await load({ vocab_size: 5000 }, 5);
    const prompts = [4999, 2047, 2048, 4096, 7].map((token) => [token, 5, token]);
    const generate = async () => {
      const generator = new Generator(model, { maxBatch: 8, maxLength: 20 });
      try {
        const options = { maxNewTokens: 8, temperature: 1, topK: 0, topP: 1, seed: 3, eosTokenIds: [] };
        return await generator.generate(prompts, options);
      } finally {
        generator.free();
      }
    };
    const whole = await generate();
    expect(await withLimits({ maxStorageBufferBindingSize: 4 * 32 * 1024 }, generate)).toEqual(whole);
    const windows = new Set(whole.flatMap(({ ids }) => ids.map((id) => Math.floor(id / 2048))));
    expect(windows.size).toBe(3);
    model.free();
  });
});

describe("what no window helps", () => {
  it("is refused by name, size and limit", async () => {
    const failing = withLimits({ maxStorageBufferBindingSize: 4 * 16 * 64 }, () =>
      completionLogProbs(models.tied.policy, examples),
    );
    await expect(failing).rejects.toThrow(AdapterError);
    await expect(failing).rejects.toThrow(
      /^"qkv" of one layer needs \d+ bytes in one binding and the adapter .* binds at most 4096; /,
    );
  });
});
