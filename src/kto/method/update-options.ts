/**
 * What an update is made of: its options, the objective that they name, and what policy and reference must have in
 * common. The update itself is in `update.ts`.
 */
import type { ParameterLayout } from "../../engine/gpu/arena.ts";
import type { Device } from "../../engine/gpu/device.ts";
import type { AdamWOptions } from "../../engine/gpu/optimizer.ts";
import { longRopeBeyond } from "../../engine/model/config/config.ts";
import type { Model } from "../../engine/model/model.ts";
import type { Precision } from "../../engine/model/precision.ts";
import type { RowShape } from "../../engine/model/rows.ts";
import type { Communicator } from "../../engine/ranks/communicator.ts";
import { ConfigError } from "../../errors.ts";
import type { ReferencePointScope } from "./batch.ts";
import { KtoOnDevice } from "./kto-on-device.ts";
import type { Objective, TrainedFor } from "./objective.ts";
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
  /** Rows of an update at most; read with referencePointScope "step" and with logsExamples. Default `maxSize`. */
  readonly maxUpdateRows?: number;
  /** Whether updates may be asked what they did with each example; default false. */
  readonly logsExamples?: boolean | undefined;
  /** Default f32; for fp16 the adapter must have the feature shader-f16. */
  readonly precision?: Precision;
  /** Keep the inputs of layers only, and compute the rest again in the backward pass; default false. */
  readonly gradientCheckpointing?: boolean;
  /** Seed of the adapter's dropout, which draws by the rows' tokens (`packRows`); undefined (default) for none whatever the adapter's options say. */
  readonly dropoutSeed?: number | undefined;
  /** NEFTune's noise on the embeddings of the policy's passes of training; default none. */
  readonly noise?: { readonly alpha: number; readonly seed: number } | undefined;
  /** The ranks that share each update; this one computes its part of every microbatch. Default: one process. */
  readonly ranks?: Communicator | undefined;
  /** Ranks that each update by themselves (`sync_every`); their metric sums are put together. Without `ranks`. */
  readonly localRanks?: Communicator | undefined;
  /** Whether each rank keeps the moments of its share of the parameters alone, and updates that; default false. */
  readonly shardOptimizer?: boolean | undefined;
  /** Bytes of gradients that ranks sum at once; default `PIECE_BYTES`. */
  readonly pieceBytes?: number | undefined;
}

/** What is wanted of an update beside its gradients. */
export interface Wanted {
  /** The metric sums over tokens, which cost one more pass over the vocabulary. */
  readonly tokens?: boolean;
  /** What it did with each example, for `objective.exampleLog`; only with logsExamples. */
  readonly examples?: boolean;
}

/** What computes the coefficients of what the policy is trained for. */
export function createObjective(options: UpdateOptions, device: Device): Objective {
  const {
    objective,
    reference,
    maxSize,
    maxUpdateRows = maxSize,
    logsExamples,
    referencePointScope,
    optimizer,
  } = options;
  if (objective === "sft") return new SftOnDevice(device, maxSize);
  const referenceKind = reference === "uniform" ? "uniform" : "model";
  const ring = referencePointScope === "step" ? { rows: maxUpdateRows, evaluates: !optimizer } : undefined;
  const loggedRows = logsExamples ? maxUpdateRows : undefined;
  const dealt = (options.ranks?.size ?? 1) > 1;
  return new KtoOnDevice(device, { ...objective, referenceKind }, maxSize, loggedRows, ring, dealt);
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
export function sharesMemory(policy: Model, reference: Model): boolean {
  const build = ({ config, adapter }: Model) =>
    JSON.stringify([{ ...config, eosTokenIds: [] }, (adapter ?? policy.adapter)?.options]);
  return build(policy) === build(reference);
}
