/**
 * Training with moments of eight bits: near to f32 on the fixtures, the bytes that it saves, resumed to the same bits.
 */
import { describe, expect, it } from "vitest";
import { LEAST_CODED } from "../../src/engine/gpu/moments.ts";
import { Model } from "../../src/engine/model/model.ts";
import { KtoTrainer, type TrainerInputs } from "../../src/kto/trainer.ts";
import { eightBitDistance } from "../helpers/adamw-steps.ts";
import { arenaNumbers } from "../helpers/arenas.ts";
import { bits } from "../helpers/compare.ts";
import { sharedDevice } from "../helpers/device.ts";
import { FIXTURES, readExamples } from "../helpers/fixtures.ts";
import { freshPath, temporaryFolder } from "../helpers/folders.ts";
import { llamaConfig, randomModel } from "../helpers/models.ts";
import { EIGHT_BIT } from "../helpers/tolerances.ts";

const device = await sharedDevice();
const folder = temporaryFolder();

describe("moments of eight bits", () => {
  // scripts/family-matrix.ts has every fixture.
  it.each([...FIXTURES, "lfm2", "qwen3_5"] as const)(
    "%s: five updates are within a twentieth of those of f32 moments",
    async (name) => {
      const distance = await eightBitDistance(name, device);
      expect(distance).toBeGreaterThan(0);
      expect(distance).toBeLessThanOrEqual(EIGHT_BIT);
    },
  );

  type Options = NonNullable<TrainerInputs["options"]>;
  const OPTIONS: Options = {
    optim: "adamw_8bit",
    per_device_train_batch_size: 4,
    learning_rate: 1e-3,
    max_steps: 4,
    save_steps: 1,
    logging_steps: 1,
  };
  const model = randomModel(folder, llamaConfig({ hidden_size: 64, intermediate_size: 96, vocab_size: 130 }), 5);
  const examples = [...readExamples("llama"), ...readExamples("gpt2")];

  async function run(outputFolder: string | undefined, options: Options = {}, stopAfter = Number.POSITIVE_INFINITY) {
    const policy = await Model.load(device, await model);
    const inputs = { policy, examples, options: { ...OPTIONS, ...options } };
    const trainer = await KtoTrainer.create(outputFolder ? { ...inputs, outputFolder } : inputs);
    try {
      for await (const { step } of trainer) if (step >= stopAfter) break;
      const { moments, momentBytes: bytes } = trainer.update.optimizer;
      const { first, coded } = moments;
      return {
        weights: await arenaNumbers(policy.weights),
        parameters: policy.layout.parameterCount,
        small: first.layout.parameterCount,
        coded: coded.size,
        bytes,
        measured: device.memory().optimizer ?? Number.NaN,
      };
    } finally {
      trainer.free();
      policy.free();
    }
  }

  it("take 2 bytes and 8 a block of large parameters, and small ones keep f32", async () => {
    const [eight, whole] = [await run(undefined), await run(undefined, { optim: "adamw_torch" })];
    expect(eight.coded).toBeGreaterThan(3);
    expect(eight.small).toBeLessThan(eight.parameters / 3);
    expect(whole.bytes).toBe(8 * whole.parameters);
    const large = eight.parameters - eight.small;
    expect(eight.bytes).toBeGreaterThanOrEqual(8 * eight.small + 2 * large + (8 * large) / 256);
    expect(eight.bytes).toBeLessThan(8 * eight.small + 2.05 * large + 8 * eight.coded);
    expect(whole.measured - eight.measured).toBeGreaterThan(5.5 * large - 4096);
    expect(LEAST_CODED).toBe(4096);
  });

  it("a run that is broken off and resumed ends in the same bits", async () => {
    const path = freshPath(folder, "resumed");
    const whole = await run(freshPath(folder, "whole"));
    await run(path, {}, 2);
    const resumed = await run(path, { resume_from_checkpoint: true });
    expect(bits(resumed.weights)).toEqual(bits(whole.weights));
  });
});
