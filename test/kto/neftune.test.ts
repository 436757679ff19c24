/**
 * NEFTune in training: the first update's gradient is that of embeddings with the twin's noise, of the policy alone; a
 * run that is resumed draws the same noise, and evaluations draw none.
 */
import { afterAll, expect, it } from "vitest";
import type { TrainerOptions } from "../../src/kto/options/kto.ts";
import { KtoTrainer } from "../../src/kto/trainer.ts";
import { wholeArena } from "../helpers/arenas.ts";
import { bits } from "../helpers/compare.ts";
import { sharedDevice } from "../helpers/device.ts";
import { loadModel, readExamples } from "../helpers/fixtures.ts";
import { freshPath, temporaryFolder } from "../helpers/folders.ts";

const device = await sharedDevice();
const folder = temporaryFolder();
const examples = readExamples("llama");
const reference = await loadModel(device, "llama", "policy");
afterAll(() => reference.free());

async function train(changes: Partial<TrainerOptions>, outputFolder?: string) {
  const policy = await loadModel(device, "llama", "policy");
  const options: Partial<TrainerOptions> = {
    ...{ learning_rate: 1e-3, lr_scheduler_type: "constant", max_steps: 2, per_device_train_batch_size: 4 },
    ...{ shuffle_dataset: false, logging_steps: 1, seed: 7, save_strategy: "no", ...changes },
  };
  const output = outputFolder === undefined ? {} : { outputFolder };
  const trainer = await KtoTrainer.create({ policy, reference, examples, options, ...output });
  const losses: number[] = [];
  for await (const { metrics } of trainer) if (metrics) losses.push(metrics.loss ?? Number.NaN);
  const weights = bits(await device.download(wholeArena(policy.weights)));
  trainer.free();
  policy.free();
  return { losses, weights };
}

it("moves the policy's log-probs and not the reference's, the same for the same seed", async () => {
  const plain = await train({});
  const noisy = await train({ neftune_noise_alpha: 5 });
  // The policy is the reference, so without noise the first loss is 0.5 or so at a log-ratio of 0.
  expect(plain.losses[0]).toBeCloseTo(0.5, 5);
  expect(Math.abs((noisy.losses[0] ?? 0) - 0.5)).toBeGreaterThan(1e-4);
  expect(noisy.weights).not.toEqual(plain.weights);
  expect((await train({ neftune_noise_alpha: 5 })).weights).toEqual(noisy.weights);
  expect((await train({ neftune_noise_alpha: 5, seed: 8 })).weights).not.toEqual(noisy.weights);
});

it("a run that is resumed draws the same noise", async () => {
  const output = freshPath(folder, "run");
  const whole = await train({ neftune_noise_alpha: 5, max_steps: 3 });
  const noisy = { neftune_noise_alpha: 5, max_steps: 3 };
  await train({ ...noisy, save_strategy: "steps", save_steps: 1 }, output);
  const resumed = await train({ ...noisy, resume_from_checkpoint: `${output}/checkpoint-1` }, output);
  expect(resumed.weights).toEqual(whole.weights);
});
