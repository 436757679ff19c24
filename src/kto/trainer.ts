/**
 * The KTO trainer: what KTO makes of a caller's options, rows and models, said to `createRun` as a method. How a run
 * goes on is `run/run.ts`'s.
 */
import type { Model } from "../engine/model/model.ts";
import { ConfigError } from "../errors.ts";
import type { ClassWeights } from "./data/weights.ts";
import { objectiveOptions } from "./method/objective.ts";
import type { Checked } from "./options/checked.ts";
import { type TrainerOptions, trainerOptions } from "./options/kto.ts";
import { type ReferenceMode, referenceChoice, referenceMode, referencePointScope } from "./options/method.ts";
import { warn } from "./run/callbacks.ts";
import { createRun, savingsOf, timeRun } from "./run/create.ts";
import type { Method, RunInputs } from "./run/inputs.ts";
import type { Run } from "./run/run.ts";
import type { Savings } from "./run/savings.ts";
import type { RunTimes } from "./run/timing.ts";

export type { TrainingStep } from "./run/callbacks.ts";

/** What a KTO run is made from. */
export interface TrainerInputs extends RunInputs {
  /**
   * Frozen. Default: the policy as it starts, of which a copy is kept and freed with the trainer: a new adapter starts
   * as the base model, which needs no copy, an adapter that was trained before as itself. With `reference` "cached" a
   * model is not needed any more, and may be freed, once the trainer is there.
   */
  readonly reference?: Model;
  /**
   * The trainer may free the reference: with "cached" it does so once the log-probs are there, before the run is
   * allocated, so that both are never in memory together.
   */
  readonly ownsReference?: boolean;
  /** Some of them, parsed here, or all of them as a command line has parsed them. */
  readonly options?: Partial<TrainerOptions> | Checked<TrainerOptions>;
}

/** A KTO training run. `free` gives back all device memory but that of the models that were given, and the folder. */
export type KtoTrainer = Run<TrainerOptions> & {
  /** lambda_D and lambda_U, with "auto" solved. */
  readonly weights: ClassWeights;
  readonly referenceMode: ReferenceMode;
};

export const KtoTrainer = {
  /**
   * Checks options and examples, allocates all device memory of the run and, with `resume_from_checkpoint`, puts a
   * checkpoint's weights into the policy. The policy is loaded as for the run that is resumed, since as it starts it is
   * the reference.
   *
   * @throws ConfigError for an option out of range; DatasetError for examples that the model cannot take; AdapterError
   * when the device cannot hold the run; FileError where another run has `outputFolder`
   */
  async create(inputs: TrainerInputs): Promise<KtoTrainer> {
    const { method, ...facts } = await ktoMethod(inputs);
    if (method.referencePointScope !== method.options.reference_point_scope) {
      warn(
        inputs,
        'a microbatch of one row has no mismatched pair, so the reference point is taken over the rows of the whole update (reference_point_scope "step").',
      );
    }
    return Object.assign(await createRun(inputs, method), facts);
  },

  /**
   * How long the run of these inputs, or what is left of it, takes: allocates it, runs a little of it and frees it.
   * Writes nothing and leaves the policy's weights as they are.
   *
   * @throws what `create` throws
   */
  async time(inputs: TrainerInputs): Promise<RunTimes> {
    const { method } = await ktoMethod(inputs);
    return await timeRun(inputs, method);
  },

  /**
   * Changes of options with which the run of these inputs would take less device memory, in the order in which they are
   * worth trying, with the bytes that each saves alone, and of a run that does not fit which of them it would fit with.
   * Nothing is allocated.
   */
  async savings(inputs: TrainerInputs): Promise<Savings> {
    const { method } = await ktoMethod(inputs);
    return await savingsOf(inputs, method);
  },
};

async function ktoMethod(inputs: TrainerInputs): Promise<{
  readonly method: Method<TrainerOptions>;
  readonly weights: ClassWeights;
  readonly referenceMode: ReferenceMode;
}> {
  const { policy, reference, examples, ownsReference: freeReference = false } = inputs;
  checkReference(policy, reference);
  const options = trainerOptions.parse(inputs.options);
  const choice = referenceChoice(options, {
    adapter: policy.adapter !== undefined,
    continued: await startsTrained(policy),
    given: reference !== undefined,
  });
  const objective = objectiveOptions(options, examples);
  const method: Method<TrainerOptions> = {
    name: "kto",
    options,
    objective,
    reference: choice.of === "given" ? (reference ?? "start") : choice.of,
    caching: choice.cached ? { recompute: options.overwrite_cache, freeReference } : undefined,
    sync: options.sync_ref_model
      ? { share: options.ref_model_mixup_alpha, every: options.ref_model_sync_steps }
      : undefined,
    // Ranks that update by themselves have reference points of their own.
    referencePointScope: referencePointScope(options, options.sync_every === undefined ? inputs.ranks?.size : 1),
  };
  const weights = { desirable: objective.desirableWeight, undesirable: objective.undesirableWeight };
  return { method, weights, referenceMode: referenceMode(choice) };
}

/** Whether the policy's adapter changes the model before this run: it was loaded, or trained since it was made. */
async function startsTrained({ adapter, device }: Model): Promise<boolean> {
  if (adapter === undefined) return false;
  return adapter.folder !== undefined || !(device.counts || (await adapter.addsNothing()));
}

/** @throws ConfigError for a reference that the policy cannot be compared with */
function checkReference(policy: Model, reference: Model | undefined): void {
  if (reference === undefined) return;
  if (reference === policy) {
    throw new ConfigError(
      "The reference is the policy itself, so every log-ratio would stay 0; load the reference as a model of its own, or leave it out for a frozen copy.",
    );
  }
  if (reference.weights === policy.trained) {
    throw new ConfigError(
      "The reference has the weights that are trained, and would move with the policy; load it as a model of its own, or leave it out for a frozen copy.",
    );
  }
  if (reference.device !== policy.device) {
    throw new ConfigError("The reference lies on another device than the policy; load both on one device.");
  }
  if (reference.adapter !== undefined && reference.adapter === policy.adapter) {
    throw new ConfigError(
      "The reference has the very adapter that is trained, so every log-ratio would stay 0; leave it out for a frozen copy.",
    );
  }
}
