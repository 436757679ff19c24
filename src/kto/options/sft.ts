/**
 * The options of supervised fine-tuning: those of every run, some with a text of their own, TRL's default of the
 * learning rate, and the sentences for options of KTO and of TRL's SFT that mean nothing here.
 */
import * as z from "zod";
import { TrainerParser } from "./checked.ts";
import { methodOptions, referenceModelOption } from "./method.ts";
import { optionInfos, reuse } from "./option.ts";
import { type ForeignOption, type ParseContext, parseOptions } from "./parse.ts";
import { checkRunConfig, checkRunOptions, type RunOptions, runOptions } from "./run.ts";
import { foreignTrlOptions, otherProductsNames } from "./trl.ts";
import { OFF } from "./values.ts";

/** The options, in the order of the help text. */
export const sftOptions = z.strictObject({
  ...runOptions,
  dataset_name: reuse(runOptions.dataset_name, {
    description: "rows of prompt and completion, or of messages; of feedback only what is desirable, or chosen",
    expects: "a local file or the hub id of a data set",
  }),
  use_peft: reuse(runOptions.use_peft, { description: "train a LoRA adapter over the frozen model" }),
  disable_dropout: reuse(runOptions.disable_dropout, {
    description: "train without dropout, also where lora_dropout is not 0 (TRL has this option for KTO only)",
    default: false,
  }),
  learning_rate: reuse(runOptions.learning_rate, { default: 2e-5 }),
});

/** A complete, checked configuration. */
export type SftConfig = Readonly<z.output<typeof sftOptions>>;

/** The options of `SftTrainer`: those of every run, some with another default. */
export interface SftTrainerOptions extends RunOptions {
  /** The highest rate of the schedule. Default 2e-5, as in TRL's SFTConfig. */
  readonly learning_rate: number;
  /** Train without dropout, also where lora_dropout is not 0 (TRL has this option for KTO only). Default false. */
  readonly disable_dropout: boolean;
}

/** KTO's options, which a run without reference and labels cannot have. */
const ofKto = optionInfos(z.strictObject({ ...referenceModelOption, ...methodOptions })).flatMap(
  ({ name, about: { aliases = [] } }) => [name, ...aliases],
);

/** Options of TRL's `SFTConfig`, and of KTO. */
const foreign: Readonly<Record<string, ForeignOption>> = {
  ...Object.fromEntries(
    ofKto.map((name) => [
      name,
      {
        harmless: [null, false],
        reason: "belongs to KTO, and supervised fine-tuning has no reference and no labels",
        remedy: "leave it out, or run kto train",
      },
    ]),
  ),
  loss_type: {
    harmless: ["nll", null],
    reason: "is no loss of supervised fine-tuning",
    remedy: "it is the mean cross-entropy over completion tokens, leave it out, or run kto train for KTO",
  },
  assistant_only_loss: {
    harmless: OFF,
    reason: "is another choice of tokens",
    remedy: "the loss is over the last answer of a chat; give each answer as a row of its own, and leave it out",
  },
  completion_only_loss: {
    harmless: [true, null],
    reason: "is another choice of tokens",
    remedy: "the loss is over completion tokens only, leave it out",
  },
  eval_packing: { harmless: OFF, remedy: "leave it out; batches are packed without padding in any case" },
  packing: { harmless: OFF, remedy: "leave it out; batches are packed without padding in any case" },
  packing_strategy: { harmless: "any" },
  max_prompt_length: { harmless: OFF, remedy: "sequences are cut at their end, leave it out" },
  truncation_mode: { harmless: ["keep_start", null], remedy: "sequences are cut at their end, leave it out" },
  excess_length_strategy: { harmless: ["truncate", null], remedy: "sequences are cut at their end, leave it out" },
  dataset_kwargs: { harmless: OFF },
  eos_token: { harmless: OFF, remedy: "put it into tokenizer_config.json" },
};

/** What `parseSftConfig` knows beyond the schema. */
export const sftParseContext: ParseContext = {
  foreign: new Map([...foreignTrlOptions, ...Object.entries(foreign)]),
  otherProducts: otherProductsNames,
};

/** Checks the options of `SftTrainer`. */
export const sftTrainerOptions = new TrainerParser<SftTrainerOptions>(sftOptions, sftParseContext, checkRunOptions);

/** Reads options as `parseKtoConfig` does. Throws ConfigError, also for options of KTO. */
export function parseSftConfig(
  input: Readonly<Record<string, unknown>>,
  where?: (name: string) => string,
  told: Pick<ParseContext, "problems" | "onNote"> = {},
): SftConfig {
  return checkRunConfig(
    parseOptions(sftOptions, input, { ...sftParseContext, ...told, ...(where ? { where } : {}) }),
    where,
  );
}
