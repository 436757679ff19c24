/**
 * What other programs build on: the lines, keys, files and exit codes of kto logps, gradcheck, train and generate, on
 * models whose numbers float64 PyTorch computed (test/fixtures) and on a trained one.
 */
import { execFileSync } from "node:child_process";
import { cpSync, existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { afterEach, describe, expect, test, vi } from "vitest";
import { Model } from "../../../src/engine/model/model.ts";
import { platform } from "../../../src/engine/platform/index.ts";
import { EVENTS_FILE, type EventLine } from "../../../src/kto/run/event-line.ts";
import { ROWS_FILE, type RowLine } from "../../../src/kto/run/row-line.ts";
import { RUN_FILE, runFactsSchema } from "../../../src/kto/run/run-facts.ts";
import { shareDeviceWithCommands } from "../../helpers/commands.ts";
import { sharedDevice } from "../../helpers/device.ts";
import { readExpected, readJson } from "../../helpers/fixtures.ts";
import { readFloat64Safetensors } from "../../helpers/float64-safetensors.ts";
import {
  copyOfModel,
  fileIn,
  fixtures,
  freshPath,
  gpt2,
  jsonl,
  llama,
  stories,
  temporaryFolder,
  withConfig,
} from "../../helpers/folders.ts";
import { kto } from "../../helpers/streams.ts";

shareDeviceWithCommands();
const folder = temporaryFolder();

type Json = Record<string, unknown>;

/** The objects of a text of one JSON object per line, each line ended. */
function objects<T = Json>(text: string): T[] {
  expect(text).toMatch(/^(\{.*\}\n)*$/);
  return text.split("\n").flatMap((line) => (line === "" ? [] : [JSON.parse(line) as T]));
}

/** Runs a command that must succeed; returns what it printed. */
async function succeed(...words: string[]): Promise<{ stdout: string; stderr: string }> {
  const { code, stdout, stderr } = await kto(...words);
  expect(code, stderr).toBe(0);
  expect(stderr).not.toContain("error");
  return { stdout, stderr };
}

function modelsAndData(family: string): string[] {
  const path = `${fixtures}/${family}`;
  return [
    ...["--model_name_or_path", `${path}/policy`, "--ref_model_name_or_path", `${path}/reference`],
    ...["--dataset_name", `${path}/data.jsonl`],
  ];
}

function expectNear(found: readonly number[], wanted: readonly number[], within: number): void {
  expect(found).toHaveLength(wanted.length);
  found.forEach((value, i) => {
    expect(Math.abs(value - (wanted[i] ?? Number.NaN)), `value ${i}`).toBeLessThan(within);
  });
}

interface LogpsLine {
  index: number;
  label: boolean;
  logp: number;
  ref_logp: number | null;
  log_ratio: number | null;
  tokens: number;
}

describe("kto logps", () => {
  test.each(["llama", "gpt2", "qwen2", "qwen3"] as const)(
    "%s: one object per row, in file order, with PyTorch's numbers",
    async (family) => {
      const { stdout } = await succeed("logps", ...modelsAndData(family), "--json");
      const lines = objects<LogpsLine>(stdout);
      const expected = readExpected(family);
      const rows = objects(readFileSync(`${fixtures}/${family}/data.jsonl`, "utf8").trimEnd().concat("\n"));
      for (const line of lines) {
        expect(Object.keys(line)).toEqual(["index", "label", "logp", "ref_logp", "log_ratio", "tokens"]);
      }
      expect(lines.map(({ index, label, tokens }) => ({ index, label, tokens }))).toEqual(
        rows.map(({ label, completion_ids }, index) => ({ index, label, tokens: (completion_ids as number[]).length })),
      );
      const column = (name: "logp" | "ref_logp" | "log_ratio") => lines.map((line) => Number(line[name]));
      expectNear(column("logp"), expected.policy_logps, 1e-4);
      expectNear(column("ref_logp"), expected.reference_logps, 1e-4);
      expectNear(column("log_ratio"), expected.log_ratio, 1e-4);
    },
  );

  test("without a reference the keys are there and hold null", async () => {
    const { stdout } = await succeed("logps", "--model", llama, "--dataset", `${fixtures}/llama/data.jsonl`, "--json");
    expect(objects<LogpsLine>(stdout)[0]).toMatchObject({ index: 0, ref_logp: null, log_ratio: null });
  });

  test("the number of rows computed at once does not matter", async () => {
    const words = ["logps", ...modelsAndData("llama"), "--json"];
    const together = objects<LogpsLine>((await succeed(...words)).stdout);
    const inPairs = objects<LogpsLine>((await succeed(...words, "per_device_eval_batch_size=2")).stdout);
    // f32 sums of a few hundred terms in another order.
    expectNear(
      inPairs.map(({ logp }) => logp),
      together.map(({ logp }) => logp),
      1e-4,
    );
  });

  test("a preference pair is two rows, its chosen one first; EOS belongs to the completion", async () => {
    const pairs = [
      { prompt: "Once upon a time", chosen: ", there was a little girl", rejected: " xqz" },
      { prompt: "Once upon a time", chosen: ", there was a little girl</s>", rejected: " boy a good" },
    ];
    const data = fileIn(folder, "pairs.jsonl", jsonl(pairs));
    const { stdout } = await succeed("logps", "--model", stories, "--dataset", data, "--json");
    const lines = objects<LogpsLine>(stdout);
    expect(lines.map(({ index, label }) => [index, label])).toEqual([
      [0, true],
      [1, false],
      [2, true],
      [3, false],
    ]);
    const [plain, noise, ended] = lines;
    expect(plain).toEqual({ ...ended, index: 0 });
    // A trained model knows English from noise, per token.
    const perToken = (line: LogpsLine | undefined) => (line?.logp ?? Number.NaN) / (line?.tokens ?? Number.NaN);
    expect(perToken(plain)).toBeGreaterThan(perToken(noise) + 1);
  });

  test("without --json a person can read it", async () => {
    const { stdout, stderr } = await succeed("logps", ...modelsAndData("llama"));
    expect(stdout).toMatch(/^0 {2}up {4}log-prob -84\.565\d {2}log-ratio 1\.9121 {2}tokens 13\n1 {2}down /);
    expect(stderr).toMatch(/^adapter: /);
  });

  test("as a process of its own it prints the same, and nothing else, to stdout", async () => {
    const words = ["logps", ...modelsAndData("gpt2"), "--json"];
    const { stdout } = await succeed(...words);
    expect(execFileSync(process.execPath, ["bin/kto.js", ...words], { encoding: "utf8", stdio: "pipe" })).toBe(stdout);
  });
});

describe("kto gradcheck", () => {
  const keys = [
    ...["loss", "kl", "kl_unclamped", "log_ratio", "kl_log_ratio", "grad_norm"],
    ...["max_relative_error", "worst_parameter", "passed"],
  ];

  test.each(["llama", "gpt2"] as const)("%s: numbers and gradients are PyTorch's", async (family) => {
    const expected = readExpected(family);
    const { beta, desirable_weight, undesirable_weight } = expected.hyperparameters;
    const path = freshPath(folder, "grads.safetensors");
    const { stdout } = await succeed(
      ...["gradcheck", ...modelsAndData(family), "--beta", String(beta), "--grads_out", path, "--json"],
      ...["--desirable_weight", String(desirable_weight), "--undesirable_weight", String(undesirable_weight)],
    );
    const [result = {}, ...more] = objects(stdout);
    expect(more).toEqual([]);
    expect(Object.keys(result)).toEqual(keys);
    expect(result.passed).toBe(true);
    const numbers = (name: string) => [result[name]].flat() as number[];
    expectNear(numbers("loss"), [expected.loss], 1e-5);
    expectNear(numbers("kl"), [expected.kl], 1e-4);
    expectNear(numbers("kl_unclamped"), [expected.kl_unclamped], 1e-4);
    expectNear(numbers("log_ratio"), expected.log_ratio, 1e-4);
    expectNear(numbers("kl_log_ratio"), expected.kl_log_ratio, 1e-4);
    expectNear(numbers("grad_norm"), [expected.gradient_norm], 1e-3 * expected.gradient_norm);

    const found = readFloat64Safetensors(path);
    const wanted = readFloat64Safetensors(`${fixtures}/${family}/expected-grads.safetensors`);
    expect([...found.keys()].sort()).toEqual([...wanted.keys()].sort());
    const errors = [...wanted].map(([name, { shape, data }]) => {
      expect(found.get(name)?.shape, name).toEqual(shape);
      const difference = data.map((value, i) => value - (found.get(name)?.data[i] ?? Number.NaN));
      return { name, error: Math.hypot(...difference) / Math.hypot(...data) };
    });
    const worst = errors.reduce((one, other) => (other.error > one.error ? other : one));
    expect(worst.error, worst.name).toBeLessThan(1e-3);
    // What it reports against its own float64 model is its distance from PyTorch's float64, up to the file's f32.
    expectNear(numbers("max_relative_error"), [worst.error], 2 ** -24);
    const named = errors.find(({ name }) => name === result.worst_parameter);
    expect(named?.error).toBeGreaterThan(worst.error - 2 ** -24);
  });

  test.each([
    [
      "a lone key has no gradient but f32's rounding",
      [
        { prompt_ids: [5], completion_ids: [7], label: true },
        { prompt_ids: [6], completion_ids: [9], label: false },
      ],
    ],
    [
      "the gradients of two rows cancel",
      [true, false].map((label) => ({ prompt_ids: [5, 6], completion_ids: [7, 8], label })),
    ],
  ])("%s: passes", async (_, rows) => {
    const dataset = fileIn(folder, "rows.jsonl", jsonl(rows));
    await succeed("gradcheck", "--model", `${fixtures}/llama/policy`, "--dataset", dataset, "--log_level", "error");
  });

  test("takes the first 64 rows of more, and says so", async () => {
    const rows = Array.from({ length: 70 }, (_, i) => ({
      ...{ prompt_ids: [3 + (i % 5), 4], completion_ids: [5 + (i % 3), 6, 7], label: i % 2 === 0 },
    }));
    const data = fileIn(folder, "many.jsonl", jsonl(rows));
    const words = ["gradcheck", "--model", `${fixtures}/llama/policy`, "--dataset", data, "--json"];
    const said = "checking the first 64 of 70 rows; max_samples takes another number of them";
    const { stdout, stderr } = await succeed(...words);
    expect(stderr).toContain(said);
    expect(objects(stdout)[0]?.log_ratio).toHaveLength(64);
    const all = await succeed(...words, "--max_samples", "70");
    expect(all.stderr).not.toContain("checking the first");
    expect(objects(all.stdout)[0]?.log_ratio).toHaveLength(70);
  });

  test("a tolerance that is not met: the object says so, the sentence names the parameter, the exit code is 8", async () => {
    const words = ["gradcheck", ...modelsAndData("llama"), "--tolerance", "1e-12", "--json", "--log_level", "error"];
    const { code, stdout, stderr } = await kto(...words);
    const [result = {}] = objects(stdout);
    expect(code).toBe(8);
    expect(Object.keys(result)).toEqual(keys);
    expect(result.passed).toBe(false);
    expect(stderr).toMatch(/^error: The gradients disagree with the float64 model: [^\n]+\n$/);
    expect(stderr).toContain(` ${result.worst_parameter as string} is off by `);
  });

  test("weights, beta and a reference point of 0 reach the objective", async () => {
    const run = async (...words: string[]) =>
      objects((await succeed("gradcheck", ...modelsAndData("llama"), ...words, "--json")).stdout)[0] ?? {};
    const zero = await run("--loss_type", "kto_zero", "beta=0.5", "desirable_weight=2", "undesirable_weight=0.5");
    const { log_ratio: ratios } = readExpected("llama");
    const labels = [true, false, true, false, true];
    const sigmoid = (u: number) => 1 / (1 + Math.exp(-u));
    const losses = ratios.map((r, i) => (labels[i] ? 2 * (1 - sigmoid(0.5 * r)) : 0.5 * (1 - sigmoid(-0.5 * r))));
    expectNear([zero.loss as number], [losses.reduce((sum, loss) => sum + loss) / 5], 1e-5);
    expect(zero).toMatchObject({ kl: 0, kl_log_ratio: [], passed: true });
    // The model as its own reference: every log-ratio is 0 and the loss lambda / 2.
    const own = await run("--ref_model", `${fixtures}/llama/policy`);
    expect(own).toMatchObject({ loss: 0.5, kl: 0, kl_unclamped: 0, log_ratio: [0, 0, 0, 0, 0], passed: true });
  });
});

describe("kto train", () => {
  const stems = ["Once upon a time", "Tom was", "One day, a dog", "Lily had"];
  const feedback = fileIn(
    folder,
    "feedback.jsonl",
    jsonl(
      stems.flatMap((prompt, i) => [
        { prompt, completion: ` and they were happy ${"!".repeat(i + 1)}`, label: true },
        { prompt, completion: ` but it was sad ${"?".repeat(i + 1)}`, label: false },
      ]),
    ),
  );
  /** A run of 6 updates over 8 rows, two microbatches an epoch. */
  const words = (output: string, ...more: string[]) => [
    ...["train", "--model_name_or_path", stories, "--dataset_name", feedback, "--output_dir", output],
    ...["--per_device_train_batch_size", "4", "--max_steps", "6", "--learning_rate", "2e-4", "--logging_steps", "2"],
    ...["--logging_first_step", ...more],
  ];
  /** As TRL's KTOTrainer writes them; ours beside them are not listed. */
  const trlMetrics = [
    ...["loss", "grad_norm", "learning_rate", "epoch", "num_tokens", "kl"],
    ...["logps/chosen", "logps/rejected", "rewards/chosen", "rewards/rejected", "rewards/margins"],
    ...["logits/chosen", "logits/rejected", "entropy"],
  ];

  test("a model folder comes out that prefers what was liked; metrics.jsonl, stdout and stderr tell how", async () => {
    const output = freshPath(folder, "aligned");
    const { stdout, stderr } = await succeed(...words(output, "--json"));

    // The folder: what came in, with other weights, and the metrics.
    expect(readdirSync(output).sort()).toEqual([
      ...["README.md", "checkpoint-6", "config.json", "events.jsonl", "examples.jsonl", "generation_config.json"],
      ...["metrics.jsonl", "model.safetensors", "rows.jsonl", "run.json"],
      ...["special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "trainer_state.json", "training.svg"],
    ]);
    for (const name of ["config.json", "tokenizer.json", "tokenizer_config.json"]) {
      expect(readFileSync(join(output, name)), name).toEqual(readFileSync(join(stories, name)));
    }

    // What it said, what it was started with, and the texts of rows, each once.
    const events = objects<EventLine>(readFileSync(join(output, EVENTS_FILE), "utf8"));
    expect(events.find(({ text }) => text.startsWith("checkpoint: "))).toMatchObject({ step: 6, level: "info" });
    expect(events.filter(({ text }) => text.startsWith("adapter: "))).toHaveLength(1);
    const facts = runFactsSchema.parse(readJson(join(output, RUN_FILE)));
    expect(facts).toMatchObject({ method: "kto", model: stories, updates: 6, updates_per_epoch: 2 });
    expect(facts.options).toMatchObject({ learning_rate: 2e-4, beta: 0.1, per_device_train_batch_size: 4 });
    const rows = objects<RowLine>(readFileSync(join(output, ROWS_FILE), "utf8"));
    expect(rows.map(({ index }) => index).sort()).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    expect(rows.find(({ index }) => index === 3)).toMatchObject({
      ...{ label: false, prompt: "Tom was", completion: " but it was sad ??" },
    });

    // The metrics: steps 1, 2, 4, 6 under TRL's names.
    const lines = objects<Record<string, number>>(readFileSync(join(output, "metrics.jsonl"), "utf8"));
    expect(lines.map(({ step }) => step)).toEqual([1, 2, 4, 6]);
    for (const line of lines) {
      for (const name of trlMetrics) expect(line[name], name).toSatisfy(Number.isFinite);
    }
    const [first = {}, last = {}] = [lines[0], lines.at(-1)];
    // Before the first update the policy is the reference.
    expect(first).toMatchObject({ loss: 0.5, kl: 0, "rewards/chosen": 0, "rewards/rejected": 0, "rewards/margins": 0 });
    expect(first["logps/chosen"]).toBeLessThan(0);
    expect(first.learning_rate).toBe(2e-4);
    expect(first.epoch).toBe(1 / 2);
    expect(last.epoch).toBe(3);
    expect(last.loss).toBeLessThan(0.5);
    expect(last["rewards/margins"]).toBeGreaterThan(0);
    expect(last["rewards/margins"]).toBeCloseTo(
      (last["rewards/chosen"] ?? Number.NaN) - (last["rewards/rejected"] ?? Number.NaN),
      6,
    );

    // stdout: one object, the last line of the metrics among it.
    const [summary = {}, ...more] = objects(stdout);
    expect(more).toEqual([]);
    const { step: _, ...lastMetrics } = last;
    expect(summary).toMatchObject({ output_dir: output, steps: 6, ...lastMetrics });
    expect(summary.train_runtime).toBeGreaterThan(0);

    // stderr: what will be done, and how it ended.
    expect(stderr).toContain("8 rows, 4 desirable (weight 1), 4 undesirable (weight 1)");
    expect(stderr).toContain("plan: 6 updates, 3 epochs");
    expect(stderr.trimEnd().split("\n").at(-1)).toMatch(
      /^update 6\/6 {2}loss 0\.\d+ {2}kl \S+ {2}rewards\/chosen .* {2}rewards\/margins \+\d+\.\d+ {2}rewards\/accuracies \d+%/,
    );

    // The folder is a model folder, and the model in it has moved the right way on each row's pair.
    const logps = ["logps", "--model", output, "--ref_model", stories, "--dataset", feedback, "--json"];
    const ratios = objects<LogpsLine>((await succeed(...logps)).stdout).map(({ log_ratio }) => log_ratio as number);
    for (let pair = 0; pair < stems.length; pair++) {
      expect(ratios[2 * pair], stems[pair]).toBeGreaterThan(ratios[2 * pair + 1] as number);
    }
    const told = await succeed("generate", "--model", output, "--prompt", "Tom was", "max_new_tokens=4", "--greedy");
    expect(told.stdout).toMatch(/^Tom was.+\n$/);
  });

  test("the same seed gives the same bits, another seed others", async () => {
    const weightsOf = async (...more: string[]) => {
      const output = freshPath(folder, "run");
      const { stdout } = await succeed(...words(output, "max_steps=2", ...more));
      expect(stdout).toMatch(
        new RegExp(`^trained 2 updates in \\d+\\.\\d s; the model and metrics.jsonl are in ${output}\n`),
      );
      expect(stdout.trimEnd()).toMatch(/model +\S+\nmetrics +\S+metrics\.jsonl\nexamples +\S+\ncheckpoint +\S+$/);
      return readFileSync(join(output, "model.safetensors"));
    };
    const once = await weightsOf("seed=7");
    expect((await weightsOf("seed=7")).equals(once)).toBe(true);
    expect((await weightsOf("seed=8")).equals(once)).toBe(false);
  });

  test("a learning rate of 0 writes the weights that it read, under the names that it read", async () => {
    const output = freshPath(folder, "run");
    await succeed(...words(output, "max_steps=1", "learning_rate=0"));
    const [before, after] = [stories, output].map((path) => readFloat64Safetensors(join(path, "model.safetensors")));
    expect(new Map([...(after ?? [])].sort())).toEqual(new Map([...(before ?? [])].sort()));
  });

  test("a reference of another folder is the one that rewards are measured against", async () => {
    const output = freshPath(folder, "run");
    await succeed("train", ...modelsAndData("llama"), "--output_dir", output, "max_steps=1", "learning_rate=0");
    const [line = {}] = objects<Record<string, number>>(readFileSync(join(output, "metrics.jsonl"), "utf8"));
    const { log_ratio: r } = readExpected("llama");
    const mean = (rows: number[]) => (0.1 * rows.reduce((sum, i) => sum + (r[i] ?? Number.NaN), 0)) / rows.length;
    expectNear(
      [line["rewards/chosen"] as number, line["rewards/rejected"] as number],
      [mean([0, 2, 4]), mean([1, 3])],
      1e-5,
    );
  });

  test("options come from a file, --name value and name=value, and the last one wins", async () => {
    const output = freshPath(folder, "run");
    const file = fileIn(
      folder,
      "run.yaml",
      [
        `model_name_or_path: ${stories}`,
        `dataset: ${feedback}`,
        "output_dir: /nowhere/at/all",
        "per-device-train-batch-size: 4",
        "learning_rate: 2e-4",
        "lr_scheduler_type: constant",
        "max_steps: 50",
        "logging_steps: 1",
      ].join("\n"),
    );
    await succeed("train", "--config", file, "--output_dir", output, "--max_steps", "3", "max_steps=2");
    const lines = objects<Record<string, number>>(readFileSync(join(output, "metrics.jsonl"), "utf8"));
    expect(lines.map(({ step, learning_rate }) => [step, learning_rate])).toEqual([
      [1, 2e-4],
      [2, 2e-4],
    ]);
    expect(existsSync("/nowhere")).toBe(false);
  });
});

describe("kto generate", () => {
  interface Generated {
    index: number;
    prompt: string;
    completion: string;
    tokens: number;
    finish: string;
  }

  async function generate(...words: string[]): Promise<Generated[]> {
    const { stdout } = await succeed("generate", "--model_name_or_path", stories, ...words, "--json");
    return objects<Generated>(stdout);
  }

  /** Token ids to text by the vocabulary alone, as SentencePiece defines it. */
  function spell(ids: readonly number[]): string {
    const { model } = readJson<{ model: { vocab: Record<string, number> } }>(join(stories, "tokenizer.json"));
    const pieces = new Map(Object.entries(model.vocab).map(([piece, id]) => [id, piece]));
    const text = ids.map((id) => pieces.get(id) ?? "").join("");
    return text
      .replaceAll("▁", " ")
      .replace(/<0x([0-9A-F]{2})>/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
  }

  test("greedy, from the beginning-of-sequence token alone: the continuation that PyTorch gives", async () => {
    const { ids } = readJson<{ ids: number[] }>(`${fixtures}/stories260K/golden_greedy.json`);
    const [story] = await generate("--prompt", "", "--greedy", "--max_new_tokens", String(ids.length - 1));
    expect(story).toEqual({
      index: 0,
      prompt: "",
      completion: spell(ids.slice(1)).trimStart(),
      tokens: ids.length - 1,
      finish: "length",
    });
  });

  test("a prompt of the greedy story goes on as the story does, whichever option says greedy", async () => {
    const { ids } = readJson<{ ids: number[] }>(`${fixtures}/stories260K/golden_greedy.json`);
    const story = spell(ids.slice(1)).trimStart();
    const prompt = "Once upon a time, there was a";
    expect(story.startsWith(prompt)).toBe(true);
    const greedy = await generate("--prompt", prompt, "--greedy", "max_new_tokens=12");
    expect(story.startsWith(prompt + greedy[0]?.completion)).toBe(true);
    for (const option of ["temperature=0", "do_sample=false", "top_k=1", "top_p=1e-9"]) {
      expect(await generate("--prompt", prompt, option, "max_new_tokens=12"), option).toEqual(greedy);
    }
  });

  test("sampling is repeatable from its seed; sequences of one prompt differ", async () => {
    const words = ["--prompt", "Tom was", "num_return_sequences=3", "max_new_tokens=12", "temperature=1.2", "top_k=50"];
    const texts = async (...more: string[]) => (await generate(...words, ...more)).map(({ completion }) => completion);
    const once = await texts("seed=1");
    expect(await texts("seed=1")).toEqual(once);
    expect(await texts("seed=2")).not.toEqual(once);
    expect(new Set(once).size).toBe(3);
  });

  test("prompts of the command line, then those of a file, in order; keys as documented", async () => {
    const file = fileIn(folder, "prompts.jsonl", jsonl([{ prompt: "Lily" }, { prompt: "The dog", label: true }]));
    const lines = await generate("--prompt", "Tom", "--prompts_file", file, "--greedy", "max_new_tokens=3");
    expect(lines.map(({ index, prompt }) => [index, prompt])).toEqual([
      [0, "Tom"],
      [1, "Lily"],
      [2, "The dog"],
    ]);
    for (const line of lines) expect(Object.keys(line)).toEqual(["index", "prompt", "completion", "tokens", "finish"]);
    // Side by side or alone: the same text.
    expect((await generate("--prompt", "Lily", "--greedy", "max_new_tokens=3"))[0]?.completion).toBe(
      lines[1]?.completion,
    );
  });

  test("a prompt that leaves no room within the context is named by its number", async () => {
    const long = ["--prompt", "Tom", "--prompt", "a ".repeat(300), "max_new_tokens=300"];
    const { code, stderr } = await kto("generate", "--model_name_or_path", stories, ...long);
    expect(stderr).toMatch(
      /error: Prompt 2 has \d+ tokens and max_new_tokens is 300, together more than the model's context of 512: ask for/,
    );
    expect(code).toBe(2);
  });

  test("without --json: prompt and continuation, stories apart by an empty line", async () => {
    const words = ["--prompt", "Tom", "--prompt", "Lily", "--greedy", "max_new_tokens=3"];
    const [tom, lily] = await generate(...words);
    const { stdout } = await succeed("generate", "--model", stories, ...words);
    expect(stdout).toBe(`Tom${tom?.completion}\n\nLily${lily?.completion}\n`);
  });
});

describe("the adapter", () => {
  afterEach(() => {
    vi.unstubAllEnvs();
  });

  test.each([
    ["logps", ["--model", llama, "--dataset", `${fixtures}/llama/data.jsonl`]],
    ["doctor", []],
  ])("kto %s takes that of KTO_ADAPTER, and --adapter goes before it", async (command, words) => {
    vi.stubEnv("KTO_ADAPTER", "abacus");
    const { code, stderr } = await kto(command, ...words);
    expect([code, stderr]).toEqual([5, expect.stringMatching(/^error: No adapter matches "abacus"/)]);
    expect((await kto(command, ...words, "--adapter", "lyre")).stderr).toContain('No adapter matches "lyre"');
  });
});

describe("LoRA on the command line", () => {
  const data = ["--dataset_name", `${fixtures}/llama/data.jsonl`];
  const lora = ["--use_peft", "--lora_r", "4", "--lora_target_modules", "q_proj", "down_proj"];
  const short = ["--max_steps", "2", "--learning_rate", "5e-3", "--logging_steps", "1"];
  const logps = async (...model: string[]) =>
    objects<LogpsLine>((await succeed("logps", ...model, ...data, "--json")).stdout).map(({ logp }) => logp);

  test("train, use, go on with, check and merge an adapter", async () => {
    const adapter = freshPath(folder, "adapter");
    await succeed("train", "--model_name_or_path", llama, ...data, "--output_dir", adapter, ...lora, ...short);
    expect(readdirSync(adapter).sort()).toEqual([
      ...["README.md", "adapter_config.json", "adapter_model.safetensors", "checkpoint-2", "events.jsonl"],
      ...["examples.jsonl", "metrics.jsonl", "run.json", "trainer_state.json", "training.svg"],
    ]);
    const config = readJson<Json>(join(adapter, "adapter_config.json"));
    expect(config).toMatchObject({ r: 4, lora_alpha: 32, target_modules: ["q_proj", "down_proj"] });
    expect(config.base_model_name_or_path).toBe(resolve(llama));

    // The folder alone stands for its base with it.
    const alone = await logps("--model_name_or_path", adapter);
    expect(await logps("--model_name_or_path", llama, "--adapter_name_or_path", adapter)).toEqual(alone);
    const base = await logps("--model_name_or_path", llama);
    expect(Math.max(...alone.map((value, i) => Math.abs(value - (base[i] ?? 0))))).toBeGreaterThan(0.1);

    const checked = await succeed("gradcheck", "--model_name_or_path", adapter, ...data, "--json");
    expect(objects(checked.stdout)[0]).toMatchObject({ passed: true });

    const merged = freshPath(folder, "merged");
    const { stdout } = await succeed("merge", "--adapter_name_or_path", adapter, "--output_dir", merged, "--json");
    expect(objects(stdout)).toEqual([{ output_dir: merged, base_model: resolve(llama), adapter }]);
    expectNear(await logps("--model_name_or_path", merged), alone, 1e-4);

    // Two updates more, from where the adapter is and not from the base.
    const further = freshPath(folder, "further");
    const going = ["--adapter_name_or_path", adapter, "--output_dir", further, ...short, "--logging_first_step"];
    await succeed("train", "--model_name_or_path", llama, ...data, ...going);
    const [first] = objects(readFileSync(join(further, "metrics.jsonl"), "utf8"));
    expect(first).toMatchObject({ loss: 0.5, "rewards/margins": 0 });
    expect(await logps("--model_name_or_path", further)).not.toEqual(alone);
  });

  test("after sft the adapter as it starts is the reference; the bare base by its name or by reference base", async () => {
    const tuned = freshPath(folder, "tuned");
    const model = ["--model_name_or_path", llama];
    await succeed("sft", ...model, ...data, "--output_dir", tuned, ...lora, ...short);
    const goOn = async (...words: string[]) => {
      const output = freshPath(folder, "aligned");
      const adapter = ["--use_peft", "--adapter_name_or_path", tuned, "--output_dir", output];
      await succeed("train", ...model, ...data, ...adapter, ...short, ...words);
      const lines = objects<Json>(readFileSync(join(output, "metrics.jsonl"), "utf8"));
      return { output, lines, weights: readFileSync(join(output, "adapter_model.safetensors")) };
    };
    const start = await goOn();
    expect(start.lines[0]).toMatchObject({ loss: 0.5, "kl/unclamped": 0, "rewards/chosen": 0, "rewards/rejected": 0 });
    const bare = await goOn("--reference", "base");
    expect(Math.abs(Number(bare.lines[0]?.["kl/unclamped"]))).toBeGreaterThan(0.1);
    expect((await goOn("--ref_model_name_or_path", llama)).weights).toEqual(bare.weights);
    // An adapter as the reference model: the same as a copy of it.
    expect((await goOn("--ref_model_name_or_path", tuned)).weights).toEqual(start.weights);
    expect((await goOn("--ref_model_name_or_path", tuned, "--reference", "cached")).weights).toEqual(start.weights);
    const compared = ["--model_name_or_path", start.output, "--ref_model_name_or_path", tuned, ...data, "--json"];
    for (const line of objects<{ log_ratio: number; logp: number }>((await succeed("logps", ...compared)).stdout)) {
      expect(Math.abs(line.log_ratio)).toBeLessThan(Math.abs(line.logp) / 2);
      expect(line.log_ratio).not.toBe(0);
    }
    const same = ["--model_name_or_path", tuned, "--ref_model_name_or_path", tuned, ...data, "--json"];
    const [metrics] = objects<Json>((await succeed("eval", ...same)).stdout);
    expect(metrics).toMatchObject({ eval_loss: 0.5, "eval_kl/unclamped": 0 });

    const half = await goOn("--save_steps", "1");
    rmSync(join(half.output, "checkpoint-2"), { recursive: true });
    const resumed = ["--adapter_name_or_path", tuned, "--output_dir", half.output, "--resume_from_checkpoint", "true"];
    await succeed("train", ...model, ...data, "--use_peft", ...resumed, ...short, "--save_steps", "1");
    expect(readFileSync(join(half.output, "adapter_model.safetensors"))).toEqual(start.weights);
  });

  test("a base in bf16 stays as it is stored, and dry_run tells beforehand the memory that training then takes", async () => {
    const device = await sharedDevice();
    const base = freshPath(folder, "bf16");
    const model = await Model.load(device, llama);
    await model.save(base, { dtype: "bf16" });
    const { parameterCount } = model.layout;
    model.free();
    for (const kind of [lora, []]) {
      const args = ["--model_name_or_path", base, ...data, ...kind, ...short, "--json"];
      const planned = freshPath(folder, "planned");
      const { stdout } = await succeed("train", ...args, "--output_dir", planned, "--dry_run");
      expect(existsSync(planned)).toBe(false);
      const [plan] = objects<{ device_bytes_by_category: Record<string, number> }>(stdout);
      const { uniforms: _, ...wanted } = plan?.device_bytes_by_category ?? {};
      // What training takes, seen when its first update has been made.
      const before = device.memory();
      let during: Readonly<Record<string, number>> = {};
      const appended = vi.spyOn(platform, "append").mockImplementation(async () => {
        during = device.memory();
      });
      await succeed("train", ...args, "--output_dir", planned);
      appended.mockRestore();
      const found = Object.keys(wanted).map((name) => [name, (during[name] ?? 0) - (before[name] ?? 0)]);
      expect(Object.fromEntries(found)).toEqual(wanted);
      const { weights = 0 } = wanted;
      if (kind === lora) {
        expect(weights).toBeLessThan(3 * parameterCount);
        expect(wanted["reference weights"]).toBeUndefined();
      } else {
        expect(weights).toBeGreaterThanOrEqual(4 * parameterCount);
        expect(wanted["reference weights"]).toBeLessThan(3 * parameterCount);
      }
    }
  });

  test("a folder of one kind is not filled with the other, and one with both is asked about", async () => {
    const whole = copyOfModel(folder, llama);
    const made = ["--model_name_or_path", llama, ...data, ...short, "--overwrite_output_dir"];
    const mixed = await kto("train", ...made, ...lora, "--output_dir", whole);
    expect(mixed.code).toBe(2);
    expect(mixed.stderr).toMatch(
      /output_dir ".*" holds a whole model, and this makes an adapter: choose another folder/,
    );
    const adapter = freshPath(folder, "adapter");
    await succeed("train", ...made, ...lora, "--output_dir", adapter);
    const other = await kto("train", ...made, "--output_dir", adapter);
    expect(other.stderr).toMatch(/holds an adapter, and this makes a whole model/);
    cpSync(join(llama, "config.json"), join(adapter, "config.json"));
    const both = await kto("logps", "--model_name_or_path", adapter, ...data);
    expect(both.code).toBe(2);
    expect(both.stderr).toMatch(/holds a whole model and an adapter; say which is meant/);
  });

  test("dropout of the model's own layers is refused where the family has it, as GPT-2", async () => {
    const result = await kto(
      ...["train", "--model_name_or_path", withConfig(folder, gpt2, { attn_pdrop: 0.1 })],
      ...["--dataset_name", `${fixtures}/gpt2/data.jsonl`],
      ...["--output_dir", freshPath(folder, "out"), "--disable_dropout", "false"],
    );
    expect(result.code).toBe(2);
    expect(result.stderr).toMatch(/"disable_dropout" is false, but the dropout of .* own layers .* is not implemented/);
  });

  test.each<[string, string[], number, RegExp]>([
    [
      "a target that is not there",
      ["--lora_target_modules", "query"],
      2,
      /names "query", which is no layer that an adapter is made for/,
    ],
    ["an adapter that is not there", ["--adapter_name_or_path", "./no/where"], 7, /no\/where/],
  ])("%s is refused in a sentence", async (_, words, code, sentence) => {
    const out = ["--output_dir", freshPath(folder, "out")];
    const result = await kto("train", "--model_name_or_path", llama, ...data, ...out, "--use_peft", ...words);
    expect(result.stderr).toMatch(sentence);
    expect(result.code).toBe(code);
  });
});
