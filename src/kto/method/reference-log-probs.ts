/**
 * The reference's log-probs of a whole run and of its evaluations, computed before it (TRL: precompute_ref_log_probs),
 * so that no reference model is resident while training. log pi_ref(y_j|x_i) depends on the pair, and each epoch draws
 * other pairs, so every microbatch of the schedule has numbers of its own, from the pass that a live reference would
 * make. They are kept on disk under a hash of everything that changes them, see `cacheKey`.
 */
import { EntryCache, unlessFileError } from "../../engine/files/entry-cache.ts";
import type { Arena } from "../../engine/gpu/arena.ts";
import { elementBytes, type Tensor } from "../../engine/gpu/tensor.ts";
import type { Model } from "../../engine/model/model.ts";
import type { Precision } from "../../engine/model/precision.ts";
import { platform } from "../../engine/platform/index.ts";
import type { Sha256 } from "../../engine/platform/platform.ts";
import { ALONE, type Communicator } from "../../engine/ranks/communicator.ts";
import { byFirst, bytesFromFirst, sumInPlace } from "../../engine/ranks/sums.ts";
import { counted, errorMessage, NumericError } from "../../errors.ts";
import type { Batch } from "./batch.ts";
import { LogProbPass } from "./log-probs.ts";
import type { Microbatches } from "./microbatches.ts";

/** Raised when the same inputs would give other numbers or another layout. */
const FORMAT = 3;
const cache = new EntryCache("reference", ".logps");
/** Words of weights that are on the host at once while they are hashed. */
const PIECE_WORDS = 2 ** 22;

export interface ReferenceLogProbsOptions {
  /** Compute also what the cache holds; default false. */
  readonly recompute?: boolean;
  /** Precision of the reference's pass: that of the training that the log-probs are for. Default f32. */
  readonly precision?: Precision;
  /**
   * false for zeros in place of what the cache does not hold, where only time or memory is asked about; default true.
   */
  readonly compute?: boolean;
  /** What a step is called, one and several. */
  readonly stepNames: readonly [string, string];
  /** Told after each step that was computed, of how many. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
  /**
   * The ranks that compute the plan together, each the parts or the steps that are its own; rank 0 has the cache.
   * Default: this process computes it alone.
   */
  readonly ranks?: Communicator | undefined;
}

/** f32 numbers of every microbatch of a run or of an evaluation, in its order. */
export class ReferenceLogProbs {
  /** Where they come from, for people. */
  readonly note: string;
  /** They were found and not computed. */
  readonly found: boolean;
  /** False where they could not be written, so that the next run computes them again. */
  readonly isKept: boolean;
  readonly #values: Float32Array<ArrayBuffer>;
  /** Where the numbers of each step's microbatches begin. */
  readonly #starts: readonly (readonly number[])[];

  private constructor(
    values: Float32Array<ArrayBuffer>,
    starts: readonly (readonly number[])[],
    note: string,
    { found = false, isKept = true }: { readonly found?: boolean; readonly isKept?: boolean } = {},
  ) {
    this.#values = values;
    this.#starts = starts;
    this.note = note;
    this.found = found;
    this.isKept = isKept;
  }

  /**
   * From the cache, or by a pass of the reference over every microbatch of the plan.
   *
   * @throws NumericError where the reference gives numbers that are not finite
   */
  static async of(
    reference: Model,
    plan: Microbatches,
    {
      recompute = false,
      precision = "f32",
      compute: wanted = true,
      stepNames,
      onProgress,
      ranks = ALONE,
    }: ReferenceLogProbsOptions,
  ): Promise<ReferenceLogProbs> {
    const { starts, size } = places(plan);
    const none = () => new ReferenceLogProbs(new Float32Array(size), starts, "not computed");
    if (reference.device.counts) return none();
    const pass = new LogProbPass(reference, plan.shapes(), "reference log-probs", precision);
    try {
      const key = ranks.rank === 0 ? await cacheKey(pass, plan, ranks.size) : "";
      const cached = recompute || ranks.rank > 0 ? undefined : await cache.read(key);
      const found = cached?.body.length === 4 * size ? cached : undefined;
      const path = await byFirst(ranks, async () => found?.path ?? null);
      if (path !== null) {
        const { buffer } = ranks.size === 1 && found ? found.body : await bytesFromFirst(ranks, found?.body);
        const note = `log-probabilities of the reference read from ${path}`;
        return new ReferenceLogProbs(new Float32Array(buffer as ArrayBuffer), starts, note, { found: true });
      }
      if (!wanted) return none();
      const values = await compute(pass, plan, starts, size, { stepName: stepNames[0], onProgress, ranks });
      const done = `log-probabilities of the reference computed for ${counted(plan.totalSteps, ...stepNames)}`;
      const { kept, isKept } = await byFirst(ranks, async () => {
        try {
          return { kept: `kept in ${await cache.write(key, new Uint8Array(values.buffer))}`, isKept: true };
        } catch (error) {
          unlessFileError(error);
          return { kept: `not kept: ${errorMessage(error)}`, isKept: false };
        }
      });
      return new ReferenceLogProbs(values, starts, `${done}; they are ${kept}`, { isKept });
    } finally {
      pass.free();
    }
  }

