/**
 * The final save where the output folder cannot be written: the training is not lost, and the sentence says where it
 * is.
 */
import { existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { afterEach, describe, expect, it, vi } from "vitest";
import { Model } from "../../../src/engine/model/model.ts";
import { platform } from "../../../src/engine/platform/index.ts";
import { FileError, NumericError } from "../../../src/errors.ts";
import { saveOrRescue } from "../../../src/kto/run/rescue.ts";
import { KtoTrainer, type TrainerInputs } from "../../../src/kto/trainer.ts";
import { wholeArena } from "../../helpers/arenas.ts";
import { bits } from "../../helpers/compare.ts";
import { sharedDevice } from "../../helpers/device.ts";
import { readExamples } from "../../helpers/fixtures.ts";
import { freshPath, llama, temporaryFolder } from "../../helpers/folders.ts";

const device = await sharedDevice();
const folder = temporaryFolder();
const write = platform.writeFileAtomic.bind(platform);
afterEach(() => {
  vi.restoreAllMocks();
});

/** Trains two updates and saves them, with no space in folders for which `full` is true. */
async function trainAndSave(full: (path: string) => boolean, options: TrainerInputs["options"] = {}) {
  const output = freshPath(folder, "run");
  const policy = await Model.load(device, llama, { storage: "f32" });
  const trainer = await KtoTrainer.create({
    policy,
    examples: readExamples("llama"),
    outputFolder: output,
    options: { max_steps: 2, per_device_train_batch_size: 4, save_strategy: "no", ...options },
    onWarning: () => undefined,
  });
  try {
    for await (const _ of trainer);
    vi.spyOn(platform, "writeFileAtomic").mockImplementation(async (path, chunks) => {
      if (full(path)) throw new FileError(`Cannot write ${path}: no space is left on the disk.`);
      await write(path, chunks);
    });
    const error = await saveOrRescue(trainer, output, async (place) => {
      await trainer.save(place);
      await trainer.saveState(place);
    }).then(
      () => undefined,
      (thrown: unknown) => thrown as Error,
    );
    return { output, error, weights: bits(await device.download(wholeArena(policy.weights))) };
  } finally {
    trainer.free();
    policy.free();
  }
}

async function weightsIn(place: string): Promise<unknown> {
  const model = await Model.load(device, place);
  const weights = bits(await device.download(wholeArena(model.weights)));
  model.free();
  return weights;
}

describe("a folder that cannot be written, without a checkpoint of the last update", () => {
  it("what was trained is saved beside it, whole", async () => {
    const { output, error, weights } = await trainAndSave((path) => path.includes("/run/"));
    expect(error).toBeInstanceOf(FileError);
    expect(error?.message).toMatch(
      new RegExp(
        `^Cannot write ${output}/.*: no space is left on the disk. What was trained, 2 updates, is saved in ${output}-rescued: move it from there.$`,
      ),
    );
    expect(existsSync(join(`${output}-rescued`, "trainer_state.json"))).toBe(true);
    expect(await weightsIn(`${output}-rescued`)).toEqual(weights);
  });

  it("else in the folder for temporary files, under a name that is free", async () => {
    const temporary = freshPath(folder, "temporary");
    vi.spyOn(platform, "temporaryFolder").mockReturnValue(temporary);
    mkdirSync(join(temporary, "run-rescued"), { recursive: true });
    const { output, error, weights } = await trainAndSave((path) => !path.startsWith(temporary));
    const place = join(temporary, "run-rescued-2");
    expect(error?.message).toContain(`is saved in ${place}: move it from there.`);
    expect(await weightsIn(place)).toEqual(weights);
    expect(existsSync(`${output}-rescued`)).toBe(false); // nothing half written stays
  });

  it("and where there is no place at all, that is said", async () => {
    const { output, error } = await trainAndSave(() => true);
    expect(error?.message).toMatch(/Nor could it be saved beside that folder or in the folder for temporary files\.$/);
    expect(readdirSync(dirname(output))).toEqual(["run"]);
    expect(readdirSync(tmpdir()).filter((name) => name.startsWith(`${basename(output)}-rescued`))).toEqual([]);
  });

  it("an earlier checkpoint is named besides", async () => {
    vi.spyOn(platform, "writeFileAtomic").mockImplementation(async (path, chunks) => {
      if (path.includes(".checkpoint-2.writing")) throw new FileError(`Cannot write ${path}: no space.`);
      await write(path, chunks);
    });
    const full = (path: string) => /\/run\/[^/]+$/.test(path);
    const { output, error } = await trainAndSave(full, { save_strategy: "steps", save_steps: 1 });
    expect(error?.message).toContain(
      `The training is not lost: ${join(output, "checkpoint-1")} holds the run up to step 1: go on from there with resume_from_checkpoint. What was trained, 2 updates, is saved in ${output}-rescued`,
    );
  });
});

it("a checkpoint of the last update holds the training: it is named, and nothing is saved elsewhere", async () => {
  const full = (path: string) => path.includes("/run/");
  const { output, error } = await trainAndSave(full, { save_strategy: "steps", save_steps: 2 });
  expect(error?.message).toMatch(
    /: no space is left on the disk\. The training is not lost: .*checkpoint-2 holds the run/,
  );
  expect(readdirSync(dirname(output))).toEqual(["run"]);
});

it("a folder that is a file is no other case, and an error that is not of files goes through", async () => {
  const run = { stepsDone: 1, lastCheckpoint: undefined };
  const taken = freshPath(folder, "taken");
  writeFileSync(taken, "");
  const saved: string[] = [];
  const save = async (place: string) => {
    await platform.makeFolder(place);
    saved.push(place);
  };
  await expect(saveOrRescue(run, taken, save)).rejects.toThrow(`1 update, is saved in ${taken}-rescued`);
  expect(saved).toEqual([`${taken}-rescued`]);
  const diverged = new NumericError("not finite");
  await expect(saveOrRescue(run, taken, () => Promise.reject(diverged))).rejects.toBe(diverged);
});
