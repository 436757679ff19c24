/**
 * Whole KTO updates on random models: policy, live reference, mismatched pairs, AdamW; rows of 64 + 64 tokens. What an
 * update costs and where its time goes.
 */
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Device } from "../src/engine/device.ts";
import { Model } from "../src/engine/model/load.ts";
import type { KernelTime } from "../src/engine/program.ts";
import { Random } from "../src/engine/random.ts";
import type { TrainerOptions } from "../src/kto/config.ts";
import { KtoTrainer } from "../src/kto/trainer.ts";
import { llamaConfig, randomModel } from "../test/helpers/models.ts";
import { summary } from "./measure.ts";

export interface StepCase {
  readonly name: string;
  readonly quick: boolean;
  readonly config: Readonly<Record<string, unknown>>;
  readonly options?: Partial<TrainerOptions>;
}

const ROWS = 8;
const PROMPT = 64;
const COMPLETION = 64;

const stories260K = {
  vocab_size: 512,
  hidden_size: 64,
  num_hidden_layers: 5,
  num_attention_heads: 8,
  num_key_value_heads: 4,
  intermediate_size: 172,
  max_position_embeddings: 512,
};

const hidden256 = {
  vocab_size: 8192,
  hidden_size: 256,
  num_hidden_layers: 6,
  num_attention_heads: 8,
  num_key_value_heads: 4,
  intermediate_size: 704,
  max_position_embeddings: 512,
};

export const stepCases: readonly StepCase[] = [
  { name: "KTO step (a): stories260K's shape", quick: true, config: stories260K },
  { name: "KTO step (b): hidden 256, 6 layers, vocabulary 8192", quick: false, config: hidden256 },
  {
    name: "KTO step (c): as (b), gradient_checkpointing",
    quick: false,
    config: hidden256,
    options: { gradient_checkpointing: true },
  },
];

export interface StepResult {
  readonly shape: string;
  /** From loading the trainer to the end of the first update, kernels compiled within. */
  readonly firstMs: number;
  readonly medianMs: number;
  readonly spread: number;
  readonly tokensPerSecond: number;
  /** Device memory of the run: both models, gradients, moments, activations, scratch. */
  readonly deviceBytes: number;
  /** Device time by kernel, largest first; empty where the adapter cannot time kernels. */
  readonly kernels: readonly KernelTime[];
}

/** Times `steps` updates after two that warm up. */
export async function timeStep(device: Device, { config, options }: StepCase, steps: number): Promise<StepResult> {
  const scratch = join(import.meta.dirname, "..", ".cache", "bench");
  mkdirSync(scratch, { recursive: true });
  const folder = await randomModel(scratch, llamaConfig(config), 1);
  const policy = await Model.load(device, folder);
  rmSync(folder, { recursive: true });
  const random = new Random(2);
  const ids = (count: number) =>
    Uint32Array.from({ length: count }, () => 3 + random.below(policy.config.vocabSize - 3));
  const examples = Array.from({ length: ROWS }, (_, row) => ({
    promptIds: ids(PROMPT),
    completionIds: ids(COMPLETION),
    label: row % 2 === 0,
  }));
  const start = performance.now();
  const trainer = await KtoTrainer.create({
    policy,
    examples,
    options: {
      per_device_train_batch_size: ROWS,
      max_steps: steps + 2,
      learning_rate: 1e-4,
      logging_steps: 1000,
      ...options,
    },
  });
  const times: number[] = [];
  let last = start;
  for await (const _ of trainer) {
    await device.idle();
    const now = performance.now();
    times.push(now - last);
    last = now;
  }
  const kernels = new Map<string, KernelTime>();
  if (device.gpu.features.has("timestamp-query")) {
    for (const program of trainer.step.programs) {
      for (const entry of await program.profile()) {
        const sum = kernels.get(entry.name) ?? { name: entry.name, dispatches: 0, ms: 0, flops: 0, bytes: 0 };
        kernels.set(entry.name, {
          name: entry.name,
          dispatches: sum.dispatches + entry.dispatches,
          ms: sum.ms + entry.ms,
          flops: sum.flops + entry.flops,
          bytes: sum.bytes + entry.bytes,
        });
      }
    }
  }
  const deviceBytes = device.totalBytes;
  trainer.free();
  policy.free();
  const timing = summary(times.slice(2));
  return {
    shape: `${ROWS} rows of ${PROMPT} + ${COMPLETION} tokens`,
    firstMs: times[0] ?? Number.NaN,
    ...timing,
    tokensPerSecond: (1000 * ROWS * (PROMPT + COMPLETION)) / timing.medianMs,
    deviceBytes,
    kernels: [...kernels.values()].sort((a, b) => b.ms - a.ms),
  };
}
