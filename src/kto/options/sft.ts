/**
 * The options of supervised fine-tuning: those of every run, some with a text of their own, TRL's default of the
 * learning rate, and the sentences for options that belong to KTO or to parts of TRL's SFT that there are none of here.
 */
import * as z from "zod";
import { checkpointOptions } from "./checkpoint.ts";
import { evaluationOptions } from "./evaluation.ts";
import { judgeOptions } from "./judge.ts";
import { loraOptions } from "./lora.ts";
import { methodOptions, referenceModelOption } from "./method.ts";
import { modelOptions } from "./model.ts";
import { deviceOptions, outputOptions } from "./output.ts";
import { type ForeignOption, optionInfos, type ParseContext, parseOptions, reuse } from "./parse.ts";
import { checkRunConfig, type RunOptions, runOptionNames } from "./run.ts";
import { optimizerOptions, trainingOptions } from "./training.ts";
import { foreignTrlOptions, OFF, otherProductsNames } from "./trl.ts";

/** The options, in the order of the help text. */
export const sftOptions = z.strictObject({
  ...modelOptions,
  dataset_name: reuse(modelOptions.dataset_name, {
    description: "rows of prompt and completion, or of messages; of feedback only what is desirable, or chosen",
    expects: "a local file or the hub id of a data set",
  }),
  overwrite_cache: reuse(modelOptions.overwrite_cache, {
    description: "compute token ids anew, also those that the cache holds",
  }),
  ...trainingOptions,
  per_device_train_batch_size: reuse(trainingOptions.per_device_train_batch_size, {
    description: "rows in a microbatch",
    expects: "a whole number of at least 1",
  }),
  ...loraOptions,
  use_peft: reuse(loraOptions.use_peft, { description: "train a LoRA adapter over the frozen model" }),
  disable_dropout: reuse(
    loraOptions.disable_dropout.unwrap().default(false),
    { description: "train without dropout, also where lora_dropout is not 0 (TRL has this option for KTO only)" },
    loraOptions.disable_dropout,
  ),
  ...optimizerOptions,
  learning_rate: reuse(optimizerOptions.learning_rate.unwrap().default(2e-5), {}, optimizerOptions.learning_rate),
  ...evaluationOptions,
  ...judgeOptions,
  ...checkpointOptions,
  ...deviceOptions,
  ...outputOptions,
});

/** A complete, checked configuration. */
export type SftConfig = Readonly<z.output<typeof sftOptions>>;

/** The options of training itself, under TRL's names; ranges and defaults are those of the command line. */
export type SftTrainerOptions = RunOptions;

/** Their schema. */
export const sftTrainerOptions = sftOptions.pick(
  Object.fromEntries(runOptionNames.map((name) => [name, true])) as Record<(typeof runOptionNames)[number], true>,
);

/** What KTO has and a run without reference and labels has not. */
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
  dataset_kwargs: { harmless: OFF },
  eos_token: { harmless: OFF, remedy: "put it into tokenizer_config.json" },
  pad_token: { harmless: "any" },
};

/** What `parseSftConfig` knows beyond the schema. */
export const sftParseContext: ParseContext = {
  foreign: new Map([...foreignTrlOptions, ...Object.entries(foreign)]),
  otherProducts: otherProductsNames,
};

/** As `parseKtoConfig`. Throws ConfigError, one sentence, also for options of KTO. */
export function parseSftConfig(input: Readonly<Record<string, unknown>>, where?: (name: string) => string): SftConfig {
  const config = parseOptions(sftOptions, input, { ...sftParseContext, ...(where ? { where } : {}) });
  checkRunConfig(config, where);
  return config;
}
