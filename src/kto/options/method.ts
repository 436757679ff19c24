/**
 * The options of KTO itself, under TRL's names, and the reference that follows from them, which TRL's options and ours
 * both name.
 */
import * as z from "zod";
import { ConfigError } from "../../errors.ts";
import { type OptionsOf, optionGroup } from "./option.ts";

const { trainerOption } = optionGroup("KTO");

/** "auto" solves for the weight that balances the classes. */
const weight = z.union([z.number().positive(), z.literal("auto")]);

export const referenceModelOption = {
  ref_model_name_or_path: optionGroup("Model and data").option(z.string().min(1).optional(), {
    description: "the frozen reference model (default: the model as it is before training)",
    expects: 'a local Hugging Face model folder or a hub id such as "owner/name"',
    placeholder: "model",
    aliases: ["ref_model"],
  }),
};

export const methodOptions = {
  beta: trainerOption(z.number().positive().default(0.1), {
    description: "how strongly the model is held to the reference; higher stays closer",
    float32: true,
  }),
  desirable_weight: trainerOption(weight.default(1), {
    description: "lambda_D, the weight of thumbs-up rows; auto balances the classes",
    float32: true,
  }),
  undesirable_weight: trainerOption(weight.default(1), {
    description: "lambda_U, the weight of thumbs-down rows; auto balances the classes",
    float32: true,
  }),
  loss_type: trainerOption(z.enum(["kto", "apo_zero_unpaired"]).default("kto"), {
    description: "the loss; apo_zero_unpaired (alias kto_zero) sets the reference point to 0",
    valueAliases: { kto_zero: "apo_zero_unpaired" },
  }),
  reference: trainerOption(z.enum(["auto", "copy", "adapter_off", "cached", "uniform"]).default("auto"), {
    description:
      "where the reference's log-probs come from; copy: a frozen model beside the trained one; adapter_off: the model without its adapter; cached: computed before training and kept on disk, so that they take no memory then; uniform: no reference, the entropy is measured on mismatched pairs; auto: adapter_off with an adapter, else copy",
  }),
  precompute_ref_log_probs: trainerOption(z.boolean().default(false), {
    description: 'the same as reference "cached"',
  }),
  reference_point_scope: trainerOption(z.enum(["microbatch", "step"]).default("microbatch"), {
    description: "the rows over which the reference point is taken when gradients are accumulated",
  }),
};

export type MethodOptions = OptionsOf<typeof methodOptions>;

/** Where the reference's log-probs come from. */
export type ReferenceMode = "copy" | "adapter_off" | "cached" | "uniform";

/**
 * The reference that the options ask for. For "auto" that is the policy without its adapter where it has one and no other
 * model is given, else a frozen model beside the policy.
 *
 * @param given whether there is a reference model of its own
 * @throws ConfigError for options that contradict each other or what is given
 */
export function referenceMode(
  options: Pick<MethodOptions, "reference" | "precompute_ref_log_probs" | "loss_type">,
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