  /** The microbatches of step `step`, counted from 0, with their numbers. */
  attach(step: number, batches: readonly Batch[]): Batch[] {
    return batches.map((batch, index) => {
      const referenceLogProbs = new Float32Array(batch.packed.shape.sequences);
      for (const { first, from } of runsOf(batch, this.#starts[step]?.[index] ?? 0)) {
        referenceLogProbs.set(this.#values.subarray(from, from + batch.size), first);
      }
      return { ...batch, referenceLogProbs };
    });
  }
}

/**
 * Where the numbers of a batch lie among all, whose microbatches have those of their examples and then those of their
 * pairs: those of its own sequences from `first` on, as many as it has rows, from `from` on.
 */
function runsOf({ size, whole, packed }: Batch, start: number): { readonly first: number; readonly from: number }[] {
  const examples = { first: 0, from: start + whole.first };
  const pairs = { first: size, from: start + whole.size + whole.first };
  return packed.shape.sequences > size ? [examples, pairs] : [examples];
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
  pass: LogProbPass,
  plan: Microbatches,
  starts: readonly (readonly number[])[],
  size: number,
  {
    stepName,
    onProgress,
    ranks,
  }: Pick<ReferenceLogProbsOptions, "onProgress"> & { readonly stepName: string; readonly ranks: Communicator },
): Promise<Float32Array<ArrayBuffer>> {
  const values = new Float32Array(size);
  // Where microbatches are not dealt, whole steps are.
  const dealtSteps = plan.rank.size === 1;
  for (let step = 0; step < plan.totalSteps; step++) {
    if (dealtSteps && step % ranks.size !== ranks.rank) continue;
    for (const [index, batch] of plan.batches(step).entries()) {
      if (batch.size === 0) continue;
      const found = await pass.logProbs(batch.packed);
      const broken = found.findIndex((value) => !Number.isFinite(value));
      if (broken >= 0) {
        throw new NumericError(
          `The reference model ${pass.model.folder} gives a log-probability of ${found[broken]} in ${stepName} ${step + 1}; look for damaged weights${pass.precision === "fp16" ? ", or leave fp16 out (an activation may be beyond 65504)" : ""}.`,
        );
      }
      for (const { first, from } of runsOf(batch, starts[step]?.[index] ?? 0)) {
        values.set(found.subarray(first, first + batch.size), from);
      }
    }
    onProgress?.(step + 1, plan.totalSteps);
  }
  await sumInPlace(ranks, values); // every number is one rank's; the others have 0
  return values;
}

/**
 * A hash of the reference's weights as they lie on the device, its adapter, the token ids, the rows of each microbatch
 * (which seed, order and batch settings make), the cut, the precision, the number of ranks and the kernels, since others
 * may round otherwise. Learning rate, beta and weights do not count.
 */
async function cacheKey(pass: LogProbPass, plan: Microbatches, ranks: number): Promise<string> {
  const { model: reference, precision } = pass;
  const { device, config, adapter } = reference;
  const hash = platform.sha256();
  const encoder = new TextEncoder();
  const add = (part: unknown) => hash.update(encoder.encode(`${JSON.stringify(part)}\n`));
  add(["format", FORMAT, device.description, device.facts]);
  add([await pass.kernels(), precision]);
  add([config, adapter?.options ?? null]);
  await addWeights(hash, reference.weights);
  if (adapter) await addWeights(hash, adapter.weights);
  const { mismatched, maxLength } = plan.batchOptions;
  // Without pairs nothing is cut here: the rows are what they are.
  add([mismatched, mismatched ? maxLength : null, plan.examples.length]);
  if (plan.scope === "step") add(["pairs of", plan.scope]);
  if (ranks > 1) add(["ranks", ranks]);
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

/** SHA-256 of weights as they lie on the device. */
export async function arenaDigest(arena: Arena): Promise<string> {
  const hash = platform.sha256();
  await addWeights(hash, arena);
  return hash.digest();
}

/** Adds the bytes of weights on the device, read back by pieces, so that changes after loading count. */
async function addWeights(hash: Sha256, arena: Arena): Promise<void> {
  for (const segment of arena.segments.flatMap((codes) => (codes.scales ? [codes, codes.scales] : [codes]))) {
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
