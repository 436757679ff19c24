/** The options, the help text and the checks of `kto plan`. What it does is in commands/plan.ts. */
import * as z from "zod";
import { type KtoConfig, ktoOptions, ktoParseContext, parseKtoConfig } from "../../kto/options/kto.ts";
import { findOption } from "../../kto/options/names.ts";
import { optionGroup, optionInfos, reuse } from "../../kto/options/option.ts";
import { parseOptions } from "../../kto/options/parse.ts";
import { linkOf } from "../../kto/report/scaling.ts";
import { describe } from "../options/description.ts";

const { option } = optionGroup("Ranks");

const ranksOptions = z.strictObject({
  ranks: option(z.number().int().min(2).max(65536).default(16), {
    description: "tell of so many ranks, and of the powers of two below",
  }),
  link: option(
    z
      .string()
      .refine((text) => linkOf(text) !== undefined)
      .default("10Gb"),
    {
      description: "the network of one machine: 1Gb, 10Gb, 100Gb, ... in bits a second, or 12.5GB in bytes",
      expects: "a speed such as 1Gb, 10Gb, 100Gb or 12.5GB",
      placeholder: "speed",
    },
  ),
  ranks_per_machine: option(z.number().int().min(1).default(1), {
    description: "how many ranks share a machine and its link",
  }),
});

type RanksOptions = Readonly<z.output<typeof ranksOptions>>;
export type PlanConfig = KtoConfig & RanksOptions;

const schema = z.strictObject({
  ...ranksOptions.shape,
  ...ktoOptions.shape,
  // Nothing is written.
  output_dir: reuse(ktoOptions.shape.output_dir, { default: "." }),
});

export const planDescription = describe({
  examples: [
    "kto plan --model_name_or_path ./model --dataset_name feedback.jsonl --ranks 64 --link 10Gb",
    "kto plan --config run.yaml --ranks 8 --ranks_per_machine 8 --link 100Gb",
  ],
  schema,
  context: ktoParseContext,
  parse: ({ values, ...context }): PlanConfig => {
    const infos = optionInfos(ranksOptions);
    const isOwn = ([name]: [string, unknown]) => findOption(infos, name) !== undefined;
    const own = Object.fromEntries(Object.entries(values).filter(isOwn));
    const run = Object.fromEntries(Object.entries(values).filter((entry) => !isOwn(entry)));
    const ranks = parseOptions(ranksOptions, own, { where: context.where });
    return { ...parseKtoConfig({ output_dir: ".", ...run }, context.where, context), ...ranks };
  },
});
