/**
 * The options of KTO itself, under TRL's names, and which reference follows from them where it is said in two ways,
 * TRL's and ours.
 */
import * as z from "zod";
import { ConfigError } from "../../errors.ts";
import { option } from "./parse.ts";

const method = "KTO";

/** A z.literal("auto") beside a number: solve for the weight that balances the classes. */
const weight = z.union([z.number().positive(), z.literal("auto")]);

export const referenceModelOption = {
  ref_model_name_or_path: option(z.string().min(1).optional(), {
    group: "Model and data",
    description: "the frozen reference model (default: the model as it is before training)",
    expects: 'a local Hugging Face model folder or a hub id such as "owner/name"',
    placeholder: "model",
    aliases: ["ref_model"],
  }),
};

export const methodOptions = {
  beta: option(z.number().positive().default(0.1), {
    group: method,
    description: "how strongly the model is held to the reference; higher stays closer",
    expects: "a number above 0",
  }),
  desirable_weight: option(weight.default(1), {
    group: method,
    description: "lambda_D, the weight of thumbs-up rows; auto balances the classes",
    expects: 'a number above 0 or "auto"',
  }),
  undesirable_weight: option(weight.default(1), {
    group: method,
    description: "lambda_U, the weight of thumbs-down rows; auto balances the classes",
    expects: 'a number above 0 or "auto"',
  }),
  loss_type: option(z.enum(["kto", "apo_zero_unpaired"]).default("kto"), {
    group: method,
    description: "apo_zero_unpaired (alias kto_zero) sets the reference point to 0",
    expects: '"kto" or "apo_zero_unpaired"',
    valueAliases: { kto_zero: "apo_zero_unpaired" },
  }),
  reference: option(z.enum(["auto", "copy", "adapter_off", "cached", "uniform"]).default("auto"), {
    group: method,
    description:
      "copy: a frozen model beside the trained one; adapter_off: the model without its adapter; cached: its log-probs computed before training and kept on disk, so that it takes no memory then; uniform: no reference, the entropy is measured on mismatched pairs; auto: adapter_off with an adapter, else copy",
    expects: '"auto", "copy", "adapter_off", "cached" or "uniform"',
  }),
  precompute_ref_log_probs: option(z.boolean().default(false), {
    group: method,
    description: 'the same as reference "cached"',
    expects: "true or false",
  }),
  reference_point_scope: option(z.enum(["microbatch", "step"]).default("microbatch"), {
    group: method,
    description: "the rows over which the reference point is taken when gradients are accumulated",
    expects: '"microbatch" or "step"',
  }),
};

const schema = z.strictObject(methodOptions);
export type MethodOptions = Readonly<z.output<typeof schema>>;

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
