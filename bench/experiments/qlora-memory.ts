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
  /** Bytes that the driver has mapped as device memory at the end, and what of them is resident: was written to. */
  readonly driver: DriverMemory;
  readonly seconds: number;
}

interface DriverMemory {
  readonly mapped: number;
  readonly resident: number;
}

/**
 * Runs one update of a random model of this shape, as the first run of this process: Dawn keeps memory that buffers had
 * and gives it to the next ones, so what an earlier run has freed would count as this one's.
 *
 * @param device lavapipe, whose memory is this process's
 * @throws Error where the driver's memory cannot be told from the process's other memory, or there was a run before
 */
export async function measuredRun(
  device: Device,
  shape: Readonly<Record<string, unknown>>,
  quantization: Quantization,
  rows: Rows,
): Promise<Measured> {
  if (driverMemory().mapped > 64 * 2 ** 20)
    throw new Error("this process has device memory already: measure one run a process");
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
    const driver = driverMemory();
    if (driver.mapped === 0) throw new Error(`no mapping of this process is named ${DEVICE_MEMORY}: is this lavapipe?`);
    const seconds = (performance.now() - start) / 1000;
    free();
    return { planned: counting.totalBytes, allocated: device.peakBytes, driver, seconds };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** The file in memory of which lavapipe makes each VkDeviceMemory; what it allocates for itself and for code is elsewhere. */
const DEVICE_MEMORY = "/memfd:allocation fd";

/** Device memory of this process's lavapipe, from /proc/self/smaps (kB there). */
function driverMemory(): DriverMemory {
  const sum = { mapped: 0, resident: 0 };
  let counts = false;
  for (const line of readFileSync("/proc/self/smaps", "utf8").split("\n")) {
    if (/^[0-9a-f]+-[0-9a-f]+ /.test(line)) counts = line.includes(DEVICE_MEMORY);
    const [, name, kilobytes] = /^(Size|Rss):\s+(\d+) kB/.exec(line) ?? [];
    if (counts && name !== undefined) sum[name === "Size" ? "mapped" : "resident"] += 1024 * Number(kilobytes);
  }
  return sum;
}
