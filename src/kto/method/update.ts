/**
 * One optimiser update on the device: log-probs of a packed batch under the reference and the policy, the objective's
 * coefficients, gradients in closed form, clip, AdamW. A program is recorded once for each shape class and replayed.
 * Which rows come when is not decided here.
 */

import type { ParameterLayout } from "../../engine/gpu/arena.ts";
import type { Device } from "../../engine/gpu/device.ts";
import { AdamW, type AdamWOptions } from "../../engine/gpu/optimizer.ts";
import { PassTimer } from "../../engine/gpu/pass-timer.ts";
import { Program } from "../../engine/gpu/program.ts";
import { sliceRows, type Tensor } from "../../engine/gpu/tensor.ts";
import { longRopeBeyond } from "../../engine/model/config/config.ts";
import {
  type EmbeddingNoise,
  PassMemory,
  positionLimit,
  recordGradients,
  recordLogProbs,
} from "../../engine/model/decoder.ts";
import { recordTargetHits, recordTokenSums } from "../../engine/model/head.ts";
import { Model } from "../../engine/model/model.ts";
import { activationFormat, type Precision, productFormat } from "../../engine/model/precision.ts";
import type { RowShape } from "../../engine/model/rows.ts";
import { ConfigError } from "../../errors.ts";
import type { Batch, ReferencePointScope } from "./batch.ts";
import { KtoOnDevice } from "./kto-on-device.ts";
import type { Labels, Objective, TrainedFor } from "./objective.ts";
import { SftOnDevice } from "./sft-on-device.ts";

/**
 * Where the reference's log-probs come from: the pass of a frozen model with the policy's vocabulary; "cached", numbers
 * computed before, which come with each batch; "uniform", one constant for every completion; "none" for an objective
 * that compares with nothing.
 */
export type UpdateReference = Model | "cached" | "uniform" | "none";

export interface UpdateOptions {
  readonly policy: Model;
  readonly reference: UpdateReference;
  /** Every shape class that will be run, so that memory is allocated once. */
  readonly shapes: readonly RowShape[];
  /** The largest microbatch, in examples. */
  readonly maxSize: number;
  readonly objective: TrainedFor;
  /** undefined for an update that only evaluates: it has no gradients, no moments and no backward scratch. */
  readonly optimizer: AdamWOptions | undefined;
  /** The parameters that are trained; default all of the policy, or its adapter. */
  readonly trained?: ParameterLayout | undefined;
  /**
   * What the reference point is taken over when an update has several microbatches; with "step" all its rows weigh
   * alike.
   */
  readonly referencePointScope: ReferencePointScope;
  /** Rows of an update at most; read with referencePointScope "step". Default `maxSize`. */
  readonly maxUpdateRows?: number;
  /** Default f32; for fp16 the adapter must have the feature shader-f16. */
  readonly precision?: Precision;
  /** Keep the inputs of layers only, and compute the rest again in the backward pass; default false. */
  readonly gradientCheckpointing?: boolean;
  /** Seed of the adapter's dropout; undefined (default) for none whatever the adapter's options say. */
  readonly dropoutSeed?: number | undefined;
  /** NEFTune's noise on the embeddings of the policy's passes of training; default none. */
  readonly noise?: { readonly alpha: number; readonly seed: number } | undefined;
}

/** Recorded programs that are kept; beyond this, the one that was used longest ago goes. */
const MOST_PROGRAMS = 64;

export class Update {
  readonly device: Device;
  readonly policy: Model;
  readonly reference: UpdateReference;
  readonly objective: Objective;
  readonly precision: Precision;
  readonly #optimizer: AdamW | undefined;
  readonly #scope: ReferencePointScope;
  readonly #memory: PassMemory;
  /** The policy's own memory, in turn, unless the reference is of another build. */
  readonly #referenceMemory: PassMemory | undefined;
  readonly #programs = new Map<string, Program>();
  readonly #timer: PassTimer;
  /** Since when an update that is logged runs. */
  #loggedSince: number | undefined;
  /** u32[4]: what dropout's random numbers follow from. */
  readonly #dropout: { readonly seed: number; readonly state: Tensor } | undefined;
  readonly #noise: (EmbeddingNoise & { readonly alpha: number; readonly seed: number }) | undefined;

