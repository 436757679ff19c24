/** The options of KTO itself, under TRL's names, and the reference that follows from them. */
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
    refused: {
      bco: 'has a running mean as its reference point and is another method (TRL\'s BCOTrainer): use "kto"',
    },
  }),
  reference: trainerOption(z.enum(["auto", "copy", "base", "cached", "uniform"]).default("auto"), {
    description:
      "what the policy is compared with; copy: a frozen copy of what is trained, the model or its adapter, as it starts; base: the model without its adapter; cached: log-probs computed before training and kept on disk, so that the reference takes no memory then; uniform: no reference, the entropy is measured on mismatched pairs; auto: base with a new adapter, else copy",
    valueAliases: { adapter_off: "base" },
  }),
  precompute_ref_log_probs: trainerOption(z.boolean().default(false), {
    description:
      'compute the reference\'s log-probs before training, as reference "cached" does; also beside copy or base',
  }),
  sync_ref_model: trainerOption(z.boolean().default(false), {
    description: "let the reference follow the policy: mix the policy's weights into it every ref_model_sync_steps",
  }),
  ref_model_mixup_alpha: trainerOption(z.number().gt(0).max(1).default(0.6), {
    description: "the policy's share of that mixture, with sync_ref_model",
    float32: true,
  }),
  ref_model_sync_steps: trainerOption(z.number().int().min(1).default(512), {
    description: "updates between two of these mixtures, with sync_ref_model",
  }),
  reference_point_scope: trainerOption(z.enum(["microbatch", "step"]).default("microbatch"), {
    description: "the rows over which the reference point is taken when gradients are accumulated",
  }),
};

export type MethodOptions = OptionsOf<typeof methodOptions>;

/**
 * The rows over which the reference point of a run is taken. Where a microbatch has one row, and so no pair of its own,
 * and gradients are accumulated, those of the whole update.
 *
 * @param ranks how many give rows to a microbatch
 */
export function referencePointScope(
  options: {
    readonly loss_type: "kto" | "apo_zero_unpaired";
    readonly reference_point_scope: "microbatch" | "step";
    readonly per_device_train_batch_size: number;
    readonly gradient_accumulation_steps: number;
  },
  ranks = 1,
): "microbatch" | "step" {
  const alone = options.loss_type === "kto" && options.per_device_train_batch_size * ranks === 1;
  return alone && options.gradient_accumulation_steps > 1 ? "step" : options.reference_point_scope;
}

/** What a KTO run does for its reference, in a word: the option with "auto" decided. */
export type ReferenceMode = "copy" | "base" | "cached" | "uniform";

/** The reference of a KTO run. */
export interface ReferenceChoice {
  /** A model that was given, the policy as it starts, the policy without its adapter, or one constant for every row. */
  readonly of: "given" | "start" | "base" | "uniform";
  /** Whether its log-probs are computed before training. */
  readonly cached: boolean;
}

/**
 * The reference that the options ask for. As in TRL it is the policy as it starts unless a model is given; a new
 * adapter starts as the base model, which costs no memory.
 *
 * @param policy.adapter whether an adapter is trained
 * @param policy.continued whether that adapter changes the model before training
 * @param policy.given whether there is a reference model of its own
 * @throws ConfigError for options that contradict each other
 */
export function referenceChoice(
  options: Pick<MethodOptions, "reference" | "precompute_ref_log_probs" | "loss_type" | "sync_ref_model">,
  { adapter, continued, given }: { readonly adapter: boolean; readonly continued: boolean; readonly given: boolean },
): ReferenceChoice {
  const { reference, precompute_ref_log_probs: precomputed, loss_type, sync_ref_model: follows } = options;
  const unmoved = adapter
    ? "an adapter is trained"
    : precomputed || reference === "cached"
      ? "its log-probs are computed once, before training"
      : reference === "uniform"
        ? 'reference "uniform" is no model'
        : undefined;
  if (follows && unmoved !== undefined) {
    throw new ConfigError(
      `option "sync_ref_model" is true, but the reference has no weights to be moved, since ${unmoved} (TRL refuses it as well): leave it out.`,
    );
  }
  if (reference === "uniform") {
    if (precomputed) {
      throw new ConfigError(
        'option "precompute_ref_log_probs" is true, but reference "uniform" has no model to compute them with: keep one.',
      );
    }
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
    return { of: "uniform", cached: false };
  }
  if (reference === "base" && given) {
    throw new ConfigError(
      'option "reference" is "base", the model without its adapter, but another reference model is given: leave out ref_model_name_or_path.',
    );
  }
  if (reference === "base" && !adapter) {
    throw new ConfigError(
      'option "reference" is "base", but the model has no adapter to take off: set use_peft true, or reference "copy".',
    );
  }
  const isBase = reference === "base" || (reference !== "copy" && adapter && !continued);
  return { of: given ? "given" : isBase ? "base" : "start", cached: precomputed || reference === "cached" };
}

/** The name under which a choice of reference is shown and written down. */
export function referenceMode({ of, cached }: ReferenceChoice): ReferenceMode {
  if (cached) return "cached";
  return of === "base" || of === "uniform" ? of : "copy";
}
