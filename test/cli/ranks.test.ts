/**
 * `kto train` under a real mpirun: what ends a run ends it on all ranks, within the timeout, with one sentence that names
 * it, and nothing stays behind. The short form of scripts/ranks-test.ts, which kills more often and in more ways. Where
 * there is no Open MPI, each test says so and is skipped; CI installs it.
 */
import { cpSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  alive,
  errorLines,
  faultRun,
  hasCheckpoint,
  kill,
  MpiRun,
  missingMpi,
  model,
  resultOf,
  TwoMachines,
  trainWords,
  weightDifference,
} from "../../scripts/ranks-test.ts";
import { temporaryFolder } from "../helpers/folders.ts";

const folder = temporaryFolder();
const missing = missingMpi();
if (missing !== undefined) console.warn(`Runs of several ranks are not tested here: ${missing}.`);

describe.skipIf(missing !== undefined)("two ranks", () => {
  test("train as one process does with twice the rows, to the same numbers", async () => {
    const [two, one] = [join(folder, "two"), join(folder, "one")];
    const words = trainWords(two, "--max_steps", "2");
    const { code, text } = await new MpiRun([words, words]).end();
    expect({ code, text }).toMatchObject({ code: 0 });
    expect(errorLines(text)).toEqual([]);
    const alone = new MpiRun([trainWords(one, "--max_steps", "2", "--per_device_train_batch_size", "4")]);
    expect((await alone.end()).code).toBe(0);
    expect(weightDifference(resultOf(two).weights, resultOf(one).weights)).toBeLessThan(1e-6);
  });

  test.each([0, 1])("end where rank %i is killed, and go on from the checkpoint", async (victim) => {
    const output = join(folder, `killed-${victim}`);
    const words = trainWords(output, "--max_steps", "100000");
    const act = (ranks: readonly number[]) => kill(ranks[victim] ?? 0, "SIGKILL");
    const result = await faultRun("kill", new MpiRun([words, words]), () => hasCheckpoint(output), act);
    expect(result).toMatchObject({ code: 137, orphans: 0 });
    expect(result.lines).toEqual([
      expect.stringMatching(new RegExp(`^error: rank ${victim} \\(.*\\) ended without a word`)),
    ]);
  });

  test("end where one hangs", async () => {
    const output = join(folder, "stopped");
    const words = trainWords(output, "--max_steps", "100000", "--rank_timeout", "8");
    const act = (ranks: readonly number[]) => kill(ranks[1] ?? 0, "SIGSTOP");
    const result = await faultRun("stop", new MpiRun([words, words]), () => hasCheckpoint(output), act);
    expect(result).toMatchObject({ code: 11, orphans: 0 });
    expect(result.lines).toEqual([expect.stringMatching(/^error: nothing was heard of rank 1 \(.*\) for \d/)]);
  });

  test("that do not have the same options, or files, do not start", async () => {
    const copy = join(folder, "model");
    cpSync(model, copy, { recursive: true });
    const config = join(copy, "config.json");
    writeFileSync(config, `${readFileSync(config, "utf8")}\n`);
    const output = join(folder, "differ");
    for (const [more, sentence] of [
      [["--beta", "0.3"], /^error: rank 1 \(.*\) has beta 0\.3, and rank 0 has 0\.1: start all ranks with the same/],
      [["--model_name_or_path", copy], /^error: rank 1 \(.*\) has another config\.json in its model_name_or_path/],
    ] as const) {
      const { code, text } = await new MpiRun([trainWords(output), trainWords(output, ...more)]).end();
      expect({ code, lines: errorLines(text) }).toEqual({ code: 11, lines: [expect.stringMatching(sentence)] });
    }
    expect(existsSync(output)).toBe(false);
  });

  test("on two machines end where the cable between them is cut", async () => {
    let machines: TwoMachines;
    try {
      machines = new TwoMachines(folder);
    } catch (error) {
      console.warn(`Two machines are not tested here, since network namespaces cannot be made: ${error}`);
      return;
    }
    const pids: number[] = [];
    try {
      const output = join(folder, "cable");
      const run = machines.run(trainWords(output, "--max_steps", "100000", "--rank_timeout", "8"));
      const cut = (ranks: readonly number[]) => {
        pids.push(...ranks);
        machines.cut();
      };
      const result = await faultRun("cable", run, () => hasCheckpoint(output), cut);
      expect(result.lines.length).toBeGreaterThan(0);
      for (const line of result.lines) expect(line).toMatch(/nothing was heard of rank \d \(machine-[ab], /);
      expect(alive(pids)).toEqual([]);
    } finally {
      machines.remove();
    }
  });
});
