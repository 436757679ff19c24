/** kto sft on stories260K: what it learns, tells and refuses, and that kto train goes on from what it leaves. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { showsFineTuning } from "../../../src/kto/run/state.ts";
import { shareDeviceWithCommands } from "../../helpers/commands.ts";
import { fileIn, freshPath, jsonl, stories, temporaryFolder } from "../../helpers/folders.ts";
import { kto } from "../../helpers/streams.ts";

shareDeviceWithCommands();
const folder = temporaryFolder();

/** Two lines of the same end on many openings: soon learnt. */
const rows = Array.from({ length: 12 }, (_, i) => ({
  prompt: `Once upon a time, there was a ${["cat", "dog", "bird"][i % 3]} named ${["Tim", "Lily", "Sam", "Mia"][i % 4]}.`,
  completion: " It was very sad. The end.",
}));
const answers = fileIn(folder, "answers.jsonl", jsonl(rows));
const labelled = fileIn(folder, "labelled.jsonl", jsonl(rows.map((row, i) => ({ ...row, label: i % 3 > 0 }))));

const words = (output: string, ...more: string[]) => [
  ...["sft", "--model_name_or_path", stories, "--dataset_name", answers, "--output_dir", output],
  ...["--per_device_train_batch_size", "4", "--max_steps", "4", "--logging_steps", "1", ...more],
];

