/**
 * Runs of kto train that end before their time: killed, stopped by a signal, with files that cannot be written. Each
 * goes on from its last checkpoint to the same bits.
 */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { killTest } from "../../../scripts/kill-test.ts";
import { main } from "../../../src/cli/main.ts";
import { platform } from "../../../src/engine/platform/index.ts";
import { FileError } from "../../../src/errors.ts";
import { EXAMPLES_FILE } from "../../../src/kto/run/example-line.ts";
import { LOCK_FILE } from "../../../src/kto/run/lock.ts";
import { shareDeviceWithCommands } from "../../helpers/commands.ts";
import { copyOfModel, fileIn, fixtures, freshPath, jsonl, stories, temporaryFolder } from "../../helpers/folders.ts";
import { CapturedStream, kto } from "../../helpers/streams.ts";

shareDeviceWithCommands();
const folder = temporaryFolder();
afterEach(() => {
  vi.restoreAllMocks();
});

/** A run of 6 updates over 4 rows. */
const words = (output: string, ...more: string[]) => [
  ...["train", "--model_name_or_path", `${fixtures}/llama/policy`, "--dataset_name", `${fixtures}/llama/data.jsonl`],
  ...["--output_dir", output, "--per_device_train_batch_size", "2", "--max_steps", "6", "--logging_steps", "2"],
  ...["--learning_rate", "1e-3", ...more],
];

/** Rows of text. */
const storyRows = (count: number) =>
  Array.from({ length: count }, (_, i) => ({ prompt: "One day", completion: ` she ${i}`, label: i % 2 === 0 }));

/** The result of a run that was left alone, which others must equal. */
let wholeRun: Promise<string> | undefined;
function whole(): Promise<string> {
  wholeRun ??= (async () => {
    const output = freshPath(folder, "whole");
    expect((await kto(...words(output))).code).toBe(0);
    return output;
  })();
  return wholeRun;
}

const weightsOf = (output: string) => readFileSync(join(output, "model.safetensors"));
const metricsOf = (output: string) =>
  readFileSync(join(output, "metrics.jsonl"), "utf8").replace(
    /"(tokens_per_second|device_time_share|bytes\/\w+)":[\d.e-]+,/g,
    "",
  );

