/**
 * Times KTO updates of a LoRA adapter over a base in 4 bits, in 8 bits and in bf16, or of kinds of adapters (DoRA, head
 * and embedding as targets) over one in bf16, in one process: one update of each takes turns, so that the machine's
 * other work meets all alike.
 *
 *   npx tsx bench/experiments/adapter-update.ts [quantised|adapters] [--rounds N] [--json FILE]
 *
 * The model has the width of Qwen3-0.6B, in fewer layers and with a smaller vocabulary; the adapter is on every linear
 * layer, of rank 16. What is compared is the median over the rounds of the ratio of the two times of a round, wall time
 * and processor time, which is a software adapter's own.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Device } from "../../src/engine/gpu/device.ts";
import { LoraAdapter } from "../../src/engine/model/lora.ts";
import type { LoraOptions } from "../../src/engine/model/lora-modules.ts";
import { Model } from "../../src/engine/model/model.ts";
import type { Quantization } from "../../src/engine/model/weights/quantization.ts";
import { commit } from "../../src/engine/platform/node-commit.ts";
import { KtoTrainer } from "../../src/kto/trainer.ts";
import { summary } from "../measure/measure.ts";
import { qwen3Shape } from "../model-shapes.ts";
import { writeLargeRandomModel } from "../random-model.ts";
import { stepExamples, stepOptions } from "../step.ts";
import { now, since, type Timed } from "./timed.ts";

const SHAPE = { ...qwen3Shape, num_hidden_layers: 2, vocab_size: 4096 };
const BATCH = { rows: 4, prompt: 32, completion: 32 };
const WARM_UP = 2;

interface AdapterCase {
  readonly name: string;
  readonly quantization?: Quantization;
  readonly lora?: Partial<LoraOptions>;
}

const LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
/** Each list is compared with its first. */
const CASES: Readonly<Record<string, readonly AdapterCase[]>> = {
  quantised: [
    { name: "bf16" },
    { name: "nf4", quantization: { format: "nf4" } },
    { name: "int8", quantization: { format: "int8" } },
  ],
  adapters: [
    { name: "LoRA" },
    { name: "DoRA", lora: { dora: true } },
    { name: "head and embedding", lora: { targetModules: [...LINEAR, "lm_head", "embed_tokens"] } },
  ],
};

const { values, positionals } = parseArgs({
  options: { rounds: { type: "string", default: "15" }, json: { type: "string" } },
  allowPositionals: true,
});
const subjects = CASES[positionals[0] ?? "quantised"] ?? [];
const rounds = Number(values.rounds);
const folder = mkdtempSync(join(tmpdir(), "kto-quantised-"));
try {
  await writeLargeRandomModel(folder, SHAPE, 1);
  const device = await Device.open();
  const runs = [];
  for (const { name, quantization = {}, lora = {} } of subjects) {
    const before = device.memory().weights ?? 0;
    const base = await Model.load(device, folder, { quantization });
    const bytes = (device.memory().weights ?? 0) - before;
    const options = { rank: 16, alpha: 32, dropout: 0, rslora: false, targetModules: "all-linear", ...lora };
    const adapter = LoraAdapter.create(device, base.config, options);
    adapter.initialize(1);
    await adapter.readBase(base);
    const trainer = await KtoTrainer.create({
      policy: base.withAdapter(adapter),
      examples: stepExamples(BATCH, base.config.vocabSize),
      options: stepOptions(BATCH, rounds + WARM_UP),
    });
    const times: Timed[] = [];
    runs.push({ name, bytes, steps: trainer[Symbol.asyncIterator](), times });
  }
  for (let round = 0; round < rounds + WARM_UP; round++) {
    for (const { steps, times } of round % 2 === 0 ? runs : runs.toReversed()) {
      const start = now();
      await steps.next();
      await device.idle();
      if (round >= WARM_UP) times.push(since(start));
    }
  }
  const [first] = runs;
  const results = runs.map(({ name, bytes, times }) => {
    const ratio = (of: (time: Timed) => number) =>
      summary(times.map((time, round) => of(time) / of(first?.times[round] ?? time))).medianMs;
    const processorMs = summary(times.map((time) => time.processorMs)).medianMs;
    const found = { name, ms: summary(times.map(({ ms }) => ms)).medianMs, processorMs };
    return { ...found, ratio: ratio(({ ms }) => ms), processorRatio: ratio((time) => time.processorMs), bytes };
  });
  const { rows, prompt, completion } = BATCH;
  console.log(`${device.description}, commit ${commit()}, ${rounds} rounds`);
  console.log(
    `Qwen3-0.6B's width, ${SHAPE.num_hidden_layers} layers, vocabulary ${SHAPE.vocab_size}; ${rows} rows of ${prompt + completion} tokens, r 16 on every linear layer`,
  );
  console.log("                   ms an update   processor ms   of the first   processor   bytes of weights");
  for (const { name, ms, processorMs, ratio, processorRatio, bytes } of results) {
    console.log(
      `${name.padEnd(18)} ${ms.toFixed(0).padStart(12)} ${processorMs.toFixed(0).padStart(14)} ${ratio.toFixed(3).padStart(14)} ${processorRatio.toFixed(3).padStart(11)} ${bytes}`,
    );
  }
  const file = { date: new Date().toISOString(), commit: commit(), adapter: device.description, rounds, results };
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(file, null, 2)}\n`);
  device.close();
} finally {
  rmSync(folder, { recursive: true });
}
