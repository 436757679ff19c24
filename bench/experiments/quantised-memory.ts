/**
 * Plans QLoRA runs of Qwen3-0.6B, 1.7B, 4B and Gemma-3-1B as `kto train --dry_run` does, on a device that only counts,
 * with the adapter's limits: bytes by category for microbatches of 1 and 4 rows of 1,024 tokens. Nothing is computed for
 * that; the weight files have headers of the right shapes and no numbers. With --measure, instead, one update of the 0.6B
 * shape runs on lavapipe, whose device memory is this process's, beside its plan: KTO on two microbatches of so many
 * rows.
 *
 *   npx tsx bench/experiments/quantised-memory.ts [--json FILE] [--measure ROWS [--layers N] [--unpaired]]
 *
 * --layers measures a model of so many layers of the 28, --unpaired one microbatch of apo_zero_unpaired: both take less
 * time.
 *
 * Exits with 1 where 4B at 1 takes 6 GiB or more, 1.7B 3 GiB or more, or the device memory of a measured run is off its
 * plan by over 10%.
 */
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Device } from "../../src/engine/gpu/device.ts";
import { planningDevice } from "../../src/engine/gpu/memory-plan.ts";
import { elementCount } from "../../src/engine/gpu/tensor.ts";
import { parseModelConfig } from "../../src/engine/model/config/config.ts";
import { modulePrefix, parameterSpecs, storedNaming } from "../../src/engine/model/weights/parameters.ts";
import type { Quantization } from "../../src/engine/model/weights/quantization.ts";
import { commit } from "../../src/engine/platform/node-commit.ts";
import { gemma3Shape, qwen3Shape } from "../model-shapes.ts";
import { measuredRun, qloraRun } from "./qlora-memory.ts";

const GIBIBYTE = 2 ** 30;
/** Rows of an update that is planned. */
const UPDATE_ROWS = 8;
/** What a measured run may be off its plan by, as a share of it. */
const MEASURED = 0.1;

const MODELS: readonly {
  readonly name: string;
  readonly shape: Readonly<Record<string, unknown>>;
  readonly below?: number;
}[] = [
  { name: "Qwen3-0.6B", shape: qwen3Shape },
  {
    name: "Qwen3-1.7B",
    shape: { ...qwen3Shape, hidden_size: 2048, intermediate_size: 6144 },
    below: 3 * GIBIBYTE,
  },
  {
    name: "Qwen3-4B",
    shape: {
      ...qwen3Shape,
      ...{ hidden_size: 2560, intermediate_size: 9728, num_attention_heads: 32, num_hidden_layers: 36 },
    },
    below: 6 * GIBIBYTE,
  },
  { name: "Gemma-3-1B", shape: gemma3Shape },
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

interface Plan {
  readonly bytes: number;
  readonly categories: Readonly<Record<string, number>>;
  /** What the adapter would say, were it asked for more than it has. */
  readonly refusal: string | undefined;
}

/** Counts a run, also where the adapter would refuse it. */
async function plan(device: Device, folder: string, quantization: Quantization, rows: number): Promise<Plan> {
  const counting = planningDevice(device, { countsOn: true });
  const { trainer } = await qloraRun(counting, folder, quantization, { rows, updateRows: UPDATE_ROWS });
  const found = { bytes: counting.totalBytes, categories: counting.memory(), refusal: counting.refusals[0]?.message };
  trainer.free();
  return found;
}

const { values } = parseArgs({
  options: {
    json: { type: "string" },
    measure: { type: "string" },
    layers: { type: "string" },
    unpaired: { type: "boolean" },
  },
});
const device = await Device.open();
const lines = [];
for (const { name, shape, below } of values.measure === undefined ? MODELS : []) {
  const folder = mkdtempSync(join(tmpdir(), "kto-plan-"));
  try {
    emptyModel(folder, shape);
    for (const base of BASES) {
      for (const rows of [1, 4]) {
        const found = await plan(device, folder, base.quantization, rows);
        const promised = base.name === "nf4" && rows === 1 ? below : undefined;
        if (promised !== undefined && found.bytes >= promised) process.exitCode = 1;
        lines.push({ model: name, base: base.name, rows, ...found });
      }
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}
if (lines.length > 0)
  console.log(
    `Planned device memory in GiB on ${device.description} (bindings of ${device.limits.maxStorageBufferBindingSize / 2 ** 20} MiB), commit ${commit()}\nLoRA r 16 on every linear layer, rows of 1,024 tokens (half of them completion), gradient checkpointing, ${UPDATE_ROWS} rows an update`,
  );
const row = (...cells: string[]) =>
  console.log(cells.map((cell, i) => (i < 2 ? cell.padEnd(20) : cell.padStart(12))).join(""));
if (lines.length > 0)
  row("model", "base", "microbatch", "weights", "adapter", "AdamW", "activations", "rest", "in all");
for (const { model, base, rows, bytes, categories, refusal } of lines) {
  const of = (...names: string[]) => names.reduce((sum, name) => sum + (categories[name] ?? 0), 0);
  const named = [of("weights"), of("adapter"), of("gradients", "optimizer"), of("activations")];
  const rest = bytes - named.reduce((sum, part) => sum + part, 0);
  const cells = [...named, rest, bytes].map((part) => (part / GIBIBYTE).toFixed(3));
  row(model, base, String(rows), ...cells, ...(refusal === undefined ? [] : [`  refused: ${refusal}`]));
}
const measured = [];
if (values.measure !== undefined) {
  const layers = Number(values.layers ?? qwen3Shape.num_hidden_layers);
  const rows = Number(values.measure);
  const pairs = !values.unpaired;
  const shape = { ...qwen3Shape, num_hidden_layers: layers };
  const updateRows = pairs ? 2 * rows : rows;
  const found = await measuredRun(device, shape, { format: "nf4" }, { rows, updateRows, pairs });
  const { mapped, resident } = found.driver;
  const off = mapped / found.planned - 1;
  if (!(Math.abs(off) <= MEASURED)) process.exitCode = 1;
  measured.push({ model: "Qwen3-0.6B", base: "nf4", layers, rows, pairs, ...found });
  const gibibytes = (bytes: number) => (bytes / GIBIBYTE).toFixed(3);
  console.log(
    `Measured on ${device.description} (bindings of ${device.limits.maxStorageBufferBindingSize / 2 ** 20} MiB), commit ${commit()}: one update of ${updateRows} rows of 1,024 tokens in microbatches of ${rows}, ${pairs ? "KTO" : "apo_zero_unpaired"}, Qwen3-0.6B's shape (${layers} of its 28 layers, random weights, base nf4, LoRA r 16), ${found.seconds.toFixed(0)} s\n` +
      `  planned ${gibibytes(found.planned)} GiB, buffers ${gibibytes(found.allocated)} GiB at most; the driver mapped ${gibibytes(mapped)} GiB of device memory (${(100 * off).toFixed(1)}% off the plan), of which ${gibibytes(resident)} was written to`,
  );
}
if (values.json !== undefined) {
  const file = { date: new Date().toISOString(), commit: commit(), adapter: device.description, lines, measured };
  writeFileSync(values.json, `${JSON.stringify(file, null, 2)}\n`);
}
device.close();
