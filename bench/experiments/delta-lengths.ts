/**
 * What share of an update Qwen3.5's recurrence takes at several lengths of rows: a LoRA update of one DeltaNet layer with
 * heads of 128 channels, whose kernels are timed one by one. The recurrence walks the rows of a sequence one after
 * another; where its share grew with their length, it would have to go in chunks.
 *
 *   npx tsx bench/experiments/delta-lengths.ts [--lengths 64,256] [--json FILE]
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Device } from "../../src/engine/gpu/device.ts";
import { LoraAdapter } from "../../src/engine/model/lora.ts";
import { Model } from "../../src/engine/model/model.ts";
import { commit } from "../../src/engine/platform/node-commit.ts";
import { packBatch } from "../../src/kto/method/batch.ts";
import { writeRandomModel } from "../random-model.ts";
import { profile, stepExamples, stepUpdate } from "../step.ts";

/** A DeltaNet layer of the width of Qwen3-0.6B; 16 heads of keys and of values, of 128 channels each, as Qwen3.5 has them. */
const SHAPE = {
  model_type: "qwen3_5_text",
  architectures: ["Qwen3_5ForCausalLM"],
  ...{ vocab_size: 4096, hidden_size: 1024, intermediate_size: 3072, num_hidden_layers: 1 },
  ...{ num_attention_heads: 8, num_key_value_heads: 2, head_dim: 128, attn_output_gate: true },
  ...{ linear_num_key_heads: 16, linear_num_value_heads: 16, linear_key_head_dim: 128, linear_value_head_dim: 128 },
  ...{ linear_conv_kernel_dim: 4, layer_types: ["linear_attention"], full_attention_interval: 4 },
  ...{ max_position_embeddings: 4096, rms_norm_eps: 1e-6, hidden_act: "silu", tie_word_embeddings: true },
  rope_parameters: { rope_type: "default", rope_theta: 1e7, partial_rotary_factor: 0.25 },
  ...{ bos_token_id: 1, eos_token_id: 2, torch_dtype: "float32" },
};
/** Kernels that walk a sequence. */
const WALKS = ["deltaForward", "deltaBackwardValue", "deltaBackwardQueryKey", "deltaBackwardKey"];
const ROWS = 2;

const { values } = parseArgs({
  options: { lengths: { type: "string", default: "64,256" }, json: { type: "string" } },
});
const folder = mkdtempSync(join(tmpdir(), "kto-delta-"));
const device = await Device.open();
try {
  await writeRandomModel(folder, SHAPE, 1);
  console.log(`${device.description}, commit ${commit()}; ${ROWS} rows, half of them completion; LoRA of rank 16`);
  const base = await Model.load(device, folder);
  const lora = { rank: 16, alpha: 32, dropout: 0, rslora: false, targetModules: "all-linear" };
  const adapter = LoraAdapter.create(device, base.config, lora);
  adapter.initialize(1);
  console.log("row tokens   update ms  recurrence ms   its share  ms a token of it");
  const results = [];
  for (const length of values.lengths.split(",").map(Number)) {
    const examples = stepExamples({ rows: ROWS, prompt: length / 2, completion: length / 2 }, SHAPE.vocab_size);
    const packed = packBatch(examples, { mismatched: true, maxLength: length });
    const update = stepUpdate(base.withAdapter(adapter), base, packed);
    await update.gradients([packed]); // compiles
    const kernels = await profile(device, update);
    update.free();
    const all = kernels.reduce((sum, { ms }) => sum + ms, 0);
    const walked = kernels.filter(({ name }) => WALKS.includes(name)).reduce((sum, { ms }) => sum + ms, 0);
    results.push({ length, all, walked, kernels });
    const cells = [all, walked].map((ms) => ms.toFixed(0).padStart(13)).join("");
    console.log(
      `${String(length).padStart(10)}${cells}${`${((100 * walked) / all).toFixed(1)}%`.padStart(12)}${(walked / length / ROWS).toFixed(3).padStart(18)}`,
    );
  }
  const file = { date: new Date().toISOString(), commit: commit(), adapter: device.description, results };
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(file, null, 2)}\n`);
} finally {
  device.close();
  rmSync(folder, { recursive: true });
}
