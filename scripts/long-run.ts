/**
 * A thousand updates of stories260K with evaluations and checkpoints: memory of host and device at the end must be
 * within 5% of what it was after a hundred.
 *
 *     npx tsx scripts/long-run.ts [updates, default 1000]
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { Device, KtoTrainer, loadTokenizer, Model, readFeedback, tokenizeRows } from "../src/index.ts";

const [updates = 1000] = process.argv.slice(2).map(Number);
const examplesFolder = join(import.meta.dirname, "..", "examples", "quickstart");
setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

const device = await Device.open();
const folder = mkdtempSync(join(tmpdir(), "kto-long-"));
const policy = await Model.load(device, join(examplesFolder, "model"));
const tokenizer = await loadTokenizer(policy.folder);
const { vocabSize, contextLength } = policy.config;
const rows = (await readFeedback(join(examplesFolder, "feedback.jsonl"))).slice(0, 400);
const { examples } = tokenizeRows(rows, { tokenizer, vocabSize, contextLength, maxLength: 48 });
const trainer = await KtoTrainer.create({
  policy,
  examples,
  outputFolder: folder,
  options: {
    ...{ max_steps: updates, per_device_train_batch_size: 2, max_length: 48, learning_rate: 1e-5 },
    ...{ logging_steps: 1, save_steps: 100, save_total_limit: 2 },
  },
});

interface Memory {
  readonly host: number;
  readonly heap: number;
  readonly device: number;
}

function memory(): Memory {
  collect();
  const { rss, heapUsed } = process.memoryUsage();
  return { host: rss, heap: heapUsed, device: device.totalBytes };
}

/** Single readings of the host's memory differ by a tenth from update to update: medians of so many are compared. */
const READINGS = 50;
const median = (values: readonly number[]) => [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
const megabytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
let early: Memory | undefined;
let last: Memory = memory();
let readings: Memory[] = [];
console.log(`adapter: ${device.description}; medians of ${READINGS} readings, one after each update`);
for await (const { step } of trainer) {
  if (step % 100 > 100 - READINGS || step % 100 === 0) readings.push(memory());
  if (step % 100 !== 0) continue;
  const middle = (key: keyof Memory) => median(readings.map((reading) => reading[key]));
  last = { host: middle("host"), heap: middle("heap"), device: middle("device") };
  readings = [];
  early ??= last;
  console.log(
    `step ${step}: host ${megabytes(last.host)}, heap ${megabytes(last.heap)}, device ${megabytes(last.device)}`,
  );
}
trainer.free();
device.close();
rmSync(folder, { recursive: true, force: true });
if (early === undefined) throw new Error("the run was too short to compare");
for (const key of ["host", "device"] as const) {
  const change = last[key] / early[key] - 1;
  console.log(`${key}: ${(100 * change).toFixed(2)}% more at the end than at step 100`);
  if (change > 0.05) process.exitCode = 1;
}
