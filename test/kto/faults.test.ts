/** What a run does when the device is lost under it or cannot hold it. */
import { mkdirSync } from "node:fs";
import { afterEach, expect, it, vi } from "vitest";
import { Device } from "../../src/engine/gpu/device.ts";
import { Model } from "../../src/engine/model/model.ts";
import { platform } from "../../src/engine/platform/index.ts";
import { AdapterError, DeviceLostError } from "../../src/errors.ts";
import { type RecordedRun, RunRecord } from "../../src/kto/run/record.ts";
import { KtoTrainer } from "../../src/kto/trainer.ts";
import { sharedDevice, withLimits } from "../helpers/device.ts";
import { readExamples } from "../helpers/fixtures.ts";
import { freshPath, llama, temporaryFolder } from "../helpers/folders.ts";
import { localRanks } from "../helpers/local-ranks.ts";

const folder = temporaryFolder();
afterEach(() => {
  vi.restoreAllMocks();
});

it.each([
  [
    "after a checkpoint",
    1,
    /It was after step \d; .*checkpoint-1 holds the run up to step 1: go on from there with resume/,
  ],
  ["before the first", 5, /It was after step \d; no checkpoint was saved, so the run starts from its beginning\.$/],
])("a device lost %s: exit code 6, and what was saved", async (_, save_steps, sentence) => {
  const device = await Device.open();
  const path = freshPath(folder, "run");
  mkdirSync(path);
  const policy = await Model.load(device, llama, { storage: "f32" });
  const trainer = await KtoTrainer.create({
    policy,
    examples: readExamples("llama"),
    outputFolder: path,
    options: { max_steps: 9, save_steps, per_device_train_batch_size: 2 },
  });
  const run = async () => {
    for await (const { step } of trainer) if (step === 1) device.gpu.destroy();
  };
  const error = await run().then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(DeviceLostError);
  expect((error as DeviceLostError).exitCode).toBe(6);
  expect((error as DeviceLostError).message).toMatch(sentence);
  device.close();
});

it("of several ranks the first alone tells what is saved, since the others do not know it", () => {
  const [first, second] = localRanks(2).map((ranks) => {
    const record = new RunRecord({ inputs: { ranks } } as unknown as RecordedRun);
    return record.afterLoss(new DeviceLostError("The device was lost.")).message;
  });
  expect(first).toMatch(/It was after step 0; no checkpoint was saved, so the run starts from its beginning\.$/);
  expect(second).toBe("The device was lost. It was after step 0.");
});

const rows = Array.from({ length: 4 }, () => readExamples("llama")).flat();
const options = { max_steps: 1, per_device_train_batch_size: 16, shuffle_dataset: false };

it("a run that a buffer's limit refuses says which microbatch fits, and that one does", async () => {
  const within = async (
    maxBufferSize: number,
    work: (create: (size: number) => Promise<KtoTrainer>) => Promise<void>,
  ) => {
    await withLimits({ maxBufferSize }, async (device) => {
      const policy = await Model.load(device, llama, { storage: "f32" });
      const sized = (size: number) => ({ ...options, per_device_train_batch_size: size });
      await work((size) => KtoTrainer.create({ policy, examples: rows, options: sized(size) }));
      policy.free();
    });
  };
  await within(60_000, async (create) => {
    const error = await create(16).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(AdapterError);
    const told = /By the plan a per_device_train_batch_size of (\d+) fits, with [\d.]+ MiB\.$/.exec(String(error));
    const fits = Number(told?.[1]);
    (await create(fits)).free();
    await expect(create(fits + 1)).rejects.toThrow(AdapterError);
  });
  await within(20_000, async (create) => {
    await expect(create(16)).rejects.toThrow("By the plan no per_device_train_batch_size fits");
  });
});

it("a software adapter is not asked for more memory than the machine has", async () => {
  const policy = await Model.load(await sharedDevice(), llama, { storage: "f32" });
  vi.spyOn(platform, "hostMemoryBytes").mockReturnValue(1e5);
  vi.spyOn(await sharedDevice(), "isSoftware", "get").mockReturnValue(true);
  await expect(KtoTrainer.create({ policy, examples: rows, options })).rejects.toThrow(
    /^The run needs [\d.]+ MiB of device memory, which on the software adapter ".*" is this machine's, and it has 0\.1 MiB\. By the plan /,
  );
  policy.free();
});
