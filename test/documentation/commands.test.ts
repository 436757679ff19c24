/**
 * Every command that README.md and docs/ show is run, in the order in which they are read, in one folder: what one
 * command makes another one takes. A tiny model with tiny feedback stands for the reader's, and runs are cut short;
 * all else is as it is shown. What cannot be run here is listed, with the reason. The ten commands of docs/thumbs.md
 * have a test of their own (thumbs.test.ts).
 */
import { cpSync, existsSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { fileGroups } from "../../scripts/reference/run-files.ts";
import { shareDeviceWithCommands } from "../helpers/commands.ts";
import { ALL_SHAPES } from "../helpers/device.ts";
import { blocksOf, commandsOf, type DocCommand, docPages } from "../helpers/doc-commands.ts";
import { jsonl, stories, temporaryFolder } from "../helpers/folders.ts";
import { ktoReading } from "../helpers/streams.ts";

/** What is not run here, by how its line begins. */
interface NotRun {
  readonly line: string;
  readonly why: string;
  /** KTO_TEST_SHAPES=all runs it: it takes long, and other tests run its parts. */
  readonly long?: true;
  /** A page that other work brings. */
  readonly page?: string;
}

const ofUs = "npx kto-webgpu train --model_name_or_path ./model --dataset_name feedback.jsonl --output_dir ./aligned";
const notRun: readonly NotRun[] = [
  { line: "npm run quickstart", why: "takes minutes; test/examples/quickstart.test.ts runs it" },
  { line: "npm test", why: "is what runs this test" },
  { line: "npm run check", why: "is a part of what runs this test" },
  { line: "npx vitest run", why: "would run tests within a test" },
  { line: "npm install kto-webgpu", why: "needs the network; test/package.test.ts installs the package" },
  { line: "npm run gpu-report", why: "takes minutes; test/bench/report runs its parts" },
  { line: "sh kto-gpu-report.sh", why: "is the bundle of the line before; scripts/check-bundle.sh runs it" },
  { line: "ollama create", why: "needs Ollama; test/thumbs.test.ts has llama.cpp load such a file" },
  { line: "mongoexport", why: "needs MongoDB; test/kto/data/exports/joined.test.ts reads what it writes" },
  {
    line: `${ofUs} --push_to_hub`,
    why: "needs an account; test/cli/commands/results.test.ts uploads to a hub of its own",
  },
  { line: "npx kto-webgpu bench", why: "takes 14 s; test/cli/commands runs a case", long: true },
  { line: "npx kto-webgpu gradcheck", why: "compiles for 5 s; test/cli/commands checks a fixture", long: true },
  { line: "npx kto-webgpu dashboard", why: "serves until it is stopped; test/cli/server", page: "dashboard.md" },
  { line: `${ofUs} --dashboard`, why: "serves beside the run; test/cli/server", page: "dashboard.md" },
  { line: "npm run browser", why: "serves until it is stopped; test/examples/browser.test.ts", page: "browser.md" },
  { line: "export OMPI_MCA", why: "is a setting of Open MPI for the lines behind it", page: "scale.md" },
  { line: "mpirun", why: "needs Open MPI; the tests of src/engine/ranks start processes", page: "scale.md" },
];

const isLeftOut = (line: string) =>
  notRun.some(({ line: beginning, long }) => line.startsWith(beginning) && !(long && ALL_SHAPES));

const root = join(import.meta.dirname, "..", "..");
const folder = temporaryFolder();
const ofThumbs = commandsOf("docs/thumbs.md").slice(0, 10);
const commands = docPages()
  .flatMap((page) => commandsOf(page))
  .filter(({ line }) => !ofThumbs.some((command) => command.line === line));
/** Configurations that are shown, each given to a plan. */
const configurations = docPages().flatMap((page) => blocksOf(page, "yaml").map((text) => ({ page, text })));

/** Files that a line needs, of which some have a name that other lines use for something else. */
const filesFor = (line: string): readonly (readonly [name: string, content: unknown])[] => {
  const rated = (name: string, ratings: readonly number[]) =>
    ratings.map((rating) => ({
      prompt: "Hi",
      chat: "Hi",
      completion: `${rating}`,
      reply: `${rating}`,
      [name]: rating,
    }));
  if (line.includes("records.json")) return [["records.json", rated("thumb", [1, 0])]];
  if (line.includes("traces.json")) return [["traces.json", rated("stars", [5, 2])]];
  if (line.includes("oasst")) return [["oasst_ready.trees.jsonl", jsonl([tree()])]];
  const tasks = (control: string, key: string, values: readonly unknown[]) =>
    values.map((value, id) => labelled(id, control, { [key]: value }));
  if (line.includes("answer1")) return [["tasks.json", tasks("better", "selected", ["left", "right"])]];
  if (line.includes("tasks.json")) return [["tasks.json", tasks("quality", "choices", [["fine"], ["poor"]])]];
  return [];
};

/** Words that cut a run short, after those that are shown. */
const shorter: Readonly<Record<string, string>> = {
  train: "--max_steps 1 --logging_steps 1 --max_length 64 --max_samples 16 --eval_max_new_tokens 4",
  sft: "--max_steps 1 --max_length 64 --max_samples 16",
  eval: "--max_new_tokens 4 --max_samples 16",
  generate: "--max_new_tokens 4",
  chat: "--max_new_tokens 4",
  data: "--max_samples 64",
};

function put(name: string, content: unknown): void {
  mkdirSync(dirname(join(folder, name)), { recursive: true });
  writeFileSync(join(folder, name), typeof content === "string" ? content : JSON.stringify(content));
}

/** A task of Label Studio. */
function labelled(id: number, control: string, value: object): unknown {
  return {
    id,
    data: { question: "Hi", answer: "Yo", answer1: "Yo", answer2: "No" },
    annotations: [{ was_cancelled: false, result: [{ from_name: control, to_name: "answer", value }] }],
  };
}

/** A tree of OASST with two ranked answers. */
function tree(): unknown {
  const node = (role: string, id: string, text: string, rank: number | null, replies: readonly unknown[] = []) => ({
    ...{ message_id: id, parent_id: null, user_id: "u", text, role, lang: "en", review_result: true, deleted: false },
    ...{ rank, labels: { quality: { value: rank === 0 ? 0.9 : 0.2, count: 3 } }, replies },
  });
  const answers = [node("assistant", "a", "So it is.", 0), node("assistant", "b", "No.", 1)];
  return { message_tree_id: "p", tree_state: "ready_for_export", prompt: node("prompter", "p", "Why?", null, answers) };
}

beforeAll(() => {
  vi.stubEnv("KTO_CACHE", join(folder, "cache"));
  vi.stubEnv("HOME", folder);
  for (const name of ["examples", "test"]) symlinkSync(join(root, name), join(folder, name), "dir");
  cpSync(join(root, stories), join(folder, "model"), { recursive: true });
  put("model/chat_template.jinja", "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}");
  const rows = Array.from({ length: 16 }, (_, i) => ({
    prompt: `Once upon a time, ${["Tom", "Lily", "Ben", "Sue"][i % 4]} saw ${["a dog", "a cat"][i % 2]}.`,
    completion: i % 3 === 0 ? " They were happy and played." : ` No no ${i}.`,
    label: i % 3 === 0,
  }));
  put("feedback.jsonl", jsonl(rows));
  put("thumbs.jsonl", jsonl(rows));
  put("answers.jsonl", jsonl(rows.map(({ prompt, completion }) => ({ prompt, completion }))));
  put("prompts.txt", "Once upon a time\nOne day\n");
  put("judge.mjs", blocksOf("docs/evaluation.md", "js")[0] ?? "");
  put("qwen3_lora_kto.yaml", llamaFactory);
  put("data/dataset_info.json", {
    demo: { file_name: "demo.json", columns: { prompt: "prompt", response: "completion", kto_tag: "label" } },
  });
  put("data/demo.json", rows);
});
afterAll(() => {
  vi.unstubAllEnvs();
});

const llamaFactory = `model_name_or_path: ./model
stage: kto
finetuning_type: lora
lora_target: all
lora_rank: 2
dataset: demo
dataset_dir: data
output_dir: saves/kto
per_device_train_batch_size: 2
`;

shareDeviceWithCommands();

/** The words of a command of ours as they are run: a model of the hub is the tiny one, "~" is the folder. */
function wordsOf({ words }: DocCommand): string[] {
  const [command = "", ...rest] = words.slice(2);
  const places = rest.map((word) =>
    /^Qwen\//.test(word) ? "./model" : word === "OpenAssistant/oasst1" ? "oasst_ready.trees.jsonl" : word,
  );
  return [command, ...places, ...(shorter[command]?.split(" ") ?? [])];
}

function optionOf(words: readonly string[], name: string): string | undefined {
  const at = words.indexOf(`--${name}`);
  return at < 0 ? undefined : words[at + 1];
}

test("the list of what is not run is what is not run", () => {
  expect(notRun).toHaveLength(17);
  for (const { line: beginning, page } of notRun) {
    if (page !== undefined && !existsSync(join(root, "docs", page))) continue;
    const used = commands.some(({ line }) => line.startsWith(beginning));
    expect({ beginning, used }).toEqual({ beginning, used: true });
  }
});

test("each of the others runs", async () => {
  const before = process.cwd();
  process.chdir(folder);
  const seen = new Set<string>();
  let count = 0;
  try {
    for (const command of commands) {
      const { line, page, into } = command;
      if (isLeftOut(line) || seen.has(line)) continue;
      seen.add(line);
      const [program, name] = command.words;
      if (program === "mkdir") {
        for (const path of command.words.slice(1).filter((word) => word !== "-p"))
          mkdirSync(inHome(path), { recursive: true });
        continue;
      }
      expect({ page, line, starts: [program, name] }).toEqual({ page, line, starts: ["npx", "kto-webgpu"] });
      for (const [file, content] of filesFor(line)) put(file, content);
      const words = wordsOf(command);
      const makes = ["output_dir", "output"].flatMap((option) => optionOf(words, option) ?? []);
      const takes = words.slice(1).filter((_, i) => !/^--output/.test(words[i] ?? ""));
      for (const path of makes) if (!takes.includes(path)) rmSync(path, { recursive: true, force: true });
      if (words[0] === "init") rmSync("run.yaml", { force: true });
      const { code, stdout, stderr } = await ktoReading(["Hello", "/exit"], ...words);
      expect({ page, line, code, stderr: code === 0 ? "" : stderr }).toEqual({ page, line, code: 0, stderr: "" });
      if (into !== undefined) {
        mkdirSync(dirname(inHome(into)), { recursive: true });
        writeFileSync(inHome(into), stdout);
      }
      count++;
    }
  } finally {
    process.chdir(before);
  }
  expect(count).toBeGreaterThan(35);
});

function inHome(path: string): string {
  return path.replace(/^~(?=\/)/, folder);
}

test("each configuration is one", async () => {
  expect(configurations.length).toBeGreaterThan(0);
  for (const { page, text } of configurations) {
    const placed = text.replaceAll("./", `${folder}/`).replace("feedback.jsonl", `${folder}/feedback.jsonl`);
    put("shown.yaml", placed.replace(/^output_dir: .*$/m, `output_dir: ${folder}/planned`));
    const { code, stderr } = await ktoReading([], "train", "--config", join(folder, "shown.yaml"), "--dry_run");
    expect({ page, code, stderr: code === 0 ? "" : stderr }).toEqual({ page, code: 0, stderr: "" });
  }
});

test("every file that they left behind stands in the table of files", () => {
  const patterns = fileGroups
    .flatMap(({ files }) => files.flatMap(({ names }) => names))
    .map((name) => {
      const escaped = name.replace(/[\\^$.+?()[\]{}|]/g, "\\$&").replaceAll("*", "[^/]*");
      return new RegExp(`(^|/)${escaped}$`);
    });
  const given = new Set(["model", "data"]);
  const runs = readdirSync(folder, { withFileTypes: true }).filter(
    (entry) => entry.isDirectory() && !given.has(entry.name) && !entry.name.startsWith("."),
  );
  const files = runs.flatMap(({ name }) => filesIn(join(folder, name)));
  expect(files.length).toBeGreaterThan(20);
  const unknown = files.map((path) => relative(folder, path)).filter((path) => !patterns.some((one) => one.test(path)));
  expect(unknown).toEqual([]);
});

function filesIn(path: string): string[] {
  return existsSync(path)
    ? readdirSync(path, { withFileTypes: true }).flatMap((entry) =>
        entry.isDirectory() ? filesIn(join(path, entry.name)) : [join(path, entry.name)],
      )
    : [];
}
