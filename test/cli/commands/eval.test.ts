/**
 * kto eval, and kto train with rows to evaluate on: what is printed, what lies in the output folder, what is refused.
 */

import { existsSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterEach, describe, expect, test, vi } from "vitest";
import { Device } from "../../../src/engine/gpu/device.ts";
import { shareDeviceWithCommands } from "../../helpers/commands.ts";
import { readExpected } from "../../helpers/fixtures.ts";
import { readFloat64Safetensors } from "../../helpers/float64-safetensors.ts";
import { fileIn, fixtures, freshPath, jsonl, llama, stories, temporaryFolder } from "../../helpers/folders.ts";
import { kto } from "../../helpers/streams.ts";

shareDeviceWithCommands();
const folder = temporaryFolder();
afterEach(() => vi.unstubAllEnvs());

type Json = Record<string, unknown>;

async function succeed(...words: string[]): Promise<{ stdout: string; stderr: string }> {
  const { code, stdout, stderr } = await kto(...words);
  expect(code, stderr).toBe(0);
  return { stdout, stderr };
}

async function sentence(...words: string[]): Promise<string> {
  const { code, stderr, stdout } = await kto(...words);
  expect(stdout).toBe("");
  return `${code} ${stderr.trimEnd().split("\n").at(-1)}`;
}

