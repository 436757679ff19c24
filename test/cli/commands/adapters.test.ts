/**
 * An adapter with all that PEFT's can have, on the command line: DoRA, an embedding as a target, a head that is trained
 * whole, biases, noise; its files under PEFT's names, resumed, gone on with, merged, and refused for llama.cpp.
 */
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { openSafetensors } from "../../../src/engine/files/safetensors.ts";
import { Model } from "../../../src/engine/model/model.ts";
import { shareDeviceWithCommands } from "../../helpers/commands.ts";
import { activationFormats, sharedDevice } from "../../helpers/device.ts";
import { readJson } from "../../helpers/fixtures.ts";
import { fixtures, freshPath, gpt2, llama, temporaryFolder } from "../../helpers/folders.ts";
import { kto } from "../../helpers/streams.ts";

shareDeviceWithCommands();
const folder = temporaryFolder();
const model = ["--model_name_or_path", gpt2];
const data = ["--dataset_name", `${fixtures}/gpt2/data.jsonl`];

async function succeed(...words: string[]): Promise<{ stdout: string; stderr: string }> {
  const { code, stdout, stderr } = await kto(...words);
  expect(code, stderr).toBe(0);
  return { stdout, stderr };
}

const logps = async (...named: string[]) =>
  (await succeed("logps", ...named, ...data, "--json")).stdout
    .trim()
    .split("\n")
    .map((line) => (JSON.parse(line) as { logp: number }).logp);