describe("kto train", () => {
  test("an output_dir that another training has is refused; a lock that a killed one left is no obstacle", async () => {
    const holder = (id: number | undefined) =>
      JSON.stringify({ process: id, host: hostname(), since: "2026-11-30T10:00:00.000Z" });
    const output = freshPath(folder, "shared");
    mkdirSync(output);
    writeFileSync(join(output, LOCK_FILE), holder(process.ppid));
    for (const more of [[], ["--overwrite_output_dir"]]) {
      const { code, stderr } = await kto(...words(output, ...more));
      expect([code, stderr]).toEqual([
        7,
        expect.stringContaining(`is in use by another training (process ${process.ppid}`),
      ]);
    }
    expect(readdirSync(output)).toEqual([LOCK_FILE]);
    const ended = spawnSync(process.execPath, ["-e", ""]).pid;
    writeFileSync(join(output, LOCK_FILE), holder(ended));
    expect((await kto(...words(output))).code).toBe(0);
    expect(readdirSync(output)).not.toContain(LOCK_FILE);
  });

  test("an output_dir that another training has is refused before the model is looked for", async () => {
    const output = freshPath(folder, "shared");
    mkdirSync(output);
    const since = "2026-11-30T10:00:00.000Z";
    writeFileSync(join(output, LOCK_FILE), JSON.stringify({ process: process.ppid, host: hostname(), since }));
    const { code, stderr } = await kto(...words(output, "--model_name_or_path", join(folder, "no-model")));
    expect([code, stderr]).toEqual([7, expect.stringContaining("is in use by another training")]);
  });

  test("a run that is refused before training leaves no output folder behind", async () => {
    const output = freshPath(folder, "refused");
    const { stderr } = await kto(...words(output, "--model_name_or_path", join(folder, "no-model")));
    expect(stderr).toContain("no-model");
    expect(existsSync(output)).toBe(false);
  });

  test("save_strategy no and a disk that is full at the end: the model is saved beside, and the sentence says where", async () => {
    const [wanted, output] = [await whole(), freshPath(folder, "full")];
    const write = platform.writeFileAtomic.bind(platform);
    vi.spyOn(platform, "writeFileAtomic").mockImplementation(async (path, chunks) => {
      if (path.startsWith(join(output, "model"))) throw new FileError(`Cannot write ${path}: no space is left.`);
      await write(path, chunks);
    });
    const { code, stderr } = await kto(...words(output, "--save_strategy", "no"));
    expect(code).toBe(7);
    expect(stderr).toContain(`What was trained, 6 updates, is saved in ${output}-rescued: move it from there.`);
    expect(weightsOf(`${output}-rescued`).equals(weightsOf(wanted))).toBe(true);
  });

  test("resume_from_checkpoint goes on in output_dir, by a flag or a folder; metrics and examples are cut back to it", async () => {
    const [wanted, output] = [await whole(), freshPath(folder, "run")];
    expect((await kto(...words(output, "--save_steps", "4"))).code).toBe(0);
    expect(metricsOf(output)).toBe(metricsOf(wanted));
    const examples = readFileSync(join(wanted, EXAMPLES_FILE), "utf8");
    expect(examples.match(/^\{"step":\d+/gm)).toHaveLength(metricsOf(wanted).split('"grad_norm"').length - 1);
    // As after a kill in the middle of a line of a later update.
    appendFileSync(join(output, EXAMPLES_FILE), '{"step":7,"beta":0.1,"ro');
    const { code, stderr } = await kto(
      ...words(output, "--save_steps", "4", "--resume_from_checkpoint", join(output, "checkpoint-4")),
    );
    expect(code, stderr).toBe(0);
    expect(stderr).toContain("resumed: 4 of 6 updates are done");
    expect(weightsOf(output).equals(weightsOf(wanted))).toBe(true);
    expect(metricsOf(output)).toBe(metricsOf(wanted));
    expect(readFileSync(join(output, EXAMPLES_FILE), "utf8")).toBe(examples);
    const again = await kto(...words(output, "--resume_from_checkpoint"));
    expect(again.stderr).toContain("resumed: 6 of 6 updates are done");
    expect(readFileSync(join(output, EXAMPLES_FILE), "utf8")).toBe(examples);
    expect((await kto(...words(output, "--overwrite_output_dir", "--no_log_examples"))).code).toBe(0);
    expect(existsSync(join(output, EXAMPLES_FILE))).toBe(false);
    expect(weightsOf(output).equals(weightsOf(wanted))).toBe(true);
  });

  test("a checkpoint that there is not, or a whole run in its place, is said to be that", async () => {
    const output = freshPath(folder, "run");
    await kto(...words(output, "max_steps=2", "save_steps=1"));
    for (const [named, sentence] of [
      [join(output, "checkpoint-7"), `There is no checkpoint "${join(output, "checkpoint-7")}"; `],
      [output, `"${output}" is no checkpoint but the folder of a run, which holds some; name one of them`],
    ] as const) {
      const { code, stderr } = await kto(...words(output, "--resume_from_checkpoint", named));
      expect(stderr).toContain(`error: ${sentence}`);
      expect(code).toBe(7);
    }
  });

  test("a signal while the model is saved at the end does not end the saving", async () => {
    const output = freshPath(folder, "run");
    const { writeFileAtomic } = platform;
    let present = 0;
    vi.spyOn(platform, "writeFileAtomic").mockImplementation(async (path, chunks) => {
      if (path === join(output, "model.safetensors")) {
        present = process.listenerCount("SIGTERM");
        process.emit("SIGTERM", "SIGTERM");
      }
      await writeFileAtomic(path, chunks);
    });
    const before = process.listenerCount("SIGTERM");
    const { code, stderr, stdout } = await kto(...words(output, "--save_strategy", "no"));
    expect(stderr).toContain("warning: SIGTERM: the training has ended and is being saved; once more to stop at once.");
    expect(code).toBe(0);
    expect(stdout).toContain("trained 6 updates in ");
    expect(existsSync(join(output, "model.safetensors"))).toBe(true);
    expect([present, process.listenerCount("SIGTERM")]).toEqual([before + 1, before]);
  });

  test("a folder with checkpoints is refused with the remedy; overwriting removes them", async () => {
    const output = freshPath(folder, "run");
    await kto(...words(output, "max_steps=2", "save_steps=1"));
    const refused = await kto(...words(output));
    expect(refused.code).toBe(2);
    expect(refused.stderr).toContain("or go on from its last checkpoint with resume_from_checkpoint true.");
    const overwritten = await kto(...words(output, "--overwrite_output_dir", "max_steps=1"));
    expect(overwritten.code, overwritten.stderr).toBe(0);
    expect(readdirSync(output).filter((name) => name.startsWith("checkpoint"))).toEqual(["checkpoint-1"]);
  });

  test("what a run left that was killed before its first checkpoint is in nobody's way", async () => {
    const output = freshPath(folder, "run");
    mkdirSync(join(output, "best"), { recursive: true });
    for (const name of ["metrics.jsonl", "samples.jsonl", "best/trained.safetensors"]) {
      writeFileSync(join(output, name), "");
    }
    const { code, stderr } = await kto(...words(output, "max_steps=1"));
    expect(code, stderr).toBe(0);
    expect((await kto(...words(output))).stderr).toContain("is not empty (it holds README.md, …)");
  });

  describe("what a run keeps", () => {
    const judge = fileIn(folder, "judge.mjs", "export default () => 'a';");
    const other = fileIn(folder, "other.mjs", "export default () => 'b';");
    const rows = fileIn(folder, "rows.jsonl", jsonl(storyRows(8)));
    const judged = (output: string, ...more: string[]) => [
      ...["train", "--model_name_or_path", stories, "--dataset_name", rows, "--eval_dataset_name", rows],
      ...["--output_dir", output, "max_steps=2", "eval_samples=1", "eval_max_new_tokens=4", ...more],
    ];
    let plain: string;
    let withJudge: string;
    beforeAll(async () => {
      [plain, withJudge] = [freshPath(folder, "run"), freshPath(folder, "run")];
      for (const run of [judged(plain), judged(withJudge, "--judge", judge)]) expect((await kto(...run)).code).toBe(0);
    });

    test.each([
      ["model_name_or_path", copyOfModel(folder, stories)],
      ["append_eos", false],
      ["chat_template_kwargs", { enable_thinking: true }],
      ["per_device_eval_batch_size", 4],
      ["eval_max_new_tokens", 5],
      ["judge", other],
      ["judge_request", { seed: 1 }],
    ])("another %s is refused", async (name, value) => {
      const text = typeof value === "string" ? value : JSON.stringify(value);
      const { code, stderr } = await kto(
        ...judged(withJudge, ...(name === "judge" ? [] : ["--judge", judge]), "--resume_from_checkpoint"),
        `${name}=${text}`,
      );
      expect(code, stderr).toBe(2);
      expect(stderr).toContain(`option "${name}" is ${JSON.stringify(value)}, but the run of `);
    });

    test("another name of the same optimizer is the same, and one of other moments is refused", async () => {
      const words = [...judged(plain), "--resume_from_checkpoint"];
      const fused = await kto(...words, "--optim", "adamw_torch_fused");
      expect(fused.code, fused.stderr).toBe(0);
      const eight = await kto(...words, "--optim", "adamw_8bit");
      expect([eight.code, eight.stderr]).toEqual([2, expect.stringContaining('"optim" is "adamw_8bit", but the run')]);
    });

    test("a judge may come, not go", async () => {
      const gone = await kto(...judged(withJudge, "--resume_from_checkpoint"));
      expect(gone.stderr).toContain('option "judge" is null, but the run of');
      const { code, stderr } = await kto(...judged(plain, "--judge", judge, "--resume_from_checkpoint"));
      expect(code, stderr).toBe(0);
    });
  });

  test("samples of any length may come where none were drawn; their length stays, also while none are drawn", async () => {
    const rows = fileIn(folder, "rows.jsonl", jsonl(storyRows(8)));
    const output = freshPath(folder, "run");
    const evaluated = (steps: number, ...more: string[]) =>
      kto(
        ...["train", "--model_name_or_path", stories, "--dataset_name", rows, "--eval_dataset_name", rows],
        ...["--output_dir", output, `max_steps=${steps}`, "lr_scheduler_type=constant", ...more],
      );
    const samples = ["eval_samples=1", "eval_max_new_tokens=5"];
    for (const [i, more] of [[], samples, []].entries()) {
      const { code, stderr } = await evaluated(i + 1, ...more, `resume_from_checkpoint=${i > 0}`);
      expect(code, stderr).toBe(0);
    }
    const { stderr } = await evaluated(4, "eval_samples=1", "eval_max_new_tokens=6", "--resume_from_checkpoint");
    expect(stderr).toContain(`option "eval_max_new_tokens" is 6, but the run of ${join(output, "checkpoint-3")} had 5`);
  });

  test("metrics.jsonl that takes no lines: told once, the run goes on and writes them at its end", async () => {
    vi.spyOn(platform, "append").mockRejectedValue(new FileError("Cannot write metrics.jsonl: no space is left."));
    const output = freshPath(folder, "run");
    const { code, stderr } = await kto(...words(output));
    expect(code, stderr).toBe(0);
    expect(stderr.match(/no space is left\. The training goes on; the lines are written at its end\./g)).toHaveLength(
      1,
    );
    expect(metricsOf(output).trimEnd().split("\n")).toHaveLength(3);
  });

  test("whoever reads its lines may go away: the run goes on and is saved", async () => {
    const output = freshPath(folder, "run");
    const child = spawn(process.execPath, ["bin/kto.js", ...words(output, "save_steps=2")], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    child.stdout.destroy();
    child.stderr.once("data", () => child.stderr.destroy());
    expect(await once(child, "close")).toEqual([0, null]);
    expect(existsSync(join(output, "checkpoint-4"))).toBe(true);
    expect(existsSync(join(output, "model.safetensors"))).toBe(true);
  });

  /** A run that gets a signal once it has written a checkpoint. Without a handler the signal would end the tests. */
  async function signalled(signal: NodeJS.Signals, output: string, ...more: string[]) {
    const stderr = new CapturedStream();
    let sent = false;
    const stream = {
      ...{ isTTY: false, columns: 80 },
      write(text: string) {
        stderr.write(text);
        // A second one would stop it at once.
        if (!sent && stderr.text.includes("checkpoint: ")) sent = process.kill(process.pid, signal);
      },
    };
    const code = await main(words(output, ...more), { stdout: new CapturedStream(), stderr: stream });
    return { code, stderr: stderr.text };
  }

  test.each([
    ["SIGHUP", 129],
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const)("%s: the update is finished, a checkpoint saved, the exit code %i", async (signal, code) => {
    const output = freshPath(folder, "run");
    const { code: found, stderr } = await signalled(signal, output, "max_steps=100000", "save_steps=2");
    expect(found, stderr).toBe(code);
    expect(stderr).toContain(`${signal}: stopping after this update`);
    const [, step] =
      new RegExp(`stopped: ${signal} after (\\d+) of 100000 updates: .* holds the run up to step \\d+: go on`).exec(
        stderr,
      ) ?? [];
    expect(existsSync(join(output, `checkpoint-${step}`))).toBe(true);
  });

  test("SIGTERM with save_only_model: the model is saved, and the sentence does not promise that a run goes on", async () => {
    const output = freshPath(folder, "run");
    const more = ["max_steps=100000", "save_steps=2", "save_only_model=true"];
    const { code, stderr } = await signalled("SIGTERM", output, ...more);
    expect(code, stderr).toBe(143);
    const [, saved = ""] =
      /^stopped: SIGTERM after \d+ of 100000 updates: (\S+) holds the model of step \d+ without the optimizer \(save_only_model\), so no run goes on from it: /m.exec(
        stderr,
      ) ?? [];
    expect(stderr).not.toContain("resume_from_checkpoint");
    expect(readdirSync(saved)).toContain("model.safetensors");
    expect(readdirSync(saved)).not.toContain("optimizer.safetensors");
  });
});

describe("a judge's module", () => {
  /** A command in a process of its own; SIGINT comes once it says "asked". */
  async function alone(...command: string[]): Promise<{ code: number; stderr: string }> {
    const child = spawn(process.execPath, ["bin/kto.js", ...command], { stdio: ["ignore", "ignore", "pipe"] });
    let stderr = "";
    let sent = false;
    child.stderr.on("data", (text) => {
      stderr += String(text);
      if (!sent && stderr.includes("asked")) sent = child.kill("SIGINT");
    });
    const [code] = (await once(child, "close")) as [number];
    return { code, stderr };
  }

  const training = (output: string, judge: string) => {
    const rows = fileIn(folder, "rows.jsonl", jsonl(storyRows(8)));
    return [
      ...["train", "--model_name_or_path", stories, "--dataset_name", rows, "--eval_dataset_name", rows],
      ...["--output_dir", output, "eval_samples=1", "max_steps=4", "learning_rate=0.05", "logging_steps=2"],
      ...["eval_max_new_tokens=8", "--judge", judge],
    ];
  };

  describe("that does not answer when SIGINT comes", () => {
    const words = (output: string, judge: string, ...more: string[]) => [
      ...training(output, judge),
      "--save_strategy=no",
      ...more,
    ];
    const longer = "export default (prompt, a, b) => a.length - b.length;";
    const output = freshPath(folder, "whole");
    beforeAll(async () => {
      const { code, stderr } = await kto(...words(output, fileIn(folder, "judge.mjs", longer)));
      expect(code, stderr).toBe(0);
    });

    test.each([2, 4])("at step %i: the run is saved, and what goes on from it makes that evaluation", async (step) => {
      const [stopped, answers] = [freshPath(folder, "run"), freshPath(folder, "on")];
      const judge = fileIn(
        folder,
        "judge.mjs",
        `import { existsSync } from "node:fs";
        let questions = 0;
        export default (prompt, a, b) => {
          if (questions++ < ${step - 2} || existsSync(${JSON.stringify(answers)})) return a.length - b.length;
          console.error("asked");
          return new Promise(() => {});
        };`,
      );
      const { code, stderr } = await alone(...words(stopped, judge));
      expect(code, stderr).toBe(130);
      expect(stderr).not.toContain("no win rate");
      expect(stderr).toContain(
        `stopped: SIGINT after ${step} of 4 updates: ${join(stopped, `checkpoint-${step}`)} holds the run up to step ${step}: go on`,
      );
      writeFileSync(answers, "");
      const again = words(stopped, judge, "--resume_from_checkpoint");
      const plan = await kto(...again, "--dry_run", "--json");
      expect(JSON.parse(plan.stdout), plan.stderr).toMatchObject({ steps_left: 4 - step, evaluations: 3 - step / 2 });
      const resumed = await kto(...again);
      expect(resumed.code, resumed.stderr).toBe(0);
      const evaluations = (output: string) => metricsOf(output).replace(/,"eval_(runtime|\w+_per_second)":[\d.]+/g, "");
      expect(evaluations(stopped)).toBe(evaluations(output));
      expect(evaluations(stopped).match(/"eval_win_rate":[\d.]+/g)).toHaveLength(2);
      expect(readFileSync(join(stopped, "samples.jsonl"))).toEqual(readFileSync(join(output, "samples.jsonl")));
      expect(weightsOf(stopped).equals(weightsOf(output))).toBe(true);
    });
  });

  test("promises that it leaves rejected are told once, and change no exit code, also after the command's end", async () => {
    const judge = (body: string) =>
      fileIn(
        folder,
        "judge.mjs",
        `let asked = false;
        setInterval(() => asked && Promise.reject("late"), 1);
        export default () => { asked = true; ${body} };`,
      );
    const output = freshPath(folder, "run");
    // Two models, since no judge is asked about answers that are the same.
    const models = ["--model_name_or_path", output, "--ref_model_name_or_path", stories];
    const compared = ["eval", ...models, "--prompt", "One day", "--max_new_tokens", "8", "--judge"];
    const rejecting = judge("Promise.reject(new Error('one\\ntwo')); return 'a';");
    for (const [command, expected, told] of [
      [training(output, rejecting), 0, ["one two"]],
      [[...compared, judge("throw new Error('no');")], 9, []],
    ] as const) {
      const { code, stderr } = await alone(...command);
      expect(code, stderr).toBe(expected);
      const warnings = stderr.matchAll(/warning: A promise was rejected .* judge .*judge\.mjs: (.*)\.\n/g);
      if (told.length > 0) expect([...warnings].map(([, reason]) => reason)).toEqual(told);
    }
  });
});

test("killed at a random moment and resumed, a run ends in the same bits", async () => {
  // scripts/kill-test.ts kills many runs, each several times. This one has moments in 8 bits.
  const results = await killTest({ runs: 1, seed: 7, steps: 4, mostKills: 1, saveEvery: [2] });
  expect(results.every(({ same }) => same)).toBe(true);
  expect(results[0]?.kills).toBeGreaterThan(0);
});