  constructor(options: UpdateOptions) {
    const { reference, shapes, dropoutSeed } = options;
    this.precision = options.precision ?? "f32";
    const format = activationFormat(this.precision);
    let { policy } = options;
    const referenceModel = reference instanceof Model ? reference : undefined;
    if (referenceModel) checkReference(policy, referenceModel);
    if (policy.adapter && dropoutSeed !== undefined) {
      const state = policy.device.allocate("batch", "dropout state", [4], "u32");
      policy = policy.withAdapter(policy.adapter.training(state));
      this.#dropout = { seed: dropoutSeed, state };
    }
    if (options.noise) {
      const state = policy.device.allocate("batch", "noise state", [4], "u32");
      this.#noise = { ...options.noise, state, amplitude: policy.device.allocate("batch", "noise amplitude", [1]) };
    }
    this.device = policy.device;
    this.#timer = new PassTimer(this.device);
    this.policy = policy;
    this.reference = reference;
    this.#scope = options.referencePointScope;
    this.#memory = new PassMemory(this.device, policy.config, shapes, {
      gradients: options.optimizer !== undefined,
      format,
      checkpointing: options.gradientCheckpointing,
      adapter: policy.adapter,
    });
    this.#referenceMemory =
      referenceModel === undefined || sharesMemory(policy, referenceModel)
        ? referenceModel && this.#memory
        : new PassMemory(this.device, referenceModel.config, shapes, {
            gradients: false,
            format,
            adapter: referenceModel.adapter,
          });
    // Made now, once for the longest rows, so that a plan of the run counts them.
    const positions = Math.max(...shapes.map(positionLimit));
    for (const model of [policy, referenceModel]) model?.makePositionTables(positions);
    this.objective = createObjective(options, this.device);
    this.#optimizer = options.optimizer && new AdamW(policy.trained, options.optimizer, options.trained);
  }

  get optimizer(): AdamW {
    if (this.#optimizer === undefined) throw new Error("an update that only evaluates has no optimizer");
    return this.#optimizer;
  }

  /**
   * Adds the microbatches of one ring to the metric sums: the forward pass of training, without gradients. Several are
   * measured against the reference point of them all.
   */
  async evaluate(batches: readonly Batch[]): Promise<void> {
    const [only, ...others] = batches;
    if (only === undefined) return;
    if (others.length === 0) {
      await this.#runBatch("evaluation", only, 0, 0);
      await this.#addTokenSums(only);
      return;
    }
    const { objective } = this;
    const size = batches.reduce((sum, batch) => sum + batch.size, 0);
    let start = 0;
    for (const batch of batches) {
      await this.#runBatch("log-probs", batch, 0, 0);
      await this.#addTokenSums(batch, batch.packed);
      objective.keepLogProbs(start, batch.size, size);
      start += batch.size;
    }
    objective.restoreLogProbs(size);
    objective.upload(labelsOf(batches));
    const program = await this.#program(`evaluation of a ring of ${size}`, (recording) => {
      objective.recordClearPairs(recording);
      objective.recordPairs(recording, size);
      objective.recordCoefficients(recording, size, undefined);
    });
    this.#submit(program);
  }

  /**
   * Runs microbatches to gradients, coefficients and metric sums, without an update; gradients start from zero.
   *
   * @param update whose dropout is drawn, counted from 0
   * @param tokens whether the metric sums over tokens are wanted as well, which cost one more pass over the vocabulary
   */
  async gradients(batches: readonly Batch[], learningRate = 0, update = 0, tokens = false): Promise<void> {
    const { objective } = this;
    const rows = batches.reduce((sum, { size }) => sum + size, 0);
    this.optimizer.setStep(learningRate, objective.microbatchWeight(batches), rows);
    this.#submit(await this.#program("zero", (program) => this.optimizer.recordZeroGradients(program)));
    const live = this.reference instanceof Model;
    const apart = batches.some((batch) => batch.apart !== undefined);
    if (this.#scope === "step" && objective.usesPairs && batches.length > 1 && !apart) {
      throw new Error("microbatches that share a reference point are packed by packUpdate");
    }
    if (apart) {
      this.#submit(await this.#program("clear pairs", (program) => objective.recordClearPairs(program)));
      let start = 0;
      for (const [index, batch] of batches.entries()) {
        if (this.#referenceMemory) await this.#runReference(batch);
        await this.#runBatch("pairs", batch, update, index);
        if (live) objective.keepReference(start, batch.size);
        start += batch.size;
      }
    }
    let start = 0;
    for (const [index, batch] of batches.entries()) {
      if (apart && live) objective.restoreReference(start, batch.size);
      start += batch.size;
      await this.#runBatch(apart ? "gradients" : "pairs and gradients", batch, update, index);
      if (tokens) await this.#addTokenSums(batch);
    }
  }

  /**
   * Token rows that the models run forward for an update from these microbatches: a prompt shared with a mismatched
   * completion counts once, but once more for the policy where the reference point is taken over several microbatches.
   */
  rowsRun(batches: readonly Batch[]): number {
    const models = this.reference instanceof Model ? 2 : 1;
    return batches.reduce((sum, { rows, apart }) => {
      return sum + (apart ? (models - 1) * rows + apart.pairs.usedRows + apart.examples.usedRows : models * rows);
    }, 0);
  }

  /**
   * One update from these microbatches. Returns as soon as the work is submitted.
   *
   * @param update its number, counted from 0
   * @param logged whether its metrics are wanted: the sums over tokens, as in `gradients`, and `deviceTimeShare`; the
   * update is the same, bit by bit
   */
  async run(batches: readonly Batch[], learningRate: number, update: number, logged = false): Promise<void> {
    this.#loggedSince = logged ? performance.now() : undefined;
    this.#timer.restart();
    await this.gradients(batches, learningRate, update, logged);
    this.#submit(await this.#program("update", (program) => this.optimizer.recordStep(program)));
  }

  /**
   * The share of the time since the last update was begun in which the device computed, once it is done; undefined for
   * an update that was not run to be logged, and for adapters that do not time their work.
   */
  async deviceTimeShare(): Promise<number | undefined> {
    if (this.#loggedSince === undefined) return undefined;
    const seconds = await this.#timer.seconds();
    return seconds ? (1000 * seconds) / (performance.now() - this.#loggedSince) : undefined;
  }

  #submit(program: Program): void {
    program.run(this.#loggedSince === undefined ? undefined : this.#timer);
  }

  /** Log-probabilities of the last microbatch, [m] or [2 m] with the mismatched pairs behind; 0 without a reference. */
  async readLogProbs(size: number): Promise<{ policy: Float32Array; reference: Float32Array }> {
    const policy = await this.device.download(this.objective.policyLogProbs(size));
    const sums = this.objective.referenceLogProbs(size);
    const reference = sums === undefined ? new Float32Array(policy.length) : await this.device.download(sums);
    return { policy, reference };
  }

  /**
   * Log-probabilities of a microbatch's sequences under the policy as it is now, [m] or [2 m]; no gradients, no
   * metrics.
   */
  async policyLogProbs(batch: Batch): Promise<Float32Array> {
    const { shape } = batch.packed;
    const sums = this.objective.policyLogProbs(batch.size);
    const program = await this.#program(`policy ${JSON.stringify(shape)} of ${batch.size}`, (recording) => {
      recordLogProbs(recording, this.policy, this.#memory, shape, sums);
    });
    this.#memory.upload(batch.packed);
    program.run();
    return await this.device.download(sums);
  }

  /** The reference's pass alone, over examples and mismatched pairs. */
  async #runReference({ packed, size }: Batch): Promise<void> {
    const [memory, { shape }] = [this.#referenceMemory, packed];
    const program = await this.#program(`reference ${JSON.stringify(shape)} of ${size}`, (recording) => {
      this.#recordReference(recording, shape, size);
    });
    memory?.upload(packed);
    this.#submit(program);
  }

  #recordReference(recording: Program, shape: RowShape, size: number): void {
    const logProbs = this.objective.referenceLogProbs(size);
    if (this.reference instanceof Model && this.#referenceMemory && logProbs) {
      recordLogProbs(recording, this.reference, this.#referenceMemory, shape, logProbs);
    }
  }

  async #runBatch(
    kind: "pairs" | "gradients" | "pairs and gradients" | "evaluation" | "log-probs",
    batch: Batch,
    update: number,
    microbatch: number,
  ): Promise<void> {
    const { apart } = batch;
    const own = kind === "pairs" ? apart?.pairs : kind === "gradients" ? apart?.examples : undefined;
    const packed = own ?? batch.packed;
    const { shape } = packed;
    if ((this.reference === "cached") !== (batch.referenceLogProbs !== undefined)) {
      throw new Error("reference log-probabilities come with a microbatch where they are cached, and only there");
    }
    const program = await this.#program(`${kind} ${JSON.stringify(shape)} of ${batch.size}`, (recording) => {
      const { objective } = this;
      if (packed === batch.packed) this.#recordReference(recording, shape, batch.size);
      const logProbs = objective.policyLogProbs(batch.size);
      const sums = sliceRows(logProbs, 0, shape.sequences);
      const noise = this.#noise && { state: this.#noise.state, amplitude: this.#noise.amplitude };
      recordLogProbs(recording, this.policy, this.#memory, shape, sums, noise);
      const hits = objective.hitCounts(batch.size);
      if (hits) recordTargetHits(this.#memory.headPass(recording, this.policy, shape), hits);
      if (kind === "log-probs") return;
      if (kind === "pairs and gradients" || kind === "evaluation") objective.recordClearPairs(recording);
      if (kind !== "gradients") objective.recordPairs(recording, batch.size);
      if (kind === "pairs") return;
      objective.recordCoefficients(recording, batch.size, this.#optimizer?.stepNumbers);
      if (kind === "evaluation") return;
      const coefficients = objective.coefficients(batch.size);
      recordGradients(recording, this.policy, this.optimizer.gradients, this.#memory, shape, coefficients);
    });
    this.#memory.upload(packed);
    if (packed === batch.packed && this.#referenceMemory !== this.#memory) this.#referenceMemory?.upload(packed);
    this.objective.upload(batch);
    if (this.#dropout) {
      const { seed, state } = this.#dropout;
      this.device.upload(state, Uint32Array.of(seed, update, microbatch, 0));
    }
    if (this.#noise) {
      const { seed, state, alpha, amplitude } = this.#noise;
      // Rows are packed without padding: transformers' length of a padded batch is that of its longest row.
      const elements = batch.packed.longestTokens * this.policy.config.hiddenSize;
      this.device.upload(state, Uint32Array.of(seed, update, microbatch, 0));
      this.device.upload(amplitude, Float32Array.of(alpha / Math.sqrt(Math.max(1, elements))));
    }
    this.#submit(program);
  }

  /** Adds what the logits of the microbatch's own completions are; its pass must be the last that was run. */
  async #addTokenSums(batch: Batch, packed = batch.apart?.examples ?? batch.packed): Promise<void> {
    const { shape } = packed;
    const program = await this.#program(`tokens ${JSON.stringify(shape)} of ${batch.size}`, (recording) => {
      recordTokenSums(this.#memory.headPass(recording, this.policy, shape), this.objective.tokenSums(batch.size));
      this.objective.recordTokens(recording, batch.size, this.#memory.rows.tensors(shape).sequenceRanges);
    });
    this.#submit(program);
  }

  /** The program under this name, recorded at its first use. */
  async #program(name: string, record: (program: Program) => void): Promise<Program> {
    let program = this.#programs.get(name);
    if (program === undefined) {
      program = new Program(this.device, name, productFormat(this.precision));
      record(program);
      const [oldest] = this.#programs.keys();
      if (this.#programs.size >= MOST_PROGRAMS && oldest !== undefined) {
        this.#programs.get(oldest)?.dispose();
        this.#programs.delete(oldest);
      }
    } else this.#programs.delete(name); // moves it to the end of the order of use
    this.#programs.set(name, program);
    await program.prepare();
    return program;
  }

  /** The recorded programs, for profiling. */
  get programs(): readonly Program[] {
    return [...this.#programs.values()];
  }

  /** Gives back all device memory but the models'. */
  free(): void {
    for (const program of this.#programs.values()) program.dispose();
    this.#programs.clear();
    if (this.#referenceMemory !== this.#memory) this.#referenceMemory?.free();
    this.#memory.free();
    this.objective.free();
    this.#optimizer?.free();
    this.#timer.free();
    if (this.#dropout) this.device.free(this.#dropout.state);
    for (const tensor of this.#noise ? [this.#noise.state, this.#noise.amplitude] : []) this.device.free(tensor);
  }
}

/** What an objective reads of the microbatches of a ring, as if they were one. */
function labelsOf(batches: readonly Batch[]): Labels {
  const joined = (name: "desirable" | "pairValid" | "completionTokens") =>
    Uint32Array.from(batches.flatMap((batch) => Array.from(batch[name])));
  return {
    desirable: joined("desirable"),
    pairValid: joined("pairValid"),
    completionTokens: joined("completionTokens"),
  };
}

/** What computes the coefficients of what the policy is trained for. */
function createObjective(options: UpdateOptions, device: Device): Objective {
  const { objective, reference, maxSize, maxUpdateRows = maxSize, referencePointScope, optimizer } = options;
  if (objective === "sft") return new SftOnDevice(device, maxSize);
  const referenceKind = reference === "uniform" ? "uniform" : "model";
  const ring = referencePointScope === "step" ? { rows: maxUpdateRows, evaluates: !optimizer } : undefined;
  return new KtoOnDevice(device, { ...objective, referenceKind }, maxSize, ring);
}

/** @throws ConfigError naming both models if their vocabularies differ in size */
export function checkReference(policy: Model, reference: Model): void {
  const [wanted, found] = [policy.config.vocabSize, reference.config.vocabSize];
  if (wanted !== found) {
    throw new ConfigError(
      `The reference model ${reference.folder} has a vocabulary of ${found} tokens and the model ${policy.folder} one of ${wanted}: their log-probabilities cannot be compared; use a reference with the same tokenizer.`,
    );
  }
  // One packing serves both, and LongRoPE's regimes are part of it.
  if (longRopeBeyond(policy.config) === longRopeBeyond(reference.config)) return;
  throw new ConfigError(
    `The reference model ${reference.folder} and the model ${policy.folder} differ in LongRoPE's original context (original_max_position_embeddings); use a reference of the same build.`,
  );
}

/**
 * Whether the reference's pass fits into the activations of the policy's: the same build, and no other adapter's
 * scratch.
 */
function sharesMemory(policy: Model, reference: Model): boolean {
  const build = ({ config, adapter }: Model) =>
    JSON.stringify([{ ...config, eosTokenIds: [] }, (adapter ?? policy.adapter)?.options]);
  return build(policy) === build(reference);
}
