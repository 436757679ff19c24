/** Log-probabilities of completions as a call: its batches, its refusals, the memory that it gives back. */

import { afterAll, describe, expect, it, vi } from "vitest";
import { Random } from "../../../src/engine/random.ts";
import { ConfigError, DatasetError } from "../../../src/errors.ts";
import { checkGradients } from "../../../src/kto/gradcheck.ts";
import { completionLogProbs } from "../../../src/kto/method/log-probs.ts";
import type { ObjectiveOptions } from "../../../src/kto/method/objective.ts";
import { arenaSize } from "../../helpers/arenas.ts";
import { EPSILON, expectWithin } from "../../helpers/compare.ts";
import { sharedDevice, withLimits } from "../../helpers/device.ts";
import { float64Fixture, loadModel, readExamples } from "../../helpers/fixtures.ts";

const device = await sharedDevice();
const model = await loadModel(device, "gpt2", "policy");
afterAll(() => model.free());

const examples = readExamples("gpt2");
const objective: ObjectiveOptions = { beta: 0.1, desirableWeight: 1, undesirableWeight: 1, lossType: "kto" };

/** gpt2's context is 64 tokens. */
const wrong = [
  ["an empty prompt", { promptIds: [], completionIds: [1] }, "has an empty prompt; it needs one token or more."],
  [
    "an empty completion",
    { promptIds: [1], completionIds: [] },
    "has an empty completion; it needs one token or more.",
  ],
  [
    "more tokens than the context",
    { promptIds: new Array(60).fill(3), completionIds: [1, 2, 3, 4, 5] },
    "has 65 tokens, more than the model's context of 64; cut or drop it.",
  ],
  [
    "a token outside the vocabulary",
    { promptIds: [1], completionIds: [96] },
    "holds token id 96, outside the model's vocabulary of 96.",
  ],
] as const;

describe("completionLogProbs", () => {
  it("follows float64 over lengths from one token to the whole context, whatever the batch size", async () => {
    const random = new Random(5);
    const ids = (count: number) => Array.from({ length: count }, () => random.below(96));
    const lengths: [number, number][] = [
      [1, 1],
      [1, 63],
      [63, 1],
      [32, 32],
      [5, 9],
      [17, 2],
      [2, 30],
    ];
    const sequences = lengths.map(([prompt, completion]) => ({
      promptIds: ids(prompt),
      completionIds: ids(completion),
    }));
    const exact = float64Fixture("gpt2", "policy");
    const wanted = sequences.map((row) => exact.logProb(row.promptIds, row.completionIds));
    for (const batchSize of [1, 3, 8]) {
      const logProbs = await completionLogProbs(model, sequences, batchSize);
      expectWithin(
        `batches of ${batchSize}`,
        logProbs,
        wanted,
        (i) => 64 * EPSILON * Math.abs(wanted[i] ?? Number.NaN),
      );
    }
  });

  it("gives back its memory, and nothing for nothing", async () => {
    const before = device.memory();
    await completionLogProbs(model, examples, 2);
    expect(device.memory()).toEqual(before);
    expect(await completionLogProbs(model, [])).toEqual(new Float64Array(0));
  });

  it("leaves nothing behind where its memory does not fit", async () => {
    const before = device.memory();
    // The MLP's activations (32 KiB) do not fit, all before them do.
    await withLimits({ maxBufferSize: 32_000 }, async () => {
      await expect(completionLogProbs(model, examples, 2)).rejects.toThrow(/^"up" needs \d+ bytes .* allows 32000; /);
    });
    expect(device.memory()).toEqual(before);
  });

  it.each(wrong)("refuses %s, by its number", async (_, sequence, message) => {
    const error = await completionLogProbs(model, [...examples, sequence]).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(DatasetError);
    expect((error as Error).message).toBe(`Example 6 of 6 ${message}`);
  });

  it("takes memory for the sequences that there are, however many may be computed at once", async () => {
    const allocate = vi.spyOn(device, "allocate");
    expect(await completionLogProbs(model, examples, 1e9)).toHaveLength(examples.length);
    expect(allocate.mock.calls.find(([, label]) => label === "log-probs")?.[2]).toEqual([examples.length]);
    allocate.mockRestore();
  });

  it.each([0, -1, 1.5, Number.NaN])("refuses a batch size of %d", async (batchSize) => {
    await expect(completionLogProbs(model, examples, batchSize)).rejects.toThrow(ConfigError);
  });
});

describe("checkGradients", () => {
  it("leaves nothing behind where its memory does not fit", async () => {
    const before = device.memory();
    // Activations fit, the arena of gradients does not.
    await withLimits({ maxBufferSize: 4 * arenaSize(model.layout) - 256 }, async () => {
      const failing = checkGradients({ policy: model, reference: model, examples: examples.slice(0, 2), objective });
      await expect(failing).rejects.toThrow(/^"gradients" needs \d+ bytes/);
    });
    expect(device.memory()).toEqual(before);
  });

  it("refuses no examples at all, and an objective without a scale", async () => {
    const check = (changes: object) =>
      checkGradients({ policy: model, reference: model, examples, objective, ...changes });
    await expect(check({ examples: [] })).rejects.toThrow(
      new DatasetError("There are no examples to check gradients on; give one or more."),
    );
    await expect(check({ objective: { ...objective, beta: 0 } })).rejects.toThrow(
      new ConfigError("beta of the objective is 0; it must be a number above 0."),
    );
    await expect(check({ objective: { ...objective, lossType: "dpo" } })).rejects.toThrow(
      new ConfigError('lossType of the objective is "dpo"; it must be "kto" or "apo_zero_unpaired".'),
    );
  });

  it.each(wrong)("refuses %s, by its number", async (_, sequence, message) => {
    const error = await checkGradients({
      policy: model,
      reference: model,
      examples: [...examples, { ...sequence, label: true }],
      objective,
    }).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(DatasetError);
    expect((error as Error).message).toBe(`Example 6 of 6 ${message}`);
  });
});
