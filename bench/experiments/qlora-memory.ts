/**
 * A QLoRA run of rows of 1,024 tokens, allocated on a device, or run for one update on a software adapter to see how much
 * memory the process takes for it: what a plan is compared with. `quantised-memory.ts` prints both.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Device } from "../../src/engine/gpu/device.ts";
import { planningDevice } from "../../src/engine/gpu/memory-plan.ts";
import { LoraAdapter } from "../../src/engine/model/lora.ts";
import { Model } from "../../src/engine/model/model.ts";
import type { Quantization } from "../../src/engine/model/weights/quantization.ts";
import { KtoTrainer } from "../../src/kto/trainer.ts";
import { writeLargeRandomModel } from "../random-model.ts";
import { stepExamples } from "../step.ts";

const ROW = { prompt: 512, completion: 512 };
const LORA = { rank: 16, alpha: 32, dropout: 0, rslora: false, targetModules: "all-linear" };

/** Rows of a microbatch and of an update, and whether they have mismatched pairs. */
interface Rows {
  readonly rows: number;
  readonly updateRows: number;
  readonly pairs?: boolean;
}

interface ProcessMemory {
  readonly asked: number;
  readonly resident: number;
}

/** A run with all its memory. */
export async function qloraRun(
  device: Device,
  folder: string,
  quantization: Quantization,
  { rows, updateRows, pairs = true }: Rows,
) {
  const base = await Model.load(device, folder, { quantization });
  const adapter = LoraAdapter.create(device, base.config, LORA);
  if (!device.counts) adapter.initialize(1);
  const trainer = await KtoTrainer.create({
    policy: base.withAdapter(adapter),
    examples: stepExamples({ rows: updateRows, ...ROW }, base.config.vocabSize),
    options: {
      per_device_train_batch_size: rows,
      gradient_accumulation_steps: updateRows / rows,
      max_length: ROW.prompt + ROW.completion,
      gradient_checkpointing: true,
      // As a microbatch of one row needs it.
      ...(pairs ? { reference_point_scope: "step" } : { loss_type: "apo_zero_unpaired" }),
      max_steps: 1,
      logging_steps: 1,
    },
  });
  const free = () => {
    trainer.free();
    adapter.free();
    base.free();
  };
  return { trainer, free };
}

export interface Measured {
  /** Bytes that a device counts that runs nothing. */
  readonly planned: number;
  /** The most bytes of buffers that the device has had at once. */
  readonly allocated: number;
  /**
   * Bytes by which the memory that the process has asked for has grown, and what of it is resident: the system gives
   * pages when they are first written to. Both less what JavaScript's heap and array buffers have.
   */
  readonly grown: ProcessMemory;
  readonly seconds: number;
}

/**
 * Runs one update of a random model of this shape. What kernels take as code is there before: a model of one layer and a
 * small vocabulary runs one first.
 *
 * @param device a software adapter, whose buffers are this process's memory
 */
export async function measuredRun(
  device: Device,
  shape: Readonly<Record<string, unknown>>,
  quantization: Quantization,
  rows: Rows,
): Promise<Measured> {
  const folder = mkdtempSync(join(tmpdir(), "kto-measured-"));
  try {
    const small = { ...shape, num_hidden_layers: 1, vocab_size: 4096, bos_token_id: 1, eos_token_id: 2 };
    await writeLargeRandomModel(join(folder, "small"), small, 1);
    await writeLargeRandomModel(join(folder, "whole"), shape, 2);
    const counting = planningDevice(device);
    await qloraRun(counting, join(folder, "whole"), quantization, rows);
    await update(device, join(folder, "small"), quantization, rows);
    const before = processMemory();
    const { seconds, grown } = await update(device, join(folder, "whole"), quantization, rows, before);
    return { planned: counting.totalBytes, allocated: device.peakBytes, grown, seconds };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function update(
  device: Device,
  folder: string,
  quantization: Quantization,
  rows: Rows,
  before: ProcessMemory = { asked: 0, resident: 0 },
) {
  const { trainer, free } = await qloraRun(device, folder, quantization, rows);
  const start = performance.now();
  try {
    for await (const { metrics } of trainer) {
      if (!Number.isFinite(metrics?.loss)) throw new Error(`the loss of ${folder} is ${metrics?.loss}`);
    }
    await device.idle();
    const now = processMemory();
    const grown = { asked: now.asked - before.asked, resident: now.resident - before.resident };
    return { seconds: (performance.now() - start) / 1000, grown };
  } finally {
    free();
    await device.idle(); // buffers are given back when nothing uses them any more
  }
}

/** Mapped and resident bytes of the process but those of JavaScript's heap and array buffers. */
function processMemory(): ProcessMemory {
  const status = readFileSync("/proc/self/status", "utf8");
  const { heapTotal, external } = process.memoryUsage();
  const of = (name: string) =>
    1024 * Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)?.[1] ?? Number.NaN) - heapTotal - external;
  return { asked: of("VmSize"), resident: of("VmRSS") };
}
