/**
 * Plans QLoRA runs of Qwen3-0.6B, 1.7B and 4B as `kto train --dry_run` does, on a device that only counts, with the
 * adapter's limits: bytes by category for microbatches of 1 and 4 rows of 1,024 tokens. Nothing is computed; the weight
 * files have headers of the right shapes and no numbers.
 *
 *   npx tsx bench/experiments/quantised-memory.ts [--json FILE]
 *
 * Exits with 1 where 4B at 1 takes 6 GiB or more, or 1.7B 3 GiB or more.
 */
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Device } from "../../src/engine/gpu/device.ts";
import { planningDevice } from "../../src/engine/gpu/memory-plan.ts";
import { elementCount } from "../../src/engine/gpu/tensor.ts";
import { parseModelConfig } from "../../src/engine/model/config/config.ts";
import { LoraAdapter } from "../../src/engine/model/lora.ts";
import { Model } from "../../src/engine/model/model.ts";
import { modulePrefix, parameterSpecs, storedNaming } from "../../src/engine/model/weights/parameters.ts";
import type { Quantization } from "../../src/engine/model/weights/quantization.ts";
import { commit } from "../../src/engine/platform/node-commit.ts";
import { KtoTrainer } from "../../src/kto/trainer.ts";
import { qwen3Shape } from "../model-shapes.ts";
import { stepExamples } from "../step.ts";

const GIBIBYTE = 2 ** 30;
const ROW = { prompt: 512, completion: 512 };

/** What differs from Qwen3-0.6B in the config.json of the larger ones; all tie the head to the embedding. */
const MODELS: readonly {
  readonly name: string;
  readonly shape: Readonly<Record<string, unknown>>;
  readonly below?: number;
}[] = [
  { name: "Qwen3-0.6B", shape: {} },
  { name: "Qwen3-1.7B", shape: { hidden_size: 2048, intermediate_size: 6144 }, below: 3 * GIBIBYTE },
  {
    name: "Qwen3-4B",
    shape: { hidden_size: 2560, intermediate_size: 9728, num_attention_heads: 32, num_hidden_layers: 36 },
    below: 6 * GIBIBYTE,
  },
];

const BASES: readonly { readonly name: string; readonly quantization: Quantization }[] = [
  { name: "bf16", quantization: {} },
  { name: "int8", quantization: { format: "int8" } },
  { name: "nf4", quantization: { format: "nf4" } },
  { name: "nf4, embedding int8", quantization: { format: "nf4", embeddings: true } },
];

/** A model folder with a header for every tensor, in bf16, and a file of their size without numbers. */
function emptyModel(folder: string, shape: Readonly<Record<string, unknown>>): void {
  const text = JSON.stringify(shape);
  writeFileSync(join(folder, "config.json"), text);
  const config = parseModelConfig(text, folder);
  const { fullName } = storedNaming(config, [modulePrefix(config)]);
  const header: Record<string, unknown> = {};
  let end = 0;
  for (const part of parameterSpecs(config).flatMap(({ parts }) => parts)) {
    const bytes = 2 * elementCount(part.shape);
    header[fullName(part.name)] = { dtype: "BF16", shape: part.shape, data_offsets: [end, end + bytes] };
    end += bytes;
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  const file = openSync(join(folder, "model.safetensors"), "w");
  writeSync(file, Buffer.concat([length, json]));
  ftruncateSync(file, 8 + json.length + end);
  closeSync(file);
}

async function plan(device: Device, folder: string, quantization: Quantization, rows: number) {
  const counting = planningDevice(device);
  const base = await Model.load(counting, folder, { quantization });
  const options = { rank: 16, alpha: 32, dropout: 0, rslora: false, targetModules: "all-linear" };
  const policy = base.withAdapter(LoraAdapter.create(counting, base.config, options));
  const trainer = await KtoTrainer.create({
    policy,
    examples: stepExamples({ rows: 8, ...ROW }, base.config.vocabSize),
    options: {
      per_device_train_batch_size: rows,
      gradient_accumulation_steps: 8 / rows,
      max_length: ROW.prompt + ROW.completion,
      gradient_checkpointing: true,
      reference_point_scope: "step", // as a microbatch of one row needs it
      max_steps: 1,
    },
  });
  const found = { bytes: counting.totalBytes, categories: counting.memory() };
  trainer.free();
  return found;
}

const { values } = parseArgs({ options: { json: { type: "string" } } });
const device = await Device.open();
const lines = [];
for (const { name, shape, below } of MODELS) {
  const folder = mkdtempSync(join(tmpdir(), "kto-plan-"));
  try {
    emptyModel(folder, { ...qwen3Shape, ...shape });
    for (const base of BASES) {
      for (const rows of [1, 4]) {
        const { bytes, categories } = await plan(device, folder, base.quantization, rows);
        const promised = base.name === "nf4" && rows === 1 ? below : undefined;
        if (promised !== undefined && bytes >= promised) process.exitCode = 1;
        lines.push({ model: name, base: base.name, rows, bytes, categories });
      }
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}
console.log(
  `Planned device memory in GiB on ${device.description} (bindings of ${device.limits.maxStorageBufferBindingSize / 2 ** 20} MiB), commit ${commit()}\nLoRA r 16 on every linear layer, rows of 1,024 tokens (half of them completion), gradient checkpointing, 8 rows an update`,
);
const row = (...cells: string[]) =>
  console.log(cells.map((cell, i) => (i < 2 ? cell.padEnd(20) : cell.padStart(12))).join(""));
row("model", "base", "microbatch", "weights", "adapter", "AdamW", "activations", "rest", "in all");
for (const { model, base, rows, bytes, categories } of lines) {
  const of = (...names: string[]) => names.reduce((sum, name) => sum + (categories[name] ?? 0), 0);
  const named = [of("weights"), of("adapter"), of("gradients", "optimizer"), of("activations")];
  const rest = bytes - named.reduce((sum, part) => sum + part, 0);
  row(model, base, String(rows), ...[...named, rest, bytes].map((part) => (part / GIBIBYTE).toFixed(3)));
}
if (values.json !== undefined) {
  const file = { date: new Date().toISOString(), commit: commit(), adapter: device.description, lines };
  writeFileSync(values.json, `${JSON.stringify(file, null, 2)}\n`);
}
device.close();