const lines = (path: string) =>
  readFileSync(path, "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, number>);

describe("kto sft", () => {
  test("learns, logs under TRL's names, and leaves a model that kto train goes on from", async () => {
    const output = freshPath(folder, "tuned");
    const before = await kto("logps", "--model_name_or_path", stories, "--dataset_name", labelled, "--json");
    expect(before.code, before.stderr).toBe(0);
    const logps = before.stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as { logp: number; tokens: number });
    const sum = (key: "logp" | "tokens") => logps.reduce((total, row) => total + row[key], 0);
    const { code, stderr } = await kto(
      ...words(
        output,
        "--learning_rate",
        "2e-3",
        "--eval_dataset_name",
        answers,
        "--eval_on_start",
        "--eval_steps",
        "2",
      ),
      ...["--eval_samples", "1", "--eval_max_new_tokens", "8"],
    );
    expect(code, stderr).toBe(0);
    expect(stderr).not.toContain("one class alone");
    const metrics = lines(join(output, "metrics.jsonl"));
    const [start] = metrics;
    // The mean cross-entropy of a completion token, by another command on the same rows.
    expect(start?.eval_loss).toBeCloseTo(-sum("logp") / sum("tokens"), 4);
    const losses = metrics.flatMap(({ loss }) => (loss === undefined ? [] : [loss]));
    expect(losses).toHaveLength(4);
    expect(losses[3]).toBeLessThan(0.5 * (losses[0] ?? 0));
    for (const name of ["loss", "mean_token_accuracy", "num_tokens", "grad_norm", "learning_rate", "epoch"]) {
      expect(metrics.at(-2)).toHaveProperty(name);
    }
    expect(existsSync(join(output, "samples.jsonl"))).toBe(true);

    const aligned = freshPath(folder, "aligned");
    const train = await kto(
      ...["train", "--model_name_or_path", output, "--ref_model_name_or_path", stories, "--dataset_name", labelled],
      ...["--output_dir", aligned, "--max_steps", "1", "--per_device_train_batch_size", "4"],
    );
    expect(train.code, train.stderr).toBe(0);
    expect(await showsFineTuning(output)).toBe(true);
    expect(await showsFineTuning(aligned)).toBe(false);
    expect(existsSync(join(aligned, "model.safetensors"))).toBe(true);
  });

  test("of feedback only the desirable rows, said once; LoRA, a microbatch of one, a plan", async () => {
    const output = freshPath(folder, "adapter");
    const more = ["--dataset_name", labelled, "--use_peft", "--per_device_train_batch_size", "1", "--max_steps", "2"];
    const plan = await kto(...words(output, ...more, "--dry_run", "--json"));
    expect(plan.code, plan.stderr).toBe(0);
    expect(JSON.parse(plan.stdout)).toMatchObject({ dry_run: true, steps: 2, steps_per_epoch: 8 });
    expect(JSON.parse(plan.stdout).estimated_seconds).toBeGreaterThan(0);
    expect(JSON.parse(plan.stdout).device_bytes_by_category).not.toHaveProperty("reference weights");
    const { code, stderr } = await kto(...words(output, ...more));
    expect(code, stderr).toBe(0);
    expect(stderr.match(/data: 4 undesirable rows of .*labelled\.jsonl left out/g)).toHaveLength(1);
    expect(stderr).toContain("data: 8 rows with ");
    expect(existsSync(join(output, "adapter_model.safetensors"))).toBe(true);
    expect(await showsFineTuning(output)).toBe(true);
    writeFileSync(join(output, "trainer_state.json"), '{"log_history": "of another program"}');
    expect(await showsFineTuning(output)).toBe(false);
    const goesOn = await kto(
      ...["train", "--model_name_or_path", stories, "--adapter_name_or_path", output, "--dataset_name", labelled],
      ...["--output_dir", freshPath(folder, "aligned"), "--dry_run"],
    );
    expect(goesOn.code, goesOn.stderr).toBe(0);
    // The model is a toy.
    expect(goesOn.stderr).not.toContain("run kto sft first");
  });

  test("one of anything is not many", async () => {
    const dataset = fileIn(folder, "row.jsonl", jsonl(rows.slice(0, 1)));
    const output = freshPath(folder, "tuned");
    const run = words(output, "--dataset_name", dataset, "--max_steps", "1", "--per_device_train_batch_size", "1");
    const { stdout, stderr } = await kto(...run);
    expect(stderr).not.toContain("tokenized"); // how the cache was used is told with log_level debug
    expect(stderr).toMatch(/; data: 1 row with \d+ completion tokens\n/);
    expect(stderr).toContain("plan: 1 update, 1 epoch; ");
    expect(stdout).toMatch(/^trained 1 update in /);
    expect((await kto(...run, "--resume_from_checkpoint")).stderr).toContain("resumed: 1 of 1 update is done");
    expect((await kto(...run, "--overwrite_output_dir", "--dry_run")).stdout).toMatch(
      /^1 update of 1 row, 1 in an epoch\n/,
    );
  });

  test("resume_from_checkpoint ends in the same bits", async () => {
    const [whole, output] = [freshPath(folder, "whole"), freshPath(folder, "parted")];
    expect((await kto(...words(whole))).code).toBe(0);
    expect((await kto(...words(output, "--save_steps", "3"))).code).toBe(0);
    const resumed = await kto(
      ...words(output, "--save_steps", "3", "--resume_from_checkpoint", join(output, "checkpoint-3")),
    );
    expect(resumed.stderr).toContain("resumed: 3 of 4 updates are done");
    const weights = (path: string) => readFileSync(join(path, "model.safetensors"));
    expect(weights(output).equals(weights(whole))).toBe(true);
  });

  test.each([
    [["--beta", "0.1"], 2, 'option "beta" is "0.1", which belongs to KTO, and supervised fine-tuning has no reference'],
    [["--ref_model", stories], 2, `option "ref_model" is "${stories}", which belongs to KTO`],
    [["--loss_type", "kto"], 2, 'option "loss_type" is "kto", which is no loss of supervised fine-tuning'],
    [["--packing", "true"], 2, "batches are packed without padding in any case"],
    [["--learning_rat", "1"], 2, 'did you mean "learning_rate"?'],
    [["--early_stopping_patience", "2"], 2, "but the run does not evaluate"],
    [["--dataset_name", "no.jsonl"], 7, "no.jsonl"],
  ])("%j is refused in one sentence", async (more, code, sentence) => {
    const found = await kto(...words(freshPath(folder, "refused"), ...more));
    expect(found.stderr).toContain(sentence);
    expect(found.code, found.stderr).toBe(code);
    expect(found.stderr.match(/^error: .*$/gm)).toHaveLength(1);
  });

  test("of a chat the last answer alone is imitated, which is said where there are others", async () => {
    const say = (role: string) => ({ role, content: role });
    const turn = [say("user"), say("assistant")];
    const chats = [[...turn, ...turn], turn, [...turn, ...turn, ...turn]].map((messages) => ({ messages }));
    const template = fileIn(folder, "plain.jinja", "{% for m in messages %}{{ m.content }} {% endfor %}");
    const { code, stderr } = await kto(
      ...words(freshPath(folder, "chats"), "--dataset_name", fileIn(folder, "chats.jsonl", jsonl(chats))),
      ...["--chat_template_path", template, "--max_steps", "1"],
    );
    expect(code, stderr).toBe(0);
    expect(stderr).toMatch(
      /data: in 2 chats of .*chats\.jsonl the assistant speaks several times, and its last answer/,
    );
  });

  test("rows that are all thumbs down, or say nothing", async () => {
    const down = fileIn(folder, "down.jsonl", jsonl(rows.map((row) => ({ ...row, label: false }))));
    const refused = await kto(...words(freshPath(folder, "refused"), "--dataset_name", down));
    expect(refused.code).toBe(3);
    expect(refused.stderr).toContain("all 12 rows are undesirable, and supervised fine-tuning imitates its rows");
    const empty = fileIn(folder, "empty.jsonl", jsonl([{ prompt: "a", completion: "" }]));
    const nothing = await kto(...words(freshPath(folder, "refused"), "--dataset_name", empty));
    expect(nothing.code).toBe(3);
    expect(nothing.stderr).toContain("because the completion is empty");
  });
});
