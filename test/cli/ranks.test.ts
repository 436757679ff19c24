/**
 * `kto train` under a real mpirun: what ends a run ends it on all ranks, within the timeout, with one sentence that names
 * it, and nothing stays behind. The short form of scripts/ranks-test.ts, which has all other faults and two machines. Where
 * there is no Open MPI, each test says so and is skipped; CI installs it.
 */
import { cpSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { stopRun } from "../../scripts/ranks-forms.ts";
import {
  allFaults,
  compareMachines,
  errorLines,
  faultRun,
  feedback,
  hasCheckpoint,
  kill,
  MpiRun,
  missingMachines,
  missingMpi,
  model,
  TwoMachines,
  trainWords,
} from "../../scripts/ranks-test.ts";
import { temporaryFolder } from "../helpers/folders.ts";

const folder = temporaryFolder();
/** A busy machine must not take this long over one thing, such as compiling a kernel. */
const TIMEOUT_SECONDS = 15;
const missing = missingMpi();
if (missing !== undefined) console.warn(`Runs of several ranks are not tested here: ${missing}.`);

describe.skipIf(missing !== undefined)("two ranks", () => {
  test("end where one is killed", async () => {
    const [output, victim] = [join(folder, "killed"), 1];
    const words = trainWords(output, "--max_steps", "100000");
    const act = (ranks: readonly number[]) => kill(ranks[victim] ?? 0, "SIGKILL");
    const result = await faultRun("kill", new MpiRun([words, words]), () => hasCheckpoint(output), act);
    expect(result).toMatchObject({ code: 137, ranks: 2, orphans: 0 });
    expect(result.lines).toEqual([expect.stringMatching(/^error: rank 1 \(.*\) ended without a word/)]);
  });

  test("are stopped by one signal as one process is, and each is shown with --log_ranks", async () => {
    const more = ["--max_steps", "100000", "--log_ranks", "--shard_optimizer"];
    const { code, lines, text, isSaved } = await stopRun(join(folder, "stopped"), 1, ...more);
    expect({ code, lines, isSaved }).toEqual({
      code: 143,
      lines: [expect.stringMatching(/^stopped: SIGTERM .* holds the run up to step \d+: go on from there/)],
      isSaved: true,
    });
    expect(text).toMatch(/^ranks: 2 on 1 machine/m);
    expect(text).toMatch(/^\[1\] plan: 100000 updates/m);
  });

  // SIGSTOP, another version, other options and files, NaN, a lost device, a full disk.
  test("end by every other fault with one sentence, and leave nothing behind", async () => {
    const told: string[] = [];
    const all = (chooses: (fault: string) => boolean) =>
      allFaults((line) => told.push(line), { chooses, timeoutSeconds: TIMEOUT_SECONDS });
    // While a rank that is stopped is waited for, nothing is computed.
    const stopped = all((fault) => fault === "SIGSTOP of rank 1");
    const results = [...(await all((fault) => !/SIGSTOP|cable/.test(fault))), ...(await stopped)];
    expect(results.length, told.join("\n")).toBeGreaterThanOrEqual(7);
    for (const result of results) {
      expect(result, told.join("\n")).toMatchObject({ orphans: 0, lines: [expect.stringMatching(/^error: /)] });
      expect(result.code, result.fault).not.toBe(0);
    }
  });

  test("that do not have the same rows, or files, do not start", async () => {
    // As many rows, of which one has another letter.
    const rows = join(folder, "rows.jsonl");
    writeFileSync(rows, readFileSync(feedback, "utf8").replace("the", "The"));
    const logps = (dataset: string) => [
      ...["logps", "--model_name_or_path", model, "--dataset_name", dataset, "--max_samples", "8"],
    ];
    const copy = join(folder, "model");
    cpSync(model, copy, { recursive: true });
    const config = join(copy, "config.json");
    writeFileSync(config, `${readFileSync(config, "utf8")}\n`);
    const output = join(folder, "differ");
    for (const [words, sentence] of [
      [[logps(feedback), logps(rows)], /^error: rank 1 differs from rank 0 in the rows to measure: give every rank/],
      [
        [trainWords(output), trainWords(output, "--model_name_or_path", copy)],
        /^error: rank 1 \(.*\) has another config\.json in its model_name_or_path/,
      ],
    ] as const) {
      const { code, text } = await new MpiRun(words).end();
      expect({ code, lines: errorLines(text) }).toEqual({ code: 11, lines: [expect.stringMatching(sentence)] });
    }
    expect(existsSync(output)).toBe(false);
  });

  test("of one row each have the rows of an update together, and the reference point is taken over them", async () => {
    const output = join(folder, "one-row");
    const words = trainWords(output, "--per_device_train_batch_size", "1", "--save_strategy", "no");
    const { code, text } = await new MpiRun([words, words]).end();
    expect(code, text).toBe(0);
    const [first] = readFileSync(join(output, "metrics.jsonl"), "utf8").split("\n");
    expect(JSON.parse(first ?? "")).toMatchObject({ ranks: 2, loss: expect.closeTo(0.5, 6) });
    const local = await new MpiRun([words, words].map((one) => [...one, "--sync_every", "2"])).end();
    expect(local).toMatchObject({ code: 2, text: expect.stringMatching(/^error: .*per_device_train_batch_size/m) });
  });

  test("share prompts: the texts of one process, also those of a run and its judge", async () => {
    const prompts = join(folder, "prompts.txt");
    writeFileSync(prompts, "Once upon a time\nOne day\nTom\n");
    const generate = ["generate", "--model_name_or_path", model, "--prompts_file", prompts, "--seed", "4", "--json"];
    const words = [...generate, "--num_return_sequences", "2", "--max_new_tokens", "6"];
    const jsonLines = (text: string) => text.split("\n").filter((line) => line.startsWith("{"));
    const [alone, shared] = [await new MpiRun([words]).end(), await new MpiRun([words, words]).end()];
    expect([alone.code, shared.code], shared.text).toEqual([0, 0]);
    expect(jsonLines(alone.text)).toHaveLength(6);
    expect(jsonLines(shared.text)).toEqual(jsonLines(alone.text));

    const judge = join(folder, "judge.mjs");
    writeFileSync(judge, "export default (prompt, a, b) => a.length - b.length;");
    const judged = (output: string) => [
      ...trainWords(output, "--max_steps", "2", "--validation_split", "0.1", "--eval_prompts_file", prompts),
      ...["--eval_max_new_tokens", "6", "--judge", judge, "--save_strategy", "no"],
    ];
    const output = join(folder, "judged");
    const { code, text } = await new MpiRun([judged(output), judged(output)]).end();
    expect(code, text).toBe(0);
    expect(text).toMatch(/evaluation at step 2: .* {2}eval_win_rate \d/);
    const said = readFileSync(join(output, "samples.jsonl"), "utf8");
    const samples = jsonLines(said).map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(samples.map(({ step, index }) => [step, index])).toEqual(
      [0, 1, 2].flatMap((s) => [0, 1, 2].map((i) => [s, i])),
    );
    expect(samples[0]?.completion).not.toBe("");
  });
});

const notHere = missing ?? missingMachines();
if (notHere !== undefined) console.warn(`Two machines are not tested here: ${notHere}.`);

describe.skipIf(notHere !== undefined)("two machines, which are network namespaces with a cable between them", () => {
  test("train over TCP to the bits of one machine", async () => {
    const { same, sentBytes, gradientBytes } = await compareMachines();
    expect(same).toBe(true);
    // Each rank's sums of all gradients in 4 updates, so these went over the cable and not through memory.
    expect(sentBytes).toBeGreaterThan(4 * gradientBytes);
  });

  test("end where the cable is cut, within the timeout", async () => {
    const machines = new TwoMachines(folder);
    try {
      const output = join(folder, "cable");
      const run = machines.run(trainWords(output, "--max_steps", "100000", "--rank_timeout", String(TIMEOUT_SECONDS)));
      const result = await faultRun(
        "cable",
        run,
        () => hasCheckpoint(output),
        () => machines.cut(),
      );
      expect(result).toMatchObject({
        ranks: 2,
        orphans: 0,
        lines: [expect.stringMatching(/^error: nothing was heard of rank 1 \(machine-b/)],
      });
      expect(result.code).not.toBe(0);
    } finally {
      machines.remove();
    }
  });
});
