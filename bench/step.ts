/**
 * Times whole KTO updates on random models, with a live reference, mismatched pairs, clipping and AdamW: the time and
 * memory of an update, the time of each kernel, and the host's share.
 */
import type { Device } from "../src/engine/gpu/device.ts";
import type { KernelTime } from "../src/engine/gpu/program.ts";
import { LoraAdapter } from "../src/engine/model/lora.ts";
import { Model } from "../src/engine/model/model.ts";
import { Random } from "../src/engine/random.ts";
import { METRIC_SUMS } from "../src/kernels/kto-objective.ts";
import { type Batch, type BatchExample, packBatch } from "../src/kto/method/batch.ts";
import { Update } from "../src/kto/method/update.ts";
import type { TrainerOptions } from "../src/kto/options/kto.ts";
import { KtoTrainer } from "../src/kto/trainer.ts";
import { summary } from "./measure/measure.ts";
import type { StepRows } from "./measure/peer-work.ts";

export interface StepCase {
  readonly name: string;
  readonly quick: boolean;
  /** A config.json. */
  readonly config: Readonly<Record<string, unknown>>;
  readonly batch: StepRows;
  readonly options?: Partial<TrainerOptions>;
  /**
   * Trains a LoRA adapter of this rank on all linear layers, over a base as its files store it; default: the whole
   * model.
   */
  readonly loraRank?: number;
  /** Whether other engines do the same update. */
  readonly peers: boolean;
}

/** A Llama of these sizes, as config.json has it. */
function llama(sizes: Readonly<Record<string, number>>): Record<string, unknown> {
  return {
    model_type: "llama",
    architectures: ["LlamaForCausalLM"],
    hidden_act: "silu",
    num_attention_heads: 8,
    num_key_value_heads: 4,
    max_position_embeddings: 512,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    tie_word_embeddings: true,
    bos_token_id: 1,
    eos_token_id: 2,
    ...sizes,
  };
}

/** (a): the shape of stories260K. */
export const stories260K = llama({ vocab_size: 512, hidden_size: 64, num_hidden_layers: 5, intermediate_size: 172 });
/** (b) */
export const hidden256 = llama({ vocab_size: 8192, hidden_size: 256, num_hidden_layers: 6, intermediate_size: 704 });

const batch: StepRows = { rows: 8, prompt: 64, completion: 64 };
const larger = { quick: false, config: hidden256, batch, peers: false };

export const stepCases: readonly StepCase[] = [
  { name: "KTO step (a): stories260K's shape", quick: true, config: stories260K, batch, peers: true },
  { name: "KTO step (b): hidden 256, 6 layers, vocabulary 8192", ...larger, peers: true },
  { name: "KTO step (c): as (b), gradient_checkpointing", ...larger, options: { gradient_checkpointing: true } },
  { name: "KTO step (d): as (b), fp16", ...larger, options: { fp16: true } },
];

/** Seeded rows, every second one desirable. */
export function stepExamples({ rows, prompt, completion }: StepRows, vocabSize: number): BatchExample[] {
  const random = new Random(2);
  const ids = (count: number) => Uint32Array.from({ length: count }, () => 3 + random.below(vocabSize - 3));
  return Array.from({ length: rows }, (_, row) => ({
    promptIds: ids(prompt),
    completionIds: ids(completion),
    label: row % 2 === 0,
  }));
}

/** Settings of the update that every engine runs. */
export const STEP_SETTINGS = {
  beta: 0.1,
  learningRate: 1e-4,
  beta1: 0.9,
  beta2: 0.999,
  epsilon: 1e-8,
  maxNorm: 1,
} as const;

/** The trainer's options for this many updates of a batch, with those settings. */
export function stepOptions(batch: StepRows, updates: number) {
  return {
    ...{ per_device_train_batch_size: batch.rows, max_length: batch.prompt + batch.completion },
    ...{ learning_rate: STEP_SETTINGS.learningRate, beta: STEP_SETTINGS.beta },
    ...{ max_steps: updates, logging_steps: updates },
  };
}

/** Times `steps` updates of the model in `folder` after two that warm up. */
export async function timeStep(
  device: Device,
  folder: string,
  { batch, options, loraRank }: Pick<StepCase, "batch" | "options" | "loraRank">,
  steps: number,
) {
  const { policy, reference, free } = await loadForTraining(device, folder, loraRank);
  const examples = stepExamples(batch, policy.config.vocabSize);
  const start = performance.now();
  const trainer = await KtoTrainer.create({
    policy,
    ...(reference ? { reference } : {}),
    examples,
    options: { ...stepOptions(batch, steps + 2), ...options },
  });
  try {
    const times: number[] = [];
    let last = start;
    for await (const _ of trainer) {
      await device.idle();
      const now = performance.now();
      times.push(now - last);
      last = now;
    }
    const host = await timeHost(device, trainer.update, examples, batch, Math.min(steps, 8));
    const timing = summary(times.slice(2));
    const kernels = await profile(device, trainer.update);
    return {
      /** From creating the trainer to the end of the first update, compiling kernels included. */
      firstMs: times[0] ?? Number.NaN,
      ...timing,
      ...costOf(trainer.update),
      tokensPerSecond: (1000 * batch.rows * (batch.prompt + batch.completion)) / timing.medianMs,
      /** Device bytes of the run: both models, gradients, moments, activations and scratch. */
      deviceBytes: device.totalBytes,
      host,
      kernels,
    };
  } finally {
    trainer.free();
    free();
  }
}

