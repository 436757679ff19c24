/** What a run is said to take: which update stands for all, what a warm run is, and that timing leaves no trace. */
import { mkdtempSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Device } from "../../../src/engine/gpu/device.ts";
import type { BatchExample } from "../../../src/kto/method/batch.ts";
import { RunPlan } from "../../../src/kto/method/run-plan.ts";
import { meanStep, secondsWhenWarm } from "../../../src/kto/method/warm-time.ts";
import { KtoTrainer, type TrainerInputs } from "../../../src/kto/trainer.ts";
import { wholeArena } from "../../helpers/arenas.ts";
import { bits } from "../../helpers/compare.ts";
import { sharedDevice } from "../../helpers/device.ts";
import { loadModel, readExamples } from "../../helpers/fixtures.ts";
import { temporaryFolder } from "../../helpers/folders.ts";

const device = await sharedDevice();
const folder = temporaryFolder();

it("the update whose size is nearest to the mean stands for all", () => {
  const row = (length: number): BatchExample => ({
    promptIds: Array.from({ length }, (_, i) => 3 + i),
    completionIds: [5, 6],
    label: true,
  });
  // Two rows an update, in the order of the file: 21, 1801, 201, 25, 1001 prompt tokens, 610 on average, 201 the
  // median.
  const lengths = [10, 11, 900, 901, 100, 101, 12, 13, 500, 501];
  const plan = new RunPlan(
    lengths.map(row),
    { mismatched: false, maxLength: 1000 },
    {
      per_device_train_batch_size: 2,
      gradient_accumulation_steps: 1,
      num_train_epochs: 1,
      max_steps: -1,
      seed: 1,
      shuffle_dataset: false,
      train_sampling_strategy: "sequential",
      group_by_length: false,
    },
  );
  expect(plan.rows(4)).toEqual([[8, 9]]);
  expect(meanStep(plan)).toBe(4);
});

describe("a warm run", () => {
  let now = 0;
  beforeEach(() => {
    vi.spyOn(performance, "now").mockImplementation(() => now);
  });
  afterEach(() => vi.restoreAllMocks());
  const idle = { idle: async () => {} } as Device;

  /** Seconds that each run takes in turn; what is told, and how many ran. */
  async function told(...seconds: number[]): Promise<[number, number]> {
    let runs = 0;
    const found = await secondsWhenWarm(idle, async () => {
      now += 1000 * (seconds[runs++] ?? Number.NaN);
    });
    return [found, runs];
  }

  it("is not the first one, and a long one is timed once", async () => {
    expect(await told(90, 30)).toEqual([30, 2]);
  });

  it("is the shorter of two where they are short", async () => {
    expect(await told(4, 1.2, 1, 0.5)).toEqual([1, 3]);
    expect(await told(4, 1, 1.2)).toEqual([1, 3]);
  });
});

it("timing a run leaves weights, memory and cache as they were", async () => {
  const cache = mkdtempSync(join(folder, "cache-"));
  vi.stubEnv("KTO_CACHE", cache);
  const memory = device.memory();
  const policy = await loadModel(device, "llama", "policy");
  const before = bits(await device.download(wholeArena(policy.weights)));
  const inputs: TrainerInputs = {
    policy,
    examples: readExamples("llama"),
    evalExamples: readExamples("llama"),
    outputFolder: join(folder, "nothing"),
    options: {
      ...{ max_steps: 40, learning_rate: 0.1, weight_decay: 0.5, per_device_train_batch_size: 3 },
      ...{ reference: "cached", eval_steps: 10, load_best_model_at_end: true },
    },
  };
  const times = await KtoTrainer.time(inputs);
  expect(times).toMatchObject({ updates: 40, evaluations: 4 });
  expect(times.secondsPerUpdate).toBeGreaterThan(0);
  const { updates, secondsPerUpdate, evaluations, secondsPerEvaluation, secondsOfReference } = times;
  expect(times.seconds).toBe(updates * secondsPerUpdate + evaluations * secondsPerEvaluation + secondsOfReference);
  expect(bits(await device.download(wholeArena(policy.weights)))).toEqual(before);
  expect([readdirSync(cache), readdirSync(folder).includes("nothing")]).toEqual([[], false]);
  expect(secondsOfReference).toBeGreaterThan(secondsPerEvaluation);
  (await KtoTrainer.create(inputs)).free();
  expect((await KtoTrainer.time(inputs)).secondsOfReference).toBe(0); // the cache holds it now
  const others = { ...inputs, evalExamples: readExamples("llama").slice(0, 4) };
  const halfHeld = await KtoTrainer.time(others);
  expect(halfHeld.secondsOfReference).toBe(halfHeld.secondsPerEvaluation);
  vi.unstubAllEnvs();
  policy.free();
  expect(device.memory()).toEqual(memory);
});
