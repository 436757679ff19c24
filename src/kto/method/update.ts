/**
 * One optimiser update on the device: log-probs of a packed batch under the reference and the policy, the objective's
 * coefficients, gradients in closed form, clip, AdamW. A program is recorded once for each shape class and replayed.
 * Which rows come when is not decided here.
 */

import type { ParameterLayout } from "../../engine/gpu/arena.ts";
import type { Device } from "../../engine/gpu/device.ts";
import { AdamW } from "../../engine/gpu/optimizer.ts";
import { PassTimer } from "../../engine/gpu/pass-timer.ts";
import { Program } from "../../engine/gpu/program.ts";
import { Staging } from "../../engine/gpu/staging.ts";
import { sliceRows, type Tensor } from "../../engine/gpu/tensor.ts";
import {
  gradientStages,
  PassMemory,
  positionLimit,
  recordGradients,
  recordLogProbs,
} from "../../engine/model/decoder.ts";
import { recordTargetHits, recordTokenSums } from "../../engine/model/head.ts";
import { Model } from "../../engine/model/model.ts";
import { activationFormat, type Precision, productFormat } from "../../engine/model/precision.ts";
import type { RowShape } from "../../engine/model/rows.ts";
import { ArenaSum, gatherArena } from "../../engine/ranks/arena-sum.ts";
import { ALONE, type Communicator } from "../../engine/ranks/communicator.ts";
import { OnRequest } from "../../engine/ranks/on-request.ts";
import { type Piece, partsOfRank, piecesOfStages } from "../../engine/ranks/pieces.ts";
import { SharedMoments } from "../../engine/ranks/shared-moments.ts";
import { Scratch, sumOverRanks } from "../../engine/ranks/sums.ts";
import type { Batch, ReferencePointScope } from "./batch.ts";
import { labelsOf, type Objective } from "./objective.ts";
import { PassDraws } from "./pass-draws.ts";
import {
  checkReference,
  createObjective,
  sharesMemory,
  type UpdateOptions,
  type UpdateReference,
  type Wanted,
} from "./update-options.ts";

/** What a pass over a microbatch does. */
type PassKind = "pairs" | "gradients" | "pairs and gradients" | "own pairs" | "backward" | "evaluation" | "log-probs";

/** What each kind of pass records, in this order. "backward" goes on from the "own pairs" of the same microbatch. */
const PARTS: Readonly<
  Record<PassKind, Partial<Record<"forward" | "clear" | "pairs" | "coefficients" | "backward", true>>>