/**
 * The model in `folder` as `kto train` loads it: whole in f32, with a reference as the files store it where that is
 * less, or frozen as the files store it with a new adapter.
 */
async function loadForTraining(
  device: Device,
  folder: string,
  loraRank: number | undefined,
): Promise<{ policy: Model; reference: Model | undefined; free: () => void }> {
  if (loraRank === undefined) {
    const policy = await Model.load(device, folder, { storage: "f32" });
    const reference =
      policy.numbers === "f32" ? undefined : await Model.load(device, folder, { category: "reference weights" });
    const free = () => {
      reference?.free();
      policy.free();
    };
    return { policy, reference, free };
  }
  const base = await Model.load(device, folder);
  const adapter = LoraAdapter.create(device, base.config, {
    ...{ rank: loraRank, alpha: 2 * loraRank, dropout: 0, rslora: false },
    targetModules: "all-linear",
  });
  adapter.initialize(1);
  const free = () => {
    adapter.free();
    base.free();
  };
  return { policy: base.withAdapter(adapter), reference: undefined, free };
}

/**
 * Operations and bytes of one update. Each program counts once: those that clear, run the microbatch and run the
 * optimizer are replayed once an update.
 */
function costOf(step: Update): { flops: number; bytes: number } {
  const costs = step.programs.map(({ cost }) => cost);
  return {
    flops: costs.reduce((sum, { flops }) => sum + flops, 0),
    bytes: costs.reduce((sum, { bytes }) => sum + bytes, 0),
  };
}

/**
 * Median milliseconds of an update in which JavaScript packs the batch, and uploads, encodes and submits; the device is
 * idle before each.
 */
async function timeHost(
  device: Device,
  step: Update,
  examples: readonly BatchExample[],
  { prompt, completion }: StepRows,
  updates: number,
): Promise<{ packMs: number; submitMs: number }> {
  const packing: number[] = [];
  const submitting: number[] = [];
  for (let update = 0; update < updates; update++) {
    const start = performance.now();
    const packed = packBatch(examples, { mismatched: true, maxLength: prompt + completion });
    const ready = performance.now();
    await step.run([packed], STEP_SETTINGS.learningRate, update);
    submitting.push(performance.now() - ready);
    packing.push(ready - start);
    await device.idle();
  }
  return { packMs: summary(packing).medianMs, submitMs: summary(submitting).medianMs };
}

/** Device time by kernel, largest first; empty where the adapter cannot time kernels. */
export async function profile(device: Device, step: Update): Promise<KernelTime[]> {
  if (!device.gpu.features.has("timestamp-query")) return [];
  const kernels = new Map<string, KernelTime>();
  for (const program of step.programs) {
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
  return [...kernels.values()].sort((a, b) => b.ms - a.ms);
}

/** The objective and the optimizer of STEP_SETTINGS. */
export const stepMethod = {
  objective: { beta: STEP_SETTINGS.beta, desirableWeight: 1, undesirableWeight: 1, lossType: "kto" },
  optimizer: {
    ...{ beta1: STEP_SETTINGS.beta1, beta2: STEP_SETTINGS.beta2, epsilon: STEP_SETTINGS.epsilon },
    ...{ weightDecay: 0, maxGradientNorm: STEP_SETTINGS.maxNorm },
  },
} as const;

/** The update that every engine runs, for microbatches like this one. */
export function stepUpdate(policy: Model, reference: Model | "cached", { packed, size }: Batch): Update {
  const shapes = [packed.shape];
  return new Update({ policy, reference, shapes, maxSize: size, ...stepMethod, referencePointScope: "microbatch" });
}

/** Throws unless every gradient is within `bound` of the wanted one, relative in norm. */
export function expectGradients(
  found: ReadonlyMap<string, ArrayLike<number>>,
  wanted: readonly { readonly name: string; readonly data: ArrayLike<number> }[],
  bound: number,
): void {
  for (const { name, data } of wanted) {
    const own = found.get(name);
    let [difference, size] = [0, 0];
    for (let i = 0; i < data.length; i++) {
      const value = data[i] ?? Number.NaN;
      difference += (value - (own?.[i] ?? Number.NaN)) ** 2;
      size += value ** 2;
    }
    const error = Math.sqrt(difference / size);
    if (!(error <= bound)) throw new Error(`the gradient of ${name} is ${error.toExponential(1)} off what is wanted`);
  }
}

/**
 * What another engine must reproduce of our own one's first updates of the model in `folder`, whose copy is the
 * reference: the gradients of the first, before clipping and by Hugging Face name, and the losses of all, which from
 * the second on depend on gradients, clip, AdamW and reference point.
 */
export async function stepTruth(device: Device, folder: string, batch: StepRows, updates = 3) {
  const policy = await Model.load(device, folder);
  const reference = Model.copyOf(policy, "reference weights");
  const examples = stepExamples(batch, policy.config.vocabSize);
  const packed = packBatch(examples, { mismatched: true, maxLength: batch.prompt + batch.completion });
  const step = stepUpdate(policy, reference, packed);
  try {
    await step.gradients([packed]);
    const gradients = await policy.readTensors(step.optimizer.gradients);
    const losses: number[] = [];
    for (let update = 0; update < updates; update++) {
      device.upload(step.objective.metrics, new Float32Array(METRIC_SUMS.size));
      await step.run([packed], STEP_SETTINGS.learningRate, update);
      losses.push((await device.download(step.objective.metrics))[METRIC_SUMS.loss] ?? Number.NaN);
    }
    return { losses, gradients };
  } finally {
    step.free();
    reference.free();
    policy.free();
  }
}