const linesOf = (path: string): Json[] =>
  readFileSync(path, "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Json);

const models = ["--model_name_or_path", llama, "--ref_model_name_or_path", `${fixtures}/llama/reference`];
/** Two base models of text that tell stories; the second is the first, so that all is even but for the judge. */
const twoStories = ["--model_name_or_path", stories, "--ref_model_name_or_path", stories];
const answers = ["--prompt", "Once upon a time", "--prompt", "One day, a girl", "--max_new_tokens", "6"];

describe("kto eval", () => {
  test("one row is refused with its file, unless the reference point is 0", async () => {
    const one = fileIn(folder, "one.jsonl", jsonl([{ prompt: "One day", completion: " she", label: true }]));
    const words = ["eval", ...twoStories, "--dataset_name", one];
    expect(await sentence(...words)).toBe(
      `3 error: ${one} has one row to use, but the reference point is measured on mismatched pairs, each prompt with the completion of another row; give at least 2 rows.`,
    );
    expect(JSON.parse((await succeed(...words, "--loss_type", "kto_zero", "--json")).stdout)).toMatchObject({
      rows: 1,
    });
  });

  test("losses and rewards of the fixture are PyTorch's; keys are those of an evaluation in training", async () => {
    const { beta, desirable_weight, undesirable_weight } = readExpected("llama").hyperparameters;
    const { policy_logps, log_ratio } = readExpected("llama");
    const data = `${fixtures}/llama/data.jsonl`;
    const labels = linesOf(data).map(({ label }) => label === true);
    const mean = (values: readonly number[], label: boolean) => {
      const chosen = values.filter((_, i) => labels[i] === label);
      return chosen.reduce((sum, value) => sum + value, 0) / chosen.length;
    };
    const weights = [`desirable_weight=${desirable_weight}`, `undesirable_weight=${undesirable_weight}`];
    const { stdout } = await succeed("eval", ...models, "--dataset_name", data, "--json", `beta=${beta}`, ...weights);
    const found = JSON.parse(stdout) as Record<string, number>;
    expect(found).toMatchObject({ rows: labels.length, beta, desirable_weight, undesirable_weight });
    const again = await succeed(
      "eval",
      ...models,
      "--dataset",
      data,
      "--json",
      `beta=${beta}`,
      ...weights,
      "--dataset_train_split",
      "train[:2]",
    );
    expect(JSON.parse(again.stdout).rows).toBe(2);
    expect(found["eval_logps/chosen"]).toBeCloseTo(mean(policy_logps, true), 3);
    expect(found["eval_logps/rejected"]).toBeCloseTo(mean(policy_logps, false), 3);
    expect(found["eval_rewards/chosen"]).toBeCloseTo(beta * mean(log_ratio, true), 4);
    expect(found["eval_rewards/rejected"]).toBeCloseTo(beta * mean(log_ratio, false), 4);
    expect(Object.keys(found)).toEqual([
      ...[
        "rows",
        "beta",
        "desirable_weight",
        "undesirable_weight",
        "eval_loss",
        "eval_kl",
        "eval_kl/unclamped",
        "eval_rewards/chosen",
        "eval_rewards/rejected",
      ],
      ...["eval_rewards/margins", "eval_rewards/accuracies", "eval_logps/chosen", "eval_logps/rejected"],
      ...["eval_logits/chosen", "eval_logits/rejected", "eval_entropy"],
      ...["eval_saturated", "eval_self_pairs", "eval_cut_pairs", "eval_runtime"],
      ...["eval_samples_per_second", "eval_steps_per_second"],
    ]);
    const text = await succeed("eval", ...models, "--dataset_name", data);
    expect(text.stdout).toMatch(
      /^rows +\d+\nbeta +0\.1\ndesirable_weight +1\nundesirable_weight +1\neval_loss +0\.\d{4}\n/,
    );
  });

  test("a module judges the answers: the same model against itself is even, by equal answers", async () => {
    const judge = fileIn(
      folder,
      "judge.mjs",
      "export default () => { throw new Error('equal answers are not shown'); };",
    );
    const { stdout } = await succeed("eval", ...twoStories, ...answers, "--judge", judge, "--json");
    expect(JSON.parse(stdout)).toMatchObject({
      win_rate: { share: 0.5, wins: 0, ties: 2, losses: 0, judged: 2, prompts: 2, inconsistent: 0 },
      judge,
    });
  });

  test("a server judges two models in both orders; transcripts are kept, and the key comes from the environment", async () => {
    const keys = new Set<string | undefined>();
    const server = createServer((request, response) => {
      keys.add(request.headers.authorization);
      request.resume().on("end", () => response.end('{"choices":[{"message":{"content":"Verdict: A"}}]}'));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`;
    const transcripts = freshPath(folder, "said.jsonl");
    vi.stubEnv("OPENAI_API_KEY", "other");
    vi.stubEnv("KTO_JUDGE_API_KEY", "mine");
    // Another model with the same tokenizer: the adapter of a short training.
    const adapter = freshPath(folder, "adapter");
    const rows = fileIn(folder, "rows.jsonl", feedback(6));
    await succeed(
      ...["train", "--model_name_or_path", stories, "--dataset_name", rows, "--output_dir", adapter, "use_peft=true"],
      ...["max_steps=2", "learning_rate=0.1", "per_device_train_batch_size=3", "max_length=24"],
    );
    try {
      const { stdout, stderr } = await succeed(
        ...["eval", "--model_name_or_path", adapter, ...answers, "--seed", "4"],
        ...["--judge_base_url", url, "--judge_model", "critic", "--judge_transcripts", transcripts],
      );
      expect(stdout).toMatch(
        /^win rate +50\.0% {3}95% interval \d+\.\d% - \d+\.\d%; 0 won, 2 even, 0 lost\nverdicts that turned round +100\.0% /,
      );
      expect(stderr).toContain(`every exchange with it is added to ${transcripts}`);
    } finally {
      server.close();
    }
    expect([...keys]).toEqual(["Bearer mine"]);
    const said = linesOf(transcripts);
    expect(said).toHaveLength(4);
    expect(said.filter(({ prompt }) => prompt === "One day, a girl").map(({ swapped }) => swapped)).toEqual([
      false,
      true,
    ]);
  });

  test("mistakes are told before anything is run", async () => {
    const module = (text: string) => fileIn(folder, "judge.mjs", text);
    expect(await sentence("eval", ...models)).toBe(
      "2 error: there is nothing to evaluate: give dataset_name, or prompts and a judge.",
    );
    expect(await sentence("eval", ...twoStories, ...answers)).toBe(
      "2 error: there are prompts but no judge of the answers: give judge, or judge_model.",
    );
    expect(await sentence("eval", ...twoStories, "--judge", "j.mjs")).toBe(
      "2 error: the judge has no prompts: give prompt, prompts_file or dataset_name.",
    );
    expect(await sentence("eval", ...twoStories, ...answers, "--judge", "nowhere.mjs")).toBe(
      "7 error: The judge nowhere.mjs does not exist.",
    );
    expect(await sentence("eval", ...twoStories, ...answers, "--judge", module("export const x = 1;"))).toMatch(
      /^2 error: The judge .*judge\.mjs has no function as its default export/,
    );
    expect(await sentence("eval", ...twoStories, ...answers, "--judge", module("throw new Error('no');"))).toMatch(
      /^9 error: The judge .*judge\.mjs cannot be loaded: no\.$/,
    );
    const never = ["--judge", module("await new Promise(() => {});"), "judge_timeout=0.1"];
    expect(await sentence("eval", ...twoStories, ...answers, ...never)).toMatch(
      /^9 error: The judge .*judge\.mjs cannot be loaded: no answer within 0\.1 s\.$/,
    );
    expect(await sentence("eval", ...twoStories, ...answers, "--judge", "j.mjs", "--judge_model", "m")).toBe(
      "2 error: options judge and judge_base_url or judge_model name two judges: keep one.",
    );
    expect(await sentence("eval", ...twoStories, ...answers, "--judge_base_url", "http://x")).toBe(
      '2 error: option "judge_base_url" is "http://x" without a model: give judge_model as well.',
    );
    const data = ["--dataset_name", `${fixtures}/llama/data.jsonl`];
    const opened = vi.mocked(Device.open).mock.calls.length;
    expect(await sentence("eval", "--model_name_or_path", llama, ...data)).toBe(
      "2 error: there is no model to compare with: give ref_model_name_or_path, the model before it was trained.",
    );
    expect(vi.mocked(Device.open).mock.calls).toHaveLength(opened);
    expect(await sentence("eval", ...models, ...data, "--dataset_test_split", "a b")).toMatch(
      /^2 error: option "dataset_test_split" is "a b"; it must be the name of a split/,
    );
  });
});

/** Rows of token ids of stories260K, each with a prompt of its own. */
function feedback(count: number): string {
  return jsonl(
    Array.from({ length: count }, (_, i) => ({
      prompt_ids: [1, 403 + i, 407],
      completion_ids: [261, 378 + i, 300 + 2 * i],
      label: i % 2 === 0,
    })),
  );
}

describe("kto train with an evaluation", () => {
  const run = (rows: string, output: string, ...more: string[]) => [
    ...["train", "--model_name_or_path", stories, "--dataset_name", rows, "--output_dir", output],
    ...[
      "learning_rate=1e-3",
      "per_device_train_batch_size=4",
      "logging_steps=2",
      "max_steps=4",
      "max_length=24",
      ...more,
    ],
  ];

  test("of rows held out: metrics.jsonl, stderr and the result tell of it; samples begin with the base model's", async () => {
    const output = freshPath(folder, "out");
    const rows = fileIn(folder, "rows.jsonl", feedback(16));
    const prompts = fileIn(folder, "prompts.txt", "Once upon a time\nOne day\n");
    const options = ["validation_split=0.25", "eval_on_start=true", "load_best_model_at_end=true", "--json"];
    const samples = ["--eval_prompts_file", prompts, "eval_max_new_tokens=5"];
    const { stdout, stderr } = await succeed(...run(rows, output, ...options, ...samples));
    expect(stderr).toContain("validation: 4 of 16 rows held out");
    expect(stderr).toMatch(/evaluation at step 4: eval_loss 0\.\d{4} {2}eval_kl /);
    const lines = linesOf(join(output, "metrics.jsonl"));
    expect(lines.map((line) => [line.step, "loss" in line, "eval_loss" in line])).toEqual([
      [0, false, true],
      [2, true, false],
      [2, false, true],
      [4, true, false],
      [4, false, true],
    ]);
    const defined = readFileSync("docs/metrics.md", "utf8");
    for (const name of new Set(lines.flatMap(Object.keys))) {
      expect(defined).toContain(name.startsWith("bytes/") ? `\`${name.slice(6)}\`` : `\`${name}\``);
    }
    expect(lines[0]).toMatchObject({ epoch: 0, eval_loss: 0.5, "eval_rewards/margins": 0 });
    const evaluations = lines.filter((line) => "eval_loss" in line);
    const best = evaluations.reduce((one, other) => (Number(other.eval_loss) < Number(one.eval_loss) ? other : one));
    expect(JSON.parse(stdout)).toMatchObject({ best_step: best.step, eval_loss: lines[4]?.eval_loss });
    expect(existsSync(join(output, "best", "trained.safetensors"))).toBe(true);

    const said = linesOf(join(output, "samples.jsonl"));
    expect(said.map(({ step, index, prompt }) => [step, index, prompt])).toEqual(
      [0, 2, 4].flatMap((step) => [
        [step, 0, "Once upon a time"],
        [step, 1, "One day"],
      ]),
    );
    const words = ["--model_name_or_path", stories, "--prompts_file", prompts, "--max_new_tokens", "5"];
    const { stdout: generated } = await succeed("generate", ...words, "--json");
    const base = generated
      .trim()
      .split("\n")
      .map((line) => (JSON.parse(line) as Json).completion);
    expect(said.slice(0, 2).map(({ completion }) => completion)).toEqual(base);
  });

  test("with a judge: the win rate against what was said before training, also after a break", async () => {
    const output = freshPath(folder, "out");
    const prompts = fileIn(folder, "prompts.txt", "Once upon a time\nOne day\nTom\n");
    const judge = fileIn(folder, "judge.mjs", "export default (prompt, a, b) => a.length - b.length;");
    const words = [
      ...run(fileIn(folder, "rows.jsonl", feedback(16)), output, "validation_split=0.25", "eval_on_start=true"),
      ...["learning_rate=2e-2", "save_steps=2", "--eval_prompts_file", prompts, "eval_max_new_tokens=20"],
      ...["--judge", judge, "metric_for_best_model=win_rate"],
    ];
    const { stderr } = await succeed(...words);
    expect(stderr).toMatch(/evaluation at step 4: .* {2}eval_win_rate \d\.\d{4}/);
    const evaluations = () => linesOf(join(output, "metrics.jsonl")).filter((line) => "eval_loss" in line);
    const first = evaluations();
    const said = linesOf(join(output, "samples.jsonl"));
    const lengths = (step: unknown) => said.flatMap((one) => (one.step === step ? String(one.completion).length : []));
    const shares = first.map(({ step }) => {
      const [now, before] = [lengths(step), lengths(0)];
      return now.reduce((sum, length, i) => sum + (1 + Math.sign(length - (before[i] ?? 0))) / 2, 0) / 3;
    });
    expect(shares.some((share) => share !== 0.5)).toBe(true);
    for (const [i, share] of shares.entries()) expect(first[i]?.eval_win_rate).toBeCloseTo(share, 9);
    expect(first[0]).toMatchObject({ eval_win_rate: 0.5, "eval_win_rate/ties": 3, "eval_win_rate/judged": 3 });
    const defined = readFileSync("docs/metrics.md", "utf8");
    for (const name of Object.keys(first[0] ?? {})) expect(defined).toContain(`\`${name}\``);

    const again = [...words, "--resume_from_checkpoint", join(output, "checkpoint-2")];
    await succeed(...again);
    expect(evaluations()[2]?.eval_win_rate).toBe(first[2]?.eval_win_rate);
    rmSync(join(output, "samples.jsonl"));
    const before = readFileSync(join(output, "metrics.jsonl"));
    const lost = `${join(output, "samples.jsonl")} does not hold what the model said to these prompts before training.`;
    expect(await sentence(...again)).toBe(`2 error: option "metric_for_best_model" is "win_rate", but ${lost}`);
    expect(readFileSync(join(output, "metrics.jsonl"))).toEqual(before);
    expect((await succeed(...again, "metric_for_best_model=loss")).stderr).toMatch(
      /There is no win rate at step 4: .*samples\.jsonl does not hold what the model said to these prompts before training\. The training goes on\./,
    );
    expect(evaluations()[2]).toMatchObject({ eval_win_rate: null, "eval_win_rate/ties": null });
  });

  test.each([
    ["fails", "throw new Error('no\\nlexicon');", "no lexicon"],
    ["does not answer", "return new Promise(() => {});", "no answer within 2 s"],
  ])("a judge that %s does not end the run", async (_, body, reason) => {
    const rows = fileIn(folder, "rows.jsonl", feedback(8));
    const judge = fileIn(folder, "judge.mjs", `export default () => { ${body} };`);
    const more = ["validation_split=0.5", "eval_samples=1", "learning_rate=2e-2", "--judge", judge];
    const best = ["metric_for_best_model=win_rate", "load_best_model_at_end=true", "early_stopping_patience=1"];
    const words = run(rows, freshPath(folder, "out"), ...more, ...best, "judge_timeout=2"); // loading the module has the same
    const { stderr } = await succeed(...words);
    expect(stderr).toContain(
      `There is no win rate at step 4: The judge ${judge} failed on prompt 1: ${reason}. The training goes on.\n`,
    );
    // The evaluation before it did not count either.
    expect(stderr).not.toContain("stopped at step");
    const none =
      "The best model cannot be put back: there is none by eval_win_rate. The model is that of the last update.";
    expect(stderr.split(none)).toHaveLength(2);
  });

  test("the best may be the model before training: it is saved as it was, and a warning says so", async () => {
    const output = freshPath(folder, "out");
    const options = ["validation_split=0.25", "eval_on_start=true", "load_best_model_at_end=true", "eval_steps=4"];
    // A rate at which nothing but damage is done.
    const words = run(fileIn(folder, "rows.jsonl", feedback(16)), output, ...options, "learning_rate=0.5");
    const { stderr } = await succeed(...words);
    expect(stderr).toContain("warning: no evaluation was better than the one before training");
    const weights = (path: string) => new Map([...readFloat64Safetensors(join(path, "model.safetensors"))].sort());
    expect(weights(output)).toEqual(weights(stories));
  });

  test("of another file, with samples of its prompts; dry_run counts the evaluation's memory", async () => {
    const output = freshPath(folder, "out");
    const rows = fileIn(folder, "rows.jsonl", feedback(8));
    const other = fileIn(folder, "other.jsonl", feedback(3));
    const words = run(rows, output, "--eval_dataset_name", other, "eval_samples=2", "eval_steps=4");
    const plan = JSON.parse((await succeed(...words, "--dry_run", "--json")).stdout) as Json;
    const without = JSON.parse((await succeed(...run(rows, output), "--dry_run", "--json")).stdout) as Json;
    expect(Number(plan.device_bytes)).toBeGreaterThan(Number(without.device_bytes));
    const { stdout, stderr } = await succeed(...words, "--json");
    expect(stderr).toContain(`validation: 3 rows of ${other}`);
    expect(JSON.parse(stdout)).toHaveProperty("eval_rewards/accuracies");
    const said = linesOf(join(output, "samples.jsonl"));
    expect(said.map(({ step, index }) => [step, index])).toEqual([
      [0, 0],
      [0, 1],
      [4, 0],
      [4, 1],
    ]);
    expect(said[0]?.prompt).not.toBe("");
  });

  test("of another slice of the same file; the whole file again is refused, and so is the split that is trained on", async () => {
    const rows = fileIn(folder, "rows.jsonl", feedback(8));
    const slices = ["dataset_train_split=train[:6]", "dataset_test_split=train[6:]", "eval_strategy=epoch"];
    const { stderr } = await succeed(...run(rows, freshPath(folder, "out"), ...slices));
    expect(stderr).toContain(`validation: 2 rows of ${rows}`);
    const overlap = ["dataset_test_split=train[6:]", "eval_strategy=epoch"];
    expect(await sentence(...run(rows, freshPath(folder, "out"), ...overlap))).toMatch(
      /^2 error: eval_strategy is "epoch", but .* is a single file, so the rows that are trained on would be evaluated/,
    );
    expect(await sentence(...run(rows, freshPath(folder, "out"), "eval_strategy=steps"))).toBe(
      `2 error: eval_strategy is "steps", but ${rows} is a single file, so the rows that are trained on would be evaluated: give eval_dataset_name, validation_split, or a slice of it as dataset_test_split, such as train[90%:] beside dataset_train_split train[:90%].`,
    );
  });

  test("a prompt that fills the context cannot be continued", async () => {
    const rows = fileIn(folder, "rows.jsonl", feedback(8));
    const prompts = fileIn(folder, "prompts.txt", `Hi\n${"word ".repeat(600)}\n`);
    const words = run(rows, freshPath(folder, "out"), "validation_split=0.3", "--eval_prompts_file", prompts);
    expect(await sentence(...words)).toMatch(
      /^3 error: Prompt 2 of the samples has \d+ tokens, which leaves no room to continue it within the model's context of \d+; shorten it\.$/,
    );
  });
});
