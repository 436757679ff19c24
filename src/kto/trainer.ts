/**
 * The KTO trainer: examples and two models in, a training run out. Decides what the run is made of (reference, weights,
 * objective, memory); how it goes on is `training-run.ts`'s business.
 */
import { Model } from "../engine/model/load.ts";
import { solveWeights } from "./data/weights.ts";
import { checkHostMemory, withWhatFits } from "./fitting.ts";
import type { ReferenceMode } from "./method-options.ts";
import { RunEvaluation } from "./run-evaluation.ts";
import {
  type CachedReference,
  cachedReference,
  checkInputs,
  type Prepared,
  prepare,
  type TrainerInputs,
} from "./run-inputs.ts";
import type { RunPlan } from "./run-plan.ts";
import { KtoStep } from "./step.ts";
import { type RunTimes, timeRun } from "./timing.ts";
import { TrainingRun } from "./training-run.ts";

export type { TrainingStep } from "./callbacks.ts";
export type { TrainerInputs } from "./run-inputs.ts";

/** A KTO training run, made by `KtoTrainer.create`. `free` gives all device memory back but the given models'. */
export class KtoTrainer extends TrainingRun {
  /** lambda_D and lambda_U, with "auto" solved. */
  readonly weights: { readonly desirable: number; readonly undesirable: number };
  readonly referenceMode: ReferenceMode;
  /** Where cached log-probabilities of the reference come from, for people. */
  readonly referenceNote: string | undefined;
  readonly #ownReference: Model | undefined;
  readonly #plan: RunPlan;
  readonly #evaluation: RunEvaluation | undefined;

  private constructor(
    inputs: TrainerInputs,
    { options, plan, mode, trained }: Prepared,
    cached: CachedReference | undefined,
  ) {
    const { policy, examples, outputFolder } = inputs;
    const weights = solveWeights(options.desirable_weight, options.undesirable_weight, examples);
    const ownReference =
      mode === "copy" && inputs.reference === undefined ? Model.copyOf(policy.base, "reference weights") : undefined;
    const reference =
      mode === "cached" || mode === "uniform" ? mode : (inputs.reference ?? ownReference ?? policy.base);
    const objective = {
      beta: options.beta,
      desirableWeight: weights.desirable,
      undesirableWeight: weights.undesirable,
      lossType: options.loss_type,
    };
    const step = new KtoStep({
      policy,
      reference,
      shapes: plan.shapes(),
      maxSize: options.per_device_train_batch_size,
      objective,
      optimizer: {
        beta1: options.adam_beta1,
        beta2: options.adam_beta2,
        epsilon: options.adam_epsilon,
        weightDecay: options.weight_decay,
        maxGradientNorm: options.max_grad_norm,
      },
      trained,
      gradientCheckpointing: options.gradient_checkpointing,
      referencePointScope: options.reference_point_scope,
      dropoutSeed: options.disable_dropout ? undefined : options.seed,
    });
    const evaluation = RunEvaluation.create({
      policy, // without dropout
      reference: reference === "cached" ? (cached?.evaluation ?? policy.base) : reference,
      examples: inputs.evalExamples,
      objective,
      maxLength: plan.batchOptions.maxLength,
      options,
      totalSteps: plan.totalSteps,
      stepsPerEpoch: plan.stepsPerEpoch,
      outputFolder,
    });
    const { baseModel, settings } = inputs;
    super({ policy, options, plan, step, evaluation, cached, callbacks: inputs, outputFolder, baseModel, settings });
    this.weights = weights;
    this.referenceMode = mode;
    this.referenceNote = cached && [cached.updates, cached.evaluation].flatMap((one) => one?.note ?? []).join("; ");
    this.#plan = plan;
    this.#evaluation = evaluation;
    this.#ownReference = ownReference;
  }

  /**
   * Checks options and examples, allocates all device memory of the run and, with `resume_from_checkpoint`, puts a
   * checkpoint's weights into the policy. The policy is loaded as for the run that is resumed, since it is its reference.
   *
   * @throws ConfigError for an option out of range; DatasetError for examples that the model cannot take; AdapterError
   * when the device cannot hold the run
   */
  static async create(inputs: TrainerInputs): Promise<KtoTrainer> {
    checkInputs(inputs);
    const prepared = prepare(inputs);
    // Before anything of the run is allocated: the reference's pass and the training are never in memory together.
    const cached = prepared.mode === "cached" ? await cachedReference(inputs, prepared) : undefined;
    const trainer = await KtoTrainer.#allocate(inputs, prepared, cached);
    try {
      await trainer.resume();
    } catch (error) {
      trainer.free();
      throw error;
    }
    return trainer;
  }

  /**
   * How long the run of these inputs would take: allocates it, runs a little of it and frees it. Writes nothing and leaves
   * the policy's weights as they are; a checkpoint to resume from is not looked at.
   *
   * @throws what `create` throws
   */
  static async time(inputs: TrainerInputs): Promise<RunTimes> {
    checkInputs(inputs);
    const prepared = prepare(inputs);
    const cached = prepared.mode === "cached" ? await cachedReference(inputs, prepared, false) : undefined;
    const trainer = await KtoTrainer.#allocate(inputs, prepared, cached);
    try {
      const { step } = trainer;
      return await timeRun({
        plan: trainer.#plan,
        step,
        evaluation: trainer.#evaluation,
        cached: cached !== undefined,
      });
    } finally {
      trainer.free();
    }
  }

  /** All device memory of the run. */
  static async #allocate(
    inputs: TrainerInputs,
    prepared: Prepared,
    cached: CachedReference | undefined,
  ): Promise<KtoTrainer> {
    const { device } = inputs.policy;
    const planned = (plan: TrainerInputs) => new KtoTrainer(plan, prepare(plan), cached);
    let trainer: KtoTrainer;
    try {
      trainer = device.allocating(() => new KtoTrainer(inputs, prepared, cached));
    } catch (error) {
      throw await withWhatFits(error, inputs, planned);
    }
    try {
      checkHostMemory(device);
      await device.idle(); // an adapter out of memory says so only now
    } catch (error) {
      trainer.free();
      throw await withWhatFits(error, inputs, planned);
    }
    return trainer;
  }

  override free(): void {
    super.free();
    this.#ownReference?.free();
  }
}
