/** Whole command lines: help, exit codes, one sentence on stderr and no stack trace. */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { readStructure } from "../../scripts/structure.ts";
import { descriptions, helpPages } from "../../src/cli/descriptions/all.ts";
import { helpTopic } from "../../src/cli/descriptions/list-of-commands.ts";
import { main, commands as table } from "../../src/cli/main.ts";
import { helpText } from "../../src/cli/options/help-page.ts";
import { CapturedStream, kto } from "../helpers/streams.ts";

const commands = Object.keys(table) as (keyof typeof table)[];

/** All files and packages that these files import, and what those import. */
function loadedBy(...files: readonly string[]): string[] {
  const { imports } = readStructure();
  const loaded = new Set<string>();
  const visit = (path: string) => {
    if (loaded.has(path)) return;
    loaded.add(path);
    for (const { from, to, dynamic, type } of imports) if (from === path && !dynamic && !type) visit(to);
  };
  files.forEach(visit);
  return [...loaded];
}

describe("the table of commands", () => {
  test.each(commands)("%s: the command that is loaded is the one named", async (name) => {
    expect(descriptions[name].examples[0]).toMatch(new RegExp(`^kto ${name}\\b`));
    expect((await table[name]()).default.schema).toBe(descriptions[name].schema);
  });

  test("code is loaded at need by the table alone, beside packages that not every system can load", () => {
    const { imports } = readStructure();
    const inSources = imports.filter(({ from, dynamic }) => dynamic && from.startsWith("src/"));
    const dynamic = inSources.map(({ from, to }) => `${from} loads ${to}`);
    expect(dynamic.toSorted()).toEqual(
      [
        ...commands.map((name) => `src/cli/main.ts loads src/cli/commands/${name}.ts`),
        "src/cli/main.ts loads src/cli/descriptions/all.ts",
        "src/engine/platform/node-adapters.ts loads webgpu",
        "src/engine/platform/node-hub.ts loads @huggingface/hub",
        "src/engine/platform/node-mpi-library.ts loads koffi",
        "src/engine/platform/node-sqlite.ts loads node-sqlite3-wasm",
      ].toSorted(),
    );
  });

  test("the list of commands loads none of them, nor what reads options", () => {
    expect(loadedBy("src/cli/main.ts").filter((path) => /zod|yaml|webgpu|src\/cli\/commands/.test(path))).toEqual([]);
  });
});

test("a command's help text loads nothing that the command runs on", () => {
  const loaded = loadedBy("src/cli/main.ts", "src/cli/descriptions/all.ts");
  const heavy = /yaml|webgpu|tokenizers|src\/(kernels|engine\/(gpu|model|text|hub)|cli\/(commands|session))\//;
  expect(loaded.filter((path) => heavy.test(path))).toEqual([]);
});

test("the launcher's help loads neither the program nor a table of options", () => {
  expect(loadedBy("src/cli/quick-help.ts").toSorted()).toEqual([
    "node:fs",
    "src/cli/descriptions/list-of-commands.ts",
    "src/cli/descriptions/summaries.ts",
    "src/cli/options/help-page.ts",
    "src/cli/quick-help.ts",
    "src/engine/platform/node-launch.ts",
  ]);
});

describe("help", () => {
  test("a page in few columns: texts beside their terms, broken between words", () => {
    const sections = [{ heading: "Options:", entries: [["-a", "a text of more columns than fit"] as const] }];
    const page = { usage: "kto", description: "What it does, in more than one line.", sections, end: "That is all." };
    expect(helpText(page, 27)).toBe(
      "Usage: kto\n\nWhat it does, in more than\none line.\n\n" +
        "Options:\n  -a  a text of more\n      columns than fit\n\nThat is all.\n",
    );
    const asOneLine = "-a  a text of more columns than fit\n";
    for (const columns of [10, 120, 500, undefined]) expect(helpText(page, columns)).toContain(asOneLine);
    const lines = helpText(helpPages().train, 100).split("\n");
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(100);
  });

  test("which words ask for which page", () => {
    for (const words of [["-h"], ["--help"], ["help"], ["help", "-h"]]) expect(helpTopic(words)).toBe("kto");
    for (const words of [
      ["help", "sft"],
      ["sft", "x=1", "-h"],
    ])
      expect(helpTopic(words)).toBe("sft");
    for (const words of [[], ["sft"], ["help", "stf"], ["-V"], ["stf", "--help"]]) {
      expect(helpTopic(words)).toBeUndefined();
    }
  });

  test.each([[["--help"]], [["train", "--help"]]])(
    "kto %j is the same from the launcher, which has pages",
    async (words) => {
      const { status, stdout, stderr } = spawnSync(process.execPath, ["bin/kto.js", ...words], { encoding: "utf8" });
      expect([status, stderr]).toEqual([0, ""]);
      const ofProgram = new CapturedStream({ columns: 120 });
      await main(words, { stdout: ofProgram, stderr: new CapturedStream() });
      expect(stdout).toBe(ofProgram.text);
      for (const [topic, page] of Object.entries(helpPages())) {
        expect(JSON.parse(readFileSync(`dist/help/${topic}.json`, "utf8"))).toEqual(page);
      }
    },
  );

  test.runIf(process.platform === "linux")("a reader that goes away, and a disk that is full", () => {
    const shell = (command: string) => {
      const { status, stdout, stderr } = spawnSync("bash", ["-c", command], { encoding: "utf8" });
      return [status, stdout, stderr];
    };
    expect(shell("set -o pipefail; node bin/kto.js train --help | true")).toEqual([0, "", ""]);
    const [status, , stderr] = shell("node bin/kto.js --help >/dev/full");
    expect([status, stderr]).toEqual([7, expect.stringMatching(/^error: .*no space/)]);
  });

  test.each([[["--help"]], [["help"]], [["-h"]]])("kto %j lists the commands", async (words) => {
    const { code, stdout, stderr } = await kto(...words);
    expect([code, stderr]).toEqual([0, ""]);
    for (const command of commands) expect(stdout).toMatch(new RegExp(`^ {2}${command} .*\\S`, "m"));
  });

  test("without a command the help goes to stderr and the exit code is that of a mistake", async () => {
    const { code, stdout, stderr } = await kto();
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toContain("Commands:");
  });

  test("kto train --help: headings, TRL's names, defaults", async () => {
    const { code, stdout } = await kto("train", "--beta", "3", "--help");
    expect(code).toBe(0);
    for (const heading of ["Model and data:", "KTO:", "Training:", "Optimizer (AdamW):", "Output:", "Examples:"]) {
      expect(stdout).toContain(`\n${heading}\n`);
    }
    expect(stdout).toMatch(/--learning_rate <n> [^-]*\[default\s+5e-6\]/);
    expect(stdout).toMatch(/--lr_scheduler_type <name> [^[]*\[linear \|\s+cosine \|[^\]]*; default\s+linear\]/);
    expect(await kto("help", "train")).toMatchObject({ code: 0, stdout });
  });

  test.each(commands)("kto %s --help fits the terminal", async (command) => {
    const { code, stdout } = await kto(command, "--help");
    expect(code).toBe(0);
    const [options = ""] = stdout.split("\nExamples:");
    expect(Math.max(...options.split("\n").map((line) => line.length))).toBeLessThanOrEqual(80);
  });

  test("kto --version", async () => {
    expect(await kto("--version")).toMatchObject({ code: 0, stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) });
  });
});