> = {
  "log-probs": { forward: true },
  evaluation: { forward: true, clear: true, pairs: true, coefficients: true },
  "pairs and gradients": { forward: true, clear: true, pairs: true, coefficients: true, backward: true },
  pairs: { forward: true, pairs: true },
  gradients: { forward: true, coefficients: true, backward: true },
  "own pairs": { forward: true, clear: true, pairs: true },
  backward: { coefficients: true, backward: true },
};

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
  readonly #draws: PassDraws;
  readonly #ranks: Communicator;
  readonly #localRanks: Communicator | undefined;
  /** The sum of all ranks' gradients; undefined where there is one rank. */
  readonly gradientSum: ArenaSum | undefined;
  /** How the trained parameters are divided among the ranks, where each updates its own. */
  readonly #shards: readonly Piece[] | undefined;
  readonly #scratch = new Scratch();
  /** What ranks exchange passes through it; undefined where there is one rank. */
  readonly #staging: Staging | undefined;
  /** What rank 0 asks of the others while it saves. */
  readonly requests: OnRequest;
  /** The moments of all ranks; undefined where this one has all of them. */
  readonly sharedMoments: SharedMoments | undefined;

  constructor(options: UpdateOptions) {
    const { reference, shapes } = options;
    this.precision = options.precision ?? "f32";
    const format = activationFormat(this.precision);
    let { policy } = options;
    const referenceModel = reference instanceof Model ? reference : undefined;
    if (referenceModel) checkReference(policy, referenceModel);
    this.#draws = new PassDraws(policy, options);
    policy = this.#draws.policy;
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
    const ranks = options.ranks ?? ALONE;
    this.#ranks = ranks;
    this.#localRanks = options.localRanks;
    this.requests = new OnRequest(ranks);
    const pieces: Piece[][] = [];
    const shards = ranks.size > 1 && options.shardOptimizer === true;
    const divide = (layout: ParameterLayout) => {
      pieces.push(...piecesOfStages(layout, gradientStages(layout, policy), ranks.size, options.pieceBytes));
      return pieces.flat().flatMap((piece) => partsOfRank(piece, ranks.rank));
    };
    this.#optimizer =
      options.optimizer && new AdamW(policy.trained, options.optimizer, options.trained, shards ? divide : undefined);
    if (this.#optimizer === undefined || ranks.size === 1) return;
    const { gradients } = this.#optimizer;
    if (!shards) divide(gradients.layout);
    this.#staging = new Staging(this.device);
    this.gradientSum = new ArenaSum(ranks, gradients, pieces, this.#staging, { scatters: shards });
    if (!shards) return;
    this.#shards = pieces.flat();
    this.sharedMoments = new SharedMoments(ranks, this.#optimizer, this.#shards, this.requests);
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
      await this.#runBatch("evaluation", only, 0);
      await this.#addTokenSums(only);
      return;
    }
    const { objective } = this;
    const size = batches.reduce((sum, batch) => sum + batch.size, 0);
    let start = 0;
    for (const batch of batches) {
      await this.#runBatch("log-probs", batch, 0);
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
   * Runs microbatches to gradients, coefficients and metric sums, without an update; gradients start from zero. Of
   * several ranks each computes its part, and gets the gradients of all; rank 0 gets their metric sums.
   *
   * @param update whose dropout is drawn, counted from 0
   * @param wanted what else is wanted; nothing by default
   */
  async gradients(batches: readonly Batch[], learningRate = 0, update = 0, wanted: Wanted = {}): Promise<void> {
    const { objective } = this;
    const { tokens, examples } = wanted;
    const rows = batches.reduce((sum, { whole }) => sum + whole.size, 0);
    const weight = objective.microbatchWeight(batches);
    this.optimizer.setStep(learningRate, weight, rows);
    this.#submit(await this.#program("zero", (program) => this.optimizer.recordZeroGradients(program)));
    const live = this.reference instanceof Model;
    const apart = batches.some((batch) => batch.apart !== undefined);
    if (this.#scope === "step" && objective.usesPairs && batches.length > 1 && !apart) {
      throw new Error("microbatches that share a reference point are packed by packUpdate");
    }
    if (apart) {
      this.#submit(await this.#program("clear pairs", (program) => objective.recordClearPairs(program)));
      let start = 0;
      for (const batch of batches) {
        if (batch.size > 0) {
          if (this.#referenceMemory) await this.#runReference(batch);
          await this.#runBatch("pairs", batch, update);
          if (live) objective.keepReference(start, batch.size);
          if (examples) objective.keepForLog("pairs", start, batch.size);
        }
        start += batch.size;
      }
      await this.#sumPairs();
    }
    let start = 0;
    for (const [index, batch] of batches.entries()) {
      const isLast = index === batches.length - 1;
      // Where a microbatch is a mean of its own, its rows are those of all ranks.
      if (this.#dealt && this.#scope === "microbatch") this.optimizer.setStep(learningRate, weight, batch.whole.size);
      if (batch.size > 0) {
        if (apart && live) objective.restoreReference(start, batch.size);
        if (apart) await this.#runBatch("gradients", batch, update, isLast);
        else if (this.#dealt && objective.usesPairs) {
          await this.#runBatch("own pairs", batch, update);
          await this.#sumPairs();
          await this.#runBatch("backward", batch, update, isLast);
        } else await this.#runBatch("pairs and gradients", batch, update, isLast);
        if (examples) objective.keepForLog(apart ? "examples" : "both", start, batch.size);
        if (tokens) await this.#addTokenSums(batch);
      } else if (!apart && objective.usesPairs) {
        this.#submit(await this.#program("clear pairs", (program) => objective.recordClearPairs(program)));
        await this.#sumPairs();
      }
      start += batch.size;
    }
    if (this.gradientSum === undefined) return;
    await this.gradientSum.end();
    await this.#sumMetrics(this.#ranks);
  }

  get #dealt(): boolean {
    return this.#ranks.size > 1;
  }

  /** The reference point is taken over the pairs of all ranks: the sum and the number of theirs. */
  async #sumPairs(): Promise<void> {
    const { pairSum } = this.objective;
    if (this.#dealt && pairSum !== undefined) await this.#sumOnDevice(pairSum);
  }

  /** Replaces a few numbers of the device by their sums over all ranks. */
  async #sumOnDevice(tensor: Tensor): Promise<void> {
    const own = Float64Array.from(await this.device.download(tensor));
    this.device.upload(tensor, Float32Array.from(await sumOverRanks(this.#ranks, own)));
  }

  /**
   * Rank 0 goes on with the metric sums of all and the others from zero, so that a checkpoint of rank 0's is the same
   * whatever the number of ranks.
   */
  async #sumMetrics(ranks: Communicator): Promise<void> {
    const { metrics } = this.objective;
    const sums = await sumOverRanks(ranks, Float64Array.from(await this.device.download(metrics)));
    this.device.upload(metrics, ranks.rank === 0 ? Float32Array.from(sums) : new Float32Array(sums.length));
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
   * One update from these microbatches. Returns as soon as the work is submitted, or, where each rank updates its share,
   * once every rank has all weights.
   *
   * @param update its number, counted from 0
   * @param wanted for an update that is logged, the sums over tokens and `deviceTimeShare` among it; the update is the
   * same, bit by bit
   */
  async run(batches: readonly Batch[], learningRate: number, update: number, wanted: Wanted = {}): Promise<void> {
    this.#loggedSince = wanted.tokens ? performance.now() : undefined;
    this.#timer.restart();
    // Where ranks update by themselves, the last rows of an epoch may not suffice for all of them.
    if (batches.length > 0) await this.#updateFrom(batches, learningRate, update, wanted);
    if (this.#localRanks && this.#localRanks.size > 1) await this.#sumMetrics(this.#localRanks);
  }

  async #updateFrom(batches: readonly Batch[], learningRate: number, update: number, wanted: Wanted): Promise<void> {
    await this.gradients(batches, learningRate, update, wanted);
    const [shards, staging] = [this.#shards, this.#staging];
    if (shards === undefined || staging === undefined) {
      this.#submit(await this.#program("update", (program) => this.optimizer.recordStep(program)));
      return;
    }
    this.#submit(await this.#program("squares", (program) => this.optimizer.recordSquares(program)));
    await this.#sumOnDevice(this.optimizer.normPartials);
    this.#submit(await this.#program("update", (program) => this.optimizer.recordStepByNorm(program)));
    await gatherArena(this.#ranks, this.policy.trained, shards, staging, this.#scratch);
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

  /** @param isLast whether nothing adds to the gradients after it, so that their sum may begin while it runs */
  #submit(program: Program, isLast = false): void {
    const sum = isLast ? this.gradientSum : undefined;
    const timer = this.#loggedSince === undefined ? undefined : this.#timer;
    program.run(timer, sum && ((stage) => sum.finished(stage)));
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

  async #runBatch(kind: PassKind, batch: Batch, update: number, isLast = false): Promise<void> {
    const { apart } = batch;
    const own = kind === "pairs" ? apart?.pairs : kind === "gradients" ? apart?.examples : undefined;
    const packed = own ?? batch.packed;
    const { shape } = packed;
    if ((this.reference === "cached") !== (batch.referenceLogProbs !== undefined)) {
      throw new Error("reference log-probabilities come with a microbatch where they are cached, and only there");
    }
    const { objective } = this;
    const sum = this.gradientSum;
    const program = await this.#program(`${kind} ${JSON.stringify(shape)} of ${batch.size}`, (recording) => {
      const parts = PARTS[kind];
      if (parts.forward) {
        if (packed === batch.packed) this.#recordReference(recording, shape, batch.size);
        const sums = sliceRows(objective.policyLogProbs(batch.size), 0, shape.sequences);
        recordLogProbs(recording, this.policy, this.#memory, shape, sums, this.#draws.noise);
        const hits = objective.hitCounts(batch.size);
        if (hits) recordTargetHits(this.#memory.headPass(recording, this.policy, shape), hits);
      }
      if (parts.clear) objective.recordClearPairs(recording);
      if (parts.pairs) objective.recordPairs(recording, batch.size);
      if (parts.coefficients) objective.recordCoefficients(recording, batch.size, this.#optimizer?.stepNumbers);
      if (!parts.backward) return;
      const coefficients = objective.coefficients(batch.size);
      const { gradients } = this.optimizer;
      const stageOf = (layer: number) => this.policy.config.layers - 1 - layer;
      const mark = (layer: number) => sum?.begins(stageOf(layer)) && recording.mark(stageOf(layer));
      recordGradients(recording, this.policy, gradients, this.#memory, shape, coefficients, sum && mark);
    });
    if (kind === "backward") {
      this.#submit(program, isLast);
      return;
    }
    this.#memory.upload(packed);
    if (packed === batch.packed && this.#referenceMemory !== this.#memory) this.#referenceMemory?.upload(packed);
    objective.upload(batch);
    this.#draws.begin(update, batch.whole.longestTokens);
    this.#submit(program, isLast);
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
    this.#staging?.free();
    this.#timer.free();
    this.#draws.free();
  }
}
