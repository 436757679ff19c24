/**
 * The KTO trainer: examples and two models in, a training run out. Decides what the run is made of (reference, weights,
 * objective); how it goes on is `training-run.ts`'s business.
 */
import { Model } from "../engine/model/model.ts";
import { solveWeights } from "./data/weights.ts";
import type { TrainerOptions } from "./options/kto.ts";
import type { ReferenceMode } from "./options/method.ts";
import { withWhatFits } from "./run/fitting.ts";
import { type CachedReference, cachedReference, prepare, type TrainerInputs } from "./run/inputs.ts";
import { resumption } from "./run/resumption.ts";
import type { RunTimes } from "./run/timing.ts";
import { TrainingRun } from "./run/training-run.ts";

export type { TrainingStep } from "./run/callbacks.ts";
export type { TrainerInputs } from "./run/inputs.ts";

/** A KTO training run, made by `KtoTrainer.create`. `free` gives all device memory back but the given models'. */
export class KtoTrainer extends TrainingRun<TrainerOptions> {
  /** lambda_D and lambda_U, with "auto" solved. */
  readonly weights: { readonly desirable: number; readonly undesirable: number };
  readonly referenceMode: ReferenceMode;
  /** Where cached log-probabilities of the reference come from, for people. */
  readonly referenceNote: string | undefined;
  readonly #ownReference: Model | undefined;

  private constructor(
    inputs: TrainerInputs,
    prepared: ReturnType<typeof prepare>,
    cached: CachedReference | undefined,
  ) {
    const { policy, reference, examples } = inputs;
    const { mode, options } = prepared;
    const weights = solveWeights(options.desirable_weight, options.undesirable_weight, examples);
    const ownReference =
      mode === "copy" && reference === undefined ? Model.copyOf(policy.base, "reference weights") : undefined;
    super({
      inputs,
      prepared,
      objective: {
        beta: options.beta,
        desirableWeight: weights.desirable,
        undesirableWeight: weights.undesirable,
        lossType: options.loss_type,
      },
      reference: mode === "cached" || mode === "uniform" ? mode : (reference ?? ownReference ?? policy.base),
      referencePointScope: options.reference_point_scope,
      cached,
    });
    this.weights = weights;
    this.referenceMode = mode;
    this.referenceNote = cached && [cached.updates, cached.evaluation].flatMap((one) => one?.note ?? []).join("; ");
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
    const prepared = prepare(inputs);
    const resumed = await resumption(inputs, "kto", prepared);
    return await TrainingRun.started(inputs.policy.device, resumed, ...(await KtoTrainer.#made(inputs, prepared)));
  }

  /**
   * How long the run of these inputs, or what is left of it, would take: allocates it, runs a little of it and frees it.
   * Writes nothing and leaves the policy's weights as they are.
   *
   * @throws what `create` throws
   */
  static async time(inputs: TrainerInputs): Promise<RunTimes> {
    const prepared = prepare(inputs);
    const resumed = await resumption(inputs, "kto", prepared);
    return await TrainingRun.timed(inputs.policy.device, resumed, ...(await KtoTrainer.#made(inputs, prepared, false)));
  }

  /** How the run is made, and what to say where the device does not hold it. @param compute of a cached reference */
  static async #made(inputs: TrainerInputs, prepared: ReturnType<typeof prepare>, compute = true) {
    const cached = prepared.mode === "cached" ? await cachedReference(inputs, prepared, compute) : undefined;
    const { reference, ...others } = inputs;
    if (prepared.mode === "cached" && inputs.ownsReference) reference?.free();
    const held = prepared.mode === "cached" ? others : inputs;
    const smallest = prepared.plan.batchOptions.mismatched ? 2 : 1;
    return [
      () => new KtoTrainer(held, prepared, cached),
      (error: unknown) => withWhatFits(error, held, smallest, (fewer) => new KtoTrainer(fewer, prepare(fewer), cached)),
    ] as const;
  }

  override free(): void {
    super.free();
    this.#ownReference?.free();
  }
}
