/**
 * What follows from options that are said in two ways, TRL's and ours: which reference, which order of the rows. Also
 * which of them contradict each other.
 */
import { ConfigError } from "../errors.ts";
import type { TrainerOptions } from "./config.ts";

/** How the reference's log-probabilities are had. */
export type ReferenceMode = "copy" | "adapter_off" | "cached" | "uniform";

/**
 * The reference that the options ask for, "auto" decided: the policy without its adapter where it has one and no other
 * model is given, else a frozen model beside the policy.
 *
 * @param given whether there is a reference model of its own
 * @throws ConfigError for what cannot be
 */
export function referenceMode(
  options: Pick<TrainerOptions, "reference" | "precompute_ref_log_probs" | "loss_type">,
  { adapter, given }: { readonly adapter: boolean; readonly given: boolean },
): ReferenceMode {
  const { reference, precompute_ref_log_probs: precomputed, loss_type } = options;
  if (precomputed && reference !== "auto" && reference !== "cached") {
    throw new ConfigError(
      `option "precompute_ref_log_probs" is true, which is reference "cached", but reference is "${reference}": keep one.`,
    );
  }
  if (precomputed || reference === "cached") return "cached";
  if (reference === "uniform") {
    if (given) {
      throw new ConfigError(
        'option "reference" is "uniform", which needs no reference model, but one is given: leave out ref_model_name_or_path.',
      );
    }
    if (loss_type !== "kto") {
      throw new ConfigError(
        `option "reference" is "uniform", whose reference point is measured on mismatched pairs, but loss_type "${loss_type}" sets it to 0: use loss_type "kto" or a reference model.`,
      );
    }
    return "uniform";
  }
  if (reference === "adapter_off" && (!adapter || given)) {
    throw new ConfigError(
      given
        ? 'option "reference" is "adapter_off", the model without its adapter, but another reference model is given: leave out ref_model_name_or_path.'
        : 'option "reference" is "adapter_off", but the model has no adapter to take off: set use_peft true, or reference "copy".',
    );
  }
  if (reference === "auto") return adapter && !given ? "adapter_off" : "copy";
  return reference;
}

/**
 * Whether rows are shuffled, and whether rows of similar length come together.
 *
 * @throws ConfigError where two options contradict each other
 */
export function samplingOf(
  options: Pick<TrainerOptions, "shuffle_dataset" | "train_sampling_strategy" | "group_by_length">,
): { readonly shuffle: boolean; readonly groupByLength: boolean } {
  const { shuffle_dataset, train_sampling_strategy: strategy, group_by_length } = options;
  const groupByLength = group_by_length || strategy === "group_by_length";
  const shuffle = shuffle_dataset && strategy !== "sequential";
  if (groupByLength && !shuffle) {
    throw new ConfigError(
      `group_by_length puts rows in a random order of its own, but ${shuffle_dataset ? 'train_sampling_strategy "sequential"' : "shuffle_dataset false"} keeps the order of the file: keep one.`,
    );
  }
  return { shuffle, groupByLength };
}
