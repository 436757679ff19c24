/**
 * Two runs and one output folder: the second one is refused while the first is there, a lock that a killed process left
 * is taken over, and nothing of a lock stays behind.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, utimesSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { Model } from "../../../src/engine/model/model.ts";
import { platform } from "../../../src/engine/platform/index.ts";
import { FileError } from "../../../src/errors.ts";
import { LOCK_FILE, lockFolder } from "../../../src/kto/run/lock.ts";
import { KtoTrainer } from "../../../src/kto/trainer.ts";
import { sharedDevice } from "../../helpers/device.ts";
import { readExamples } from "../../helpers/fixtures.ts";
import { freshPath, llama, temporaryFolder } from "../../helpers/folders.ts";

const device = await sharedDevice();
const folder = temporaryFolder();
const policy = await Model.load(device, llama, { storage: "f32" });
afterAll(() => policy.free());

const examples = readExamples("llama");
const start = (outputFolder: string) => {
  const options = { max_steps: 2, per_device_train_batch_size: 4 };
  return KtoTrainer.create({ policy, examples, outputFolder, options });
};

/** A process that has ended. */
const ended = spawnSync(process.execPath, ["-e", ""]).pid;

function withLock(holder: string): string {
  const output = freshPath(folder, "run");
  mkdirSync(output);
  writeFileSync(join(output, LOCK_FILE), holder);
  return output;
}

const holder = (process: number, host: string) => JSON.stringify({ process, host, since: "2026-11-30T10:00:00.000Z" });

describe("two runs in one output folder", () => {
  it("the second one is told who has it, and takes no memory; it starts once the first is freed", async () => {
    const output = freshPath(folder, "run");
    const first = await start(output);
    expect(JSON.parse(readFileSync(join(output, LOCK_FILE), "utf8"))).toMatchObject({
      process: process.pid,
      host: hostname(),
    });
    const before = device.memory();
    const second = start(output);
    await expect(second).rejects.toThrow(FileError);
    await expect(second).rejects.toThrow(
      new RegExp(`^The output folder .*run is in use by another training \\(process ${process.pid} on .*, since 20`),
    );
    expect(device.memory()).toEqual(before);
    for await (const _ of first);
    first.free();
    expect(readdirSync(output)).toEqual(["checkpoint-2"]);
    (await start(output)).free();
    expect(existsSync(join(output, LOCK_FILE))).toBe(false);
  });

  it("a first run that is freed once more leaves the folder to the second one", async () => {
    const output = freshPath(folder, "run");
    const first = await start(output);
    first.free();
    const second = await start(output);
    first.free();
    expect(existsSync(join(output, LOCK_FILE))).toBe(true);
    await expect(start(output)).rejects.toThrow(/in use by another training/);
    second.free();
    expect(readdirSync(output)).toEqual([]);
  });

  it("a run that is refused for another reason gives the folder back", async () => {
    const output = freshPath(folder, "run");
    const options = { resume_from_checkpoint: true };
    await expect(KtoTrainer.create({ policy, examples, outputFolder: output, options })).rejects.toThrow(
      /no checkpoint/,
    );
    expect(existsSync(output)).toBe(false);
  });

  it("a planned time neither takes the folder nor makes it", async () => {
    const output = freshPath(folder, "run");
    const options = { max_steps: 1, per_device_train_batch_size: 4 };
    await KtoTrainer.time({ policy, examples, outputFolder: output, options });
    expect(existsSync(output)).toBe(false);
  });
});

describe("a lock that is there already", () => {
  it.each([
    ["of a process that was killed", () => holder(ended, hostname())],
    ["of an earlier process with our number", () => holder(process.pid, hostname())],
  ])("%s is taken over", async (_, text) => {
    const output = withLock(text());
    const release = await lockFolder(output);
    expect(JSON.parse(readFileSync(join(output, LOCK_FILE), "utf8")).process).toBe(process.pid);
    release?.();
    expect(readdirSync(output)).toEqual([]);
  });

  it.each([
    ["of a process that lives", () => holder(process.ppid, hostname()), / \(process \d+ on .*, since 2026-11-30T10/],
    ["of another machine", () => holder(ended, "elsewhere"), / \(process \d+ on elsewhere, since/],
    ["that is being written", () => "", /by another training: choose another output_dir/],
  ])("%s is respected, and the sentence names the file", async (_, text, message) => {
    const output = withLock(text());
    const refused = lockFolder(output);
    await expect(refused).rejects.toThrow(message);
    await expect(refused).rejects.toThrow(`if there is no such training any more, remove ${join(output, LOCK_FILE)}.`);
    expect(readFileSync(join(output, LOCK_FILE), "utf8")).toBe(text());
  });

  it("that nobody finished writing long ago is taken over", async () => {
    const output = withLock("{");
    utimesSync(join(output, LOCK_FILE), new Date(0), new Date(0));
    (await lockFolder(output))?.();
    expect(readdirSync(output)).toEqual([]);
  });

  it("of many that want a stale one at once, one has it", async () => {
    const output = withLock(holder(ended, hostname()));
    const found = await Promise.all(Array.from({ length: 12 }, () => platform.holdFile(join(output, LOCK_FILE))));
    expect(found.filter((one) => "release" in one)).toHaveLength(1);
    for (const one of found) if ("release" in one) one.release();
    expect(readdirSync(output)).toEqual([]);
  });

  it("a lock that was removed by hand and taken by another is not removed by the first", async () => {
    const output = freshPath(folder, "run");
    const release = await lockFolder(output);
    const other = holder(process.ppid, hostname());
    writeFileSync(join(output, LOCK_FILE), other);
    release?.();
    expect(readFileSync(join(output, LOCK_FILE), "utf8")).toBe(other);
  });
});

it("the end of the process gives the folder back, also where it is not freed", () => {
  const output = freshPath(folder, "run");
  const program = `import { lockFolder } from "./src/kto/run/lock.ts";
    await lockFolder(${JSON.stringify(output)}); process.exit(3);`;
  const words = ["--import", "tsx", "--input-type=module", "-e", program];
  expect(spawnSync(process.execPath, words, { encoding: "utf8" })).toMatchObject({ status: 3, stderr: "" });
  expect(readdirSync(output)).toEqual([]);
});
