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
  /** Bytes that the process gives back when the run is freed: mapped for it, and of these in memory (resident). */
  readonly mapped: number;
  readonly resident: number;
  readonly seconds: number;
}

/**
 * Runs one update of a random model of this shape, frees it, and compares what the kernel says of the process before and
 * after that: what kernels take as code and JavaScript as heap stays, and buffers go.
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
    await writeLargeRandomModel(folder, shape, 2);
    const counting = planningDevice(device);
    await qloraRun(counting, folder, quantization, rows);
    const { trainer, free } = await qloraRun(device, folder, quantization, rows);
    const start = performance.now();
    for await (const { metrics } of trainer) {
      if (!Number.isFinite(metrics?.loss)) throw new Error(`the loss of ${folder} is ${metrics?.loss}`);
    }
    await device.idle();
    const seconds = (performance.now() - start) / 1000;
    const held = processMemory();
    free();
    await device.idle(); // buffers are given back when nothing uses them any more
    const left = processMemory();
    const of = (name: string) => (held.get(name) ?? Number.NaN) - (left.get(name) ?? Number.NaN);
    return {
      ...{ planned: counting.totalBytes, allocated: device.peakBytes },
      ...{ mapped: of("VmData"), resident: of("VmRSS"), seconds },
    };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Bytes of the kinds of memory of this process, by the kernel's names. */
function processMemory(): Map<string, number> {
  const lines = readFileSync("/proc/self/status", "utf8").matchAll(/^(\w+):\s+(\d+) kB/gm);
  return new Map([...lines].map(([, name = "", kibibytes]) => [name, 1024 * Number(kibibytes)]));
}