test("trains, resumes, goes on with, merges and refuses to export it", async () => {
  const adapter = freshPath(folder, "adapter");
  const lora = [
    ...["--use_peft", "--use_dora", "--lora_r", "2", "--lora_target_modules", "c_attn", "wte", "--bias", "lora_only"],
    ...["--lora_modules_to_save", "lm_head", "--disable_dropout", "false", "--lora_dropout", "0.1"],
    ...["--lora_rank_pattern", '{"h.0.attn.c_attn": 3}', "--lora_alpha_pattern", '{"h.0.attn.c_attn": 48}'],
  ];
  const run = ["--max_steps", "2", "--learning_rate", "5e-3", "--logging_steps", "1", "--save_steps", "1"];
  const whole = ["train", ...model, ...data, ...lora, ...run, "--neftune_noise_alpha", "5", "--output_dir", adapter];
  expect((await succeed(...whole, "--dry_run")).stdout).toMatch(/adapter .* MiB/);
  await succeed(...whole);
  expect(readJson(join(adapter, "adapter_config.json"))).toMatchObject({
    ...{ use_dora: true, bias: "lora_only", modules_to_save: ["lm_head"], target_modules: ["c_attn", "wte"] },
    ...{ rank_pattern: { "h.0.attn.c_attn": 3 }, alpha_pattern: { "h.0.attn.c_attn": 48 } },
  });
  const file = await openSafetensors(join(adapter, "adapter_model.safetensors"));
  await file.close();
  const layer = (i: number) =>
    ["base_layer.bias", "lora_A.weight", "lora_B.weight", "lora_magnitude_vector"].map(
      (part) => `base_model.model.transformer.h.${i}.attn.c_attn.${part}`,
    );
  const embedding = ["lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector"];
  expect([...file.tensors.keys()].sort()).toEqual(
    [
      ...[...layer(0), ...layer(1), "base_model.model.lm_head.weight"],
      ...embedding.map((part) => `base_model.model.transformer.wte.${part}`),
    ].sort(),
  );
  const { vocab_size: V = 0, n_embd: C = 0 } = readJson<Record<string, number>>(join(gpt2, "config.json"));
  const shape = (part: string) => file.tensors.get(`base_model.model.transformer.wte.${part}`)?.shape;
  expect(embedding.map(shape)).toEqual([[2, V], [C, 2], [C]]);

  const weights = readFileSync(join(adapter, "adapter_model.safetensors"));
  rmSync(join(adapter, "checkpoint-2"), { recursive: true });
  await succeed(...whole, "--resume_from_checkpoint", "true");
  expect(readFileSync(join(adapter, "adapter_model.safetensors")).equals(weights)).toBe(true);

  const alone = await logps("--model_name_or_path", adapter);
  const base = await logps(...model);
  expect(Math.max(...alone.map((value, i) => Math.abs(value - (base[i] ?? 0))))).toBeGreaterThan(0.05);
  const merged = freshPath(folder, "merged");
  const { stderr } = await succeed("merge", "--adapter_name_or_path", adapter, "--output_dir", merged);
  expect(stderr).toMatch(/has a head of its own \(tie_word_embeddings is false\)/);
  expect(readJson(join(merged, "config.json"))).toMatchObject({ tie_word_embeddings: false });
  const whole_model = await logps("--model_name_or_path", merged);
  expect(Math.max(...alone.map((value, i) => Math.abs(value - (whole_model[i] ?? 0))))).toBeLessThan(1e-3);

  // Its reference is the adapter as it starts.
  const further = freshPath(folder, "further");
  const going = ["--use_peft", "--adapter_name_or_path", adapter, "--output_dir", further, ...run];
  await succeed("train", ...model, ...data, ...going);
  const [first = "{}"] = readFileSync(join(further, "metrics.jsonl"), "utf8").split("\n");
  expect(JSON.parse(first)).toMatchObject({ loss: 0.5, "kl/unclamped": 0 });

  const gguf = freshPath(folder, "adapter.gguf");
  const refused = await kto("export", "--adapter_name_or_path", adapter, "--gguf", "f16", "--output", gguf);
  expect([refused.code, refused.stderr]).toEqual([
    2,
    expect.stringMatching(/has DoRA \(use_dora\), which llama\.cpp's/),
  ]);
});

describe("DoRA and the head's adapter", async () => {
  const hasF16 = (await activationFormats()).includes("f16");
  const made = new Map<string, Promise<readonly number[]>>();
  let base = "";
  beforeAll(async () => {
    base = freshPath(folder, "bf16");
    const model = await Model.load(await sharedDevice(), llama);
    await model.save(base, { dtype: "bf16" });
    model.free();
  });

  /** The losses of three updates. */
  async function lossesOf(method: string, ...words: string[]): Promise<readonly number[]> {
    const output = freshPath(folder, "adapter");
    await succeed(
      ...[method, "--model_name_or_path", base, "--dataset_name", `${fixtures}/llama/data.jsonl`, "--use_peft"],
      ...["--use_dora", "--lora_r", "2", "--lora_target_modules", "q_proj", "down_proj", "lm_head", ...words],
      ...["--max_steps", "3", "--learning_rate", "1e-2", "--logging_steps", "1", "--output_dir", output],
    );
    const config = readJson(join(output, "adapter_config.json"));
    expect(config).toMatchObject({ use_dora: true, target_modules: expect.arrayContaining(["lm_head"]) });
    const lines = readFileSync(join(output, "metrics.jsonl"), "utf8").trim().split("\n");
    return lines.flatMap((line) => (JSON.parse(line) as { loss?: number }).loss ?? []);
  }

  // The base in f32 has the numbers that bf16 holds.
  test.for([
    { method: "train", words: ["--dtype", "bfloat16"], within: 1e-5 },
    { method: "train", words: ["--fp16"], within: 5e-3 },
    { method: "sft", words: ["--dtype", "bfloat16"], within: 1e-5 },
    { method: "sft", words: ["--fp16"], within: 5e-3 },
  ])(
    "kto $method $words: losses as with a base in f32 and activations in f32",
    async ({ method, words, within }, { skip }) => {
      skip(words.includes("--fp16") && !hasF16, "this adapter has no f16");
      const known = made.get(method) ?? lossesOf(method, "--dtype", "float32");
      made.set(method, known);
      const [exact, found] = [await known, await lossesOf(method, ...words)];
      expect(exact).toHaveLength(3);
      expect(Math.abs((exact[2] ?? 0) - (exact[0] ?? 0))).toBeGreaterThan(0.02);
      expect(Math.max(...exact.map((loss, i) => Math.abs(loss - (found[i] ?? Number.NaN))))).toBeLessThan(within);
    },
  );
});
