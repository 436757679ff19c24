/**
 * The reference's log-probabilities of a whole run and of its evaluations, computed before it (TRL: precompute_ref_log_probs), so that no
 * reference model is resident while training. They belong to a schedule: log pi_ref(y_j|x_i) depends on the pair, and
 * pairs are drawn anew each epoch, so every microbatch has its own numbers, by the very pass that a live
 * reference would make. Kept on disk under a hash of all that they follow from: the reference's weights as they lie on the
 * device, the token ids, the rows of each microbatch (which seed, order and batch settings make), the cut, the adapter and
 * the format of activations.
 * Whoever changes none of these finds them again; learning rate, beta or weights do not count.
 */
import type { Arena } from "../engine/arena.ts";
import { PassMemory, recordLogProbs } from "../engine/model/decoder.ts";
import type { Model } from "../engine/model/load.ts";
import type { RowShape } from "../engine/model/rows.ts";
import { platform } from "../engine/platform/index.ts";
import type { Sha256 } from "../engine/platform/platform.ts";
import { Program } from "../engine/program.ts";
import { elementBytes, type Tensor } from "../engine/tensor.ts";
import { errorMessage, NumericError } from "../errors.ts";
import type { BatchExample, BatchOptions, KtoBatch } from "./batch.ts";
import { EntryCache, unlessFileError } from "./entry-cache.ts";

/** Raised when the same inputs would give other numbers or another layout. */
const FORMAT = 1;
const cache = new EntryCache("reference", ".logps");
/** Words of weights that are on the host at once while they are hashed. */
const PIECE_WORDS = 2 ** 22;

/** The microbatches of a run's updates (`RunPlan`), or of an evaluation (`EvaluationPlan`), each of which is a step. */
export interface Microbatches {
  readonly examples: readonly BatchExample[];
  readonly batchOptions: BatchOptions;
  readonly totalSteps: number;
  /** Indices into `examples`. */
  rows(step: number): readonly (readonly number[])[];
  batches(step: number): KtoBatch[];
  shapes(): RowShape[];
}

export interface ReferenceLogProbsOptions {
  /** Compute anew what the cache holds; default false. */
  readonly anew?: boolean;
  /** As in `StepOptions`: like the training that they are for. Default false. */
  readonly fp16?: boolean;
  /** false for zeros in their place, where only time or memory is asked about; default true. */
  readonly compute?: boolean;
  /** What a step is called, one and several. */
  readonly stepNames: readonly [string, string];
}

/** f32 numbers of every microbatch of a run or of an evaluation, in its order. */
export class ReferenceLogProbs {
  /** Where they come from, for people. */
  readonly note: string;
  readonly #values: Float32Array<ArrayBuffer>;
  /** Of each step's microbatches. */
  readonly #starts: readonly (readonly number[])[];

  private constructor(values: Float32Array<ArrayBuffer>, starts: readonly (readonly number[])[], note: string) {
    this.#values = values;
    this.#starts = starts;
    this.note = note;
  }

  /**
   * From the cache, or by a pass of the reference over every microbatch of the plan.
   *
   * @throws NumericError where the reference gives numbers that are not finite
   */
  static async of(
    reference: Model,
    plan: Microbatches,
    { anew = false, fp16 = false, compute: wanted = true, stepNames }: ReferenceLogProbsOptions,
  ): Promise<ReferenceLogProbs> {
    const { starts, size } = places(plan);
    if (reference.device.counts || !wanted)
      return new ReferenceLogProbs(new Float32Array(size), starts, "not computed");
    const key = await cacheKey(reference, plan, fp16);
    const found = anew ? undefined : await cache.read(key);
    if (found?.body.length === 4 * size) {
      const note = `log-probabilities of the reference read from ${found.path}`;
      return new ReferenceLogProbs(new Float32Array(found.body.buffer), starts, note);
    }
    const values = await compute(reference, plan, { starts, size, stepName: stepNames[0], fp16 });
    const done = `log-probabilities of the reference computed for ${plan.totalSteps} ${stepNames[plan.totalSteps === 1 ? 0 : 1]}`;
    try {
      const path = await cache.write(key, new Uint8Array(values.buffer));
      return new ReferenceLogProbs(values, starts, `${done}; they are kept in ${path}`);
    } catch (error) {
      unlessFileError(error);
      return new ReferenceLogProbs(values, starts, `${done}; they are not kept: ${errorMessage(error)}`);
    }
  }

