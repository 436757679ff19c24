/**
 * Every option of KTO training, put together from the files that describe them (TRL's name, default, range, one line
 * each), and the checks that need several of them. The options of the other commands stand in `src/cli`, advice on
 * values in `advice.ts`.
 */
import * as z from "zod";
import { ConfigError } from "../../errors.ts";
import type { KtoLossType } from "../../kernels/kto-objective.ts";
import { TrainerParser } from "./checked.ts";
import { methodOptions, referenceChoice, referenceModelOption } from "./method.ts";
import { lengthOptions, modelNameOption, modelOptions } from "./model.ts";
import { reuse, reuseForTrainer } from "./option.ts";
import { type ParseContext, parseOptions } from "./parse.ts";
import { checkRunConfig, checkRunOptions, type RunOptions, runOptions } from "./run.ts";
import { foreignTrlOptions, otherProductsNames } from "./trl.ts";

/** The options, in the order of the help text. `ref_model_name_or_path` is filled in by `parseKtoConfig`. */
export const ktoOptions = z.strictObject({
  ...modelNameOption,
  ...referenceModelOption,
  ...modelOptions,
  ...lengthOptions,
  ...methodOptions,
  ...runOptions,
  overwrite_cache: reuseForTrainer(runOptions.overwrite_cache, {
    description: "compute token ids and reference log-probs again, also those that the cache holds",
  }),
  per_device_train_batch_size: reuse(runOptions.per_device_train_batch_size, {
    description:
      "rows in a microbatch; each prompt also meets the completion of another row, so an update needs at least 2",
  }),
});

/** A complete, checked configuration. */
export type KtoConfig = Readonly<z.output<typeof ktoOptions> & { ref_model_name_or_path: string }>;

/**
 * The options of `KtoTrainer`: those of every run, and those of the method (Ethayarajh et al. 2024) under the names of
 * TRL's KTOConfig, with its defaults where nothing else is said.
 */
export interface TrainerOptions extends RunOptions {
  /** How strongly the model is held to the reference; higher stays closer. Above 0; default 0.1. The paper's beta. */
  readonly beta: number;
  /** Lambda_D, the weight of thumbs-up rows; auto balances the classes. Above 0, or "auto"; default 1. */
  readonly desirable_weight: number | "auto";
  /** Lambda_U, the weight of thumbs-down rows; auto balances the classes. Above 0, or "auto"; default 1. */
  readonly undesirable_weight: number | "auto";
  /** The loss; apo_zero_unpaired (alias kto_zero) sets the reference point to 0. Default "kto". */
  readonly loss_type: KtoLossType;
  /**
   * What the policy is compared with; copy: a frozen copy of what is trained, the model or its adapter, as it starts;
   * base: the model without its adapter; cached: log-probs computed before training and kept on disk, so that the
   * reference takes no memory then; uniform: no reference, the entropy is measured on mismatched pairs; auto: base with
   * a new adapter, else copy. Default "auto". Not an option of TRL's.
   */
  readonly reference: "auto" | "copy" | "base" | "cached" | "uniform";
  /**
   * Compute the reference's log-probs before training, as reference "cached" does; also beside copy or base. Default
   * false.
   */
  readonly precompute_ref_log_probs: boolean;
  /**
   * Let the reference follow the policy: mix the policy's weights into it every ref_model_sync_steps. Default false. A
   * reference that was given is changed. TR-DPO, Gorbatovski et al. 2024.
   */
  readonly sync_ref_model: boolean;
  /** The policy's share of that mixture, with sync_ref_model. Above 0, at most 1; default 0.6. */
  readonly ref_model_mixup_alpha: number;
  /** Updates between two of these mixtures, with sync_ref_model. At least 1; default 512. */
  readonly ref_model_sync_steps: number;
  /**
   * The rows over which the reference point is taken when gradients are accumulated. Default "microbatch", as in TRL,
   * but "step" where a microbatch has one row. TRL has no "step"; with it, every microbatch size then gives the same
   * update.
   */
  readonly reference_point_scope: "microbatch" | "step";
  /** Compute token ids and reference log-probs again, also those that the cache holds. Default false. */
  readonly overwrite_cache: boolean;
  /**
   * Rows in a microbatch; each prompt also meets the completion of another row, so an update needs at least 2. Default
   * 8. With microbatches of one row gradients are accumulated, and the reference point is taken over the update. One
   * row alone will do for loss_type "apo_zero_unpaired".
   */
  readonly per_device_train_batch_size: number;
}

/** What `parseKtoConfig` knows beyond the schema: TRL's other options and the names of other products. */
export const ktoParseContext: ParseContext = { foreign: foreignTrlOptions, otherProducts: otherProductsNames };

/** Checks the options of `KtoTrainer`. */
export const trainerOptions = new TrainerParser<TrainerOptions>(ktoOptions, ktoParseContext, checkRunOptions);

/**
 * Checks options and fills in the defaults. Names may be aliases and in kebab-case; values may be text, as from a
 * command line or YAML ("true", "yes", "1e-4", "none").
 *
 * @param where tells where an option was set, to follow its name in messages, e.g. " in run.yaml"
 * @param told what was found wrong before, who is told of what has no effect, and how many ranks share each update
 * @throws ConfigError with a sentence for each: the option, its value and its range, or the nearest known option
 */
export function parseKtoConfig(
  input: Readonly<Record<string, unknown>>,
  where?: (name: string) => string,
  { ranks = 1, ...told }: Pick<ParseContext, "problems" | "onNote"> & { readonly ranks?: number } = {},
): KtoConfig {
  const context = { ...ktoParseContext, ...told, ...(where ? { where } : {}) };
  const config = checkRunConfig(parseOptions(ktoOptions, input, context), where);
  const { per_device_train_batch_size: size, gradient_accumulation_steps: accumulation } = config;
  const together = config.sync_every === undefined ? ranks : 1; // local updates have the rows of one rank
  if (size * accumulation * together < 2 && config.loss_type === "kto") {
    throw new ConfigError(
      `option "per_device_train_batch_size"${where?.("per_device_train_batch_size") ?? ""} is 1, but the reference point is measured on mismatched pairs, each prompt with the completion of another row, and an update of one row has none: use at least 2, or set gradient_accumulation_steps, over whose rows reference_point_scope "step" takes the reference point.`,
    );
  }
  const { model_name_or_path: model, ref_model_name_or_path: asked = model, adapter_name_or_path: adapter } = config;
  // Whoever names the base of an adapter as the reference means the base, not the adapter as it starts.
  const namesBase = adapter !== undefined && config.ref_model_name_or_path === model && config.reference === "auto";
  const decided: KtoConfig = {
    ...config,
    reference: namesBase ? "base" : config.reference,
    ref_model_name_or_path: asked,
  };
  referenceChoice(decided, {
    // A model folder may turn out to hold an adapter.
    adapter: config.use_peft || adapter !== undefined || decided.reference === "base",
    continued: adapter !== undefined,
    given: asked !== model,
  });
  return decided;
}