test("on a terminal a training says at once that it loads, and takes that back; not with --quiet", async () => {
  const saidAt = async (columns: number, ...words: string[]) => {
    const stderr = new CapturedStream({ columns });
    await main(["train", "--no_such_option", ...words], { stdout: new CapturedStream(), stderr });
    return stderr.text;
  };
  const said = (...words: string[]) => saidAt(80, ...words);
  const [loading, error] = (await said()).split("\r\x1b[K");
  expect(loading).toBe("loading kto train ...");
  expect(error).toContain("error:");
  expect(await said("--quiet")).not.toContain("loading");
  // One line of a narrow terminal, so that it can be taken back.
  expect((await saidAt(20)).split("\r")[0]).toBe("loading kto train .");
});

describe("mistakes end in one sentence on stderr and a documented exit code", () => {
  const files = ["--model", "m", "--dataset", "d", "--output_dir", "o"];

  test.each([
    [["trian"], 2, 'unknown command "trian": did you mean "train"?'],
    [["help", "doktor"], 2, 'unknown command "doktor": did you mean "doctor"?'],
    [
      ["x"],
      2,
      'unknown command "x": commands are train, sft, eval, generate, chat, logps, data, gradcheck, merge, export, dashboard, init, plan, bench, doctor, completion.',
    ],
    [["--beta", "1"], 2, "a command comes first, then its options: kto <command> --beta; kto --help lists them."],
    [
      ["train"],
      2,
      '3 things must be changed:\n  option "model_name_or_path" is required: a local Hugging Face model folder or a hub id such as "owner/name".\n  option "dataset_name" is required: a local feedback file, several with commas between them, a folder, or the hub id of a data set.\n  option "output_dir" is required: a folder for the results.',
    ],
    [["train", ...files, "--learningrate", "1"], 2, 'unknown option "learningrate": did you mean "learning_rate"?'],
    [["train", ...files, "beta=-1"], 2, 'option "beta" is -1; it must be a number above 0.'],
    [
      ["logps", "--model", "m"],
      2,
      'option "dataset_name" is required: a local feedback file, several with commas between them, a folder, or the hub id of a data set.',
    ],
    [
      ["gradcheck", "--dataset_name=d", "--model=m", "--tolerance=0"],
      2,
      'option "tolerance" is 0; it must be a number above 0.',
    ],
    [["doctor", "--modle", "m"], 2, 'unknown option "modle": did you mean "model"?'],
    [["doctor", "--xyzzy", "m"], 2, 'unknown option "xyzzy": --help lists the options.'],
    [["train", "nowhere.yaml"], 7, "cannot read the configuration file nowhere.yaml: there is no such file."],
  ])("kto %j", async (words, exitCode, sentence) => {
    expect(await kto(...words)).toEqual({ code: exitCode, stdout: "", stderr: `error: ${sentence}\n` });
  });

  test("a microbatch of 1", async () => {
    const { code, stderr } = await kto("train", ...files, "--per_device_train_batch_size=1");
    expect(code).toBe(2);
    expect(stderr).toMatch(
      /^error: option "per_device_train_batch_size" is 1, .* use at least 2, or set gradient_accumulation_steps, .*\.\n$/,
    );
  });

  test("--debug adds the stack, even when the options cannot be read", async () => {
    const { code, stderr } = await kto("train", ...files, "--debug", "--bata", "1");
    expect(code).toBe(2);
    expect(stderr).toMatch(/^error: unknown option "bata".*\nConfigError: [\s\S]*\n {4}at /);
  });
});