  /** The microbatches of step `step`, counted from 0, with their numbers. */
  attach(step: number, batches: readonly KtoBatch[]): KtoBatch[] {
    return batches.map((batch, index) => {
      const start = this.#starts[step]?.[index] ?? 0;
      const referenceLogProbs = this.#values.slice(start, start + batch.packed.shape.sequences);
      return { ...batch, referenceLogProbs };
    });
  }
}

/** Where the numbers of each microbatch start, and how many there are in all. */
function places(plan: Microbatches): { starts: number[][]; size: number } {
  const perRow = plan.batchOptions.mismatched ? 2 : 1;
  let size = 0;
  const starts = Array.from({ length: plan.totalSteps }, (_, step) =>
    plan.rows(step).map((rows) => {
      const start = size;
      size += perRow * rows.length;
      return start;
    }),
  );
  return { starts, size };
}

async function compute(
  reference: Model,
  plan: Microbatches,
  {
    starts,
    size,
    stepName,
    fp16,
  }: { starts: readonly (readonly number[])[]; size: number; stepName: string; fp16: boolean },
): Promise<Float32Array<ArrayBuffer>> {
  const { device } = reference;
  const shapes = plan.shapes();
  const largest = Math.max(...shapes.map(({ sequences }) => sequences));
  const { memory, sums } = device.allocating(() => ({
    memory: new PassMemory(device, reference.config, shapes, {
      gradients: false,
      format: fp16 ? "f16" : "f32",
      adapter: reference.adapter,
    }),
    sums: device.allocate("scratch", "reference log-probs", [largest]),
  }));
  const programs = new Map<string, Program>();
  const values = new Float32Array(size);
  try {
    for (let step = 0; step < plan.totalSteps; step++) {
      for (const [index, { packed }] of plan.batches(step).entries()) {
        const { shape } = packed;
        const target: Tensor = { ...sums, shape: [shape.sequences] };
        const key = JSON.stringify(shape);
        let program = programs.get(key);
        if (program === undefined) {
          program = new Program(device, "reference log-probs");
          recordLogProbs(program, reference, memory, shape, target);
          programs.set(key, program);
        }
        await program.prepare();
        memory.upload(packed);
        program.run();
        const found = await device.download(target);
        const broken = found.findIndex((value) => !Number.isFinite(value));
        if (broken >= 0) {
          throw new NumericError(
            `The reference model ${reference.folder} gives a log-probability of ${found[broken]} in ${stepName} ${step + 1}; look for damaged weights${fp16 ? ", or leave fp16 out (an activation may be beyond 65504)" : ""}.`,
          );
        }
        values.set(found, starts[step]?.[index] ?? 0);
      }
    }
  } finally {
    for (const program of programs.values()) program.dispose();
    memory.free();
    device.free(sums);
  }
  return values;
}

async function cacheKey(reference: Model, plan: Microbatches, fp16: boolean): Promise<string> {
  const { device, config, adapter } = reference;
  const hash = platform.sha256();
  const encoder = new TextEncoder();
  const add = (part: unknown) => hash.update(encoder.encode(`${JSON.stringify(part)}\n`));
  add(["format", FORMAT, device.description, device.facts]);
  add([config, adapter?.options ?? null, ...(fp16 ? ["fp16"] : [])]);
  await addWeights(hash, reference.weights);
  if (adapter) await addWeights(hash, adapter.weights);
  const { mismatched, maxLength } = plan.batchOptions;
  // Without pairs nothing is cut here: the rows are what they are.
  add([mismatched, mismatched ? maxLength : null, plan.examples.length]);
  for (const { promptIds, completionIds } of plan.examples) {
    hash.update(bytesOf(Uint32Array.of(promptIds.length, completionIds.length)));
    hash.update(bytesOf(Uint32Array.from(promptIds)));
    hash.update(bytesOf(Uint32Array.from(completionIds)));
  }
  for (let step = 0; step < plan.totalSteps; step++) {
    for (const rows of plan.rows(step)) hash.update(bytesOf(Uint32Array.of(step, rows.length, ...rows)));
  }
  return hash.digest();
}

function bytesOf(words: Uint32Array): Uint8Array {
  return new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
}

/** The weights' own bytes, read back by pieces: also what was changed after loading counts. */
async function addWeights(hash: Sha256, arena: Arena): Promise<void> {
  for (const segment of arena.segments) {
    const words = ((segment.shape[0] ?? 0) * elementBytes(segment.dtype)) / 4;
    for (let at = 0; at < words; at += PIECE_WORDS) {
      const piece: Tensor = {
        ...segment,
        dtype: "u32",
        offset: segment.offset + 4 * at,
        shape: [Math.min(PIECE_WORDS, words - at)],
      };
      hash.update(new Uint8Array(await arena.device.downloadBytes(piece)));
    }
  }
}
