/**
 * Runs whose kernels the tuner really chose: a model just large enough to be worth its measurements, on devices of
 * their own, since a choice stands once it is made.
 */
import { mkdtempSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { expect, it, onTestFinished, vi } from "vitest";
import { Device } from "../../../src/engine/gpu/device.ts";
import { Model } from "../../../src/engine/model/model.ts";
import { Random } from "../../../src/engine/random.ts";
import type { TrainingStep } from "../../../src/kto/run/callbacks.ts";
import { KtoTrainer } from "../../../src/kto/trainer.ts";
import { wholeArena } from "../../helpers/arenas.ts";
import { bits } from "../../helpers/compare.ts";
import { sharedDevice } from "../../helpers/device.ts";
import { temporaryFolder } from "../../helpers/folders.ts";
import { llamaConfig, randomModel } from "../../helpers/models.ts";

const folder = temporaryFolder();
const { kind } = await sharedDevice();
const model = await randomModel(
  folder,
  llamaConfig({
    ...{ vocab_size: 256, hidden_size: 256, num_attention_heads: 4, num_key_value_heads: 2 },
    ...{ intermediate_size: 512, max_position_embeddings: 128 },
  }),
  1,
);

const random = new Random(2);
const ids = (length: number) => Array.from({ length }, () => 3 + random.below(250));
const examples = Array.from({ length: 4 }, (_, i) => ({
  promptIds: ids(40),
  completionIds: ids(60),
  label: i % 2 === 0,
}));

/** A device with a tuner that remembers nothing yet, and its cache folder. */
async function freshDevice(): Promise<{ device: Device; cache: string }> {
  const device = await Device.open({ adapter: kind, tuning: "on" });
  onTestFinished(() => device.close());
  return { device, cache: mkdtempSync(join(folder, "cache-")) };
}

/** Three updates, or those that are left, with the reference's log-probabilities computed before them. */
async function train(
  { device, cache }: Awaited<ReturnType<typeof freshDevice>>,
  outputFolder: string,
  { resume = false, stopAfter }: { resume?: boolean; stopAfter?: number } = {},
) {
  vi.stubEnv("KTO_CACHE", cache);
  const policy = await Model.load(device, model, { storage: "f32" });
  try {
    const trainer = await KtoTrainer.create({
      ...{ policy, examples, outputFolder },
      options: {
        ...{
          max_steps: 3,
          learning_rate: 1e-5,
          beta: 0.01,
          per_device_train_batch_size: 4,
          logging_steps: 1,
          save_steps: 1,
        },
        ...{ precompute_ref_log_probs: true, resume_from_checkpoint: resume },
      },
    });
    const steps: TrainingStep[] = [];
    for await (const step of trainer) {
      steps.push(step);
      if (step.step === stopAfter) break;
    }
    trainer.free();
    const weights = bits(await device.download(wholeArena(policy.weights)));
    return { weights, note: trainer.referenceNote, last: steps.at(-1)?.metrics?.loss };
  } finally {
    policy.free();
    vi.unstubAllEnvs();
  }
}

it("a run goes on with the kernels of its checkpoint to the same bits, on a device that would choose others", async () => {
  const tuned = await freshDevice();
  const found = await train(tuned, mkdtempSync(join(folder, "run-")), { stopAfter: 1 });
  const { choices } = tuned.device.tuner;
  expect(Object.keys(choices).length).toBeGreaterThan(2);
  expect(found.note).toMatch(/^log-probabilities of the reference computed for 3 updates/);
  // What the other device will hardly measure to be the fastest.
  const rivals: Record<string, string> = {
    ...{ subgroup16: "subgroup32", subgroup32: "subgroup16" },
    ...{ registers64: "workgroup64x64", workgroup64x64: "registers64", workgroup128x64: "registers64" },
    workgroup128x128: "registers64",
  };
  const others = Object.entries(choices).map(([key, name]) => [key, rivals[name]]);
  tuned.device.tuner.adopt(Object.fromEntries(others));
  const whole = await train(tuned, mkdtempSync(join(folder, "run-")));
  // Not those of the other kernels.
  expect(whole.note).toMatch(/^log-probabilities of the reference computed for 3 updates/);
  const output = mkdtempSync(join(folder, "run-"));
  const broken = await train(tuned, output, { stopAfter: 1 });
  expect(broken.note).toMatch(/^log-probabilities of the reference read from /);
  const other = await freshDevice();
  const resumed = await train(other, output, { resume: true });
  expect(resumed.note).toMatch(/^log-probabilities of the reference computed for 3 updates/);
  expect(other.device.tuner.choices).toEqual(tuned.device.tuner.choices);
  expect(readdirSync(other.cache)).not.toContain("tuning"); // nothing was measured, not for the reference either
  expect(resumed.last).toBe(whole.last);
  expect(resumed.weights).toEqual(whole.weights);
});
