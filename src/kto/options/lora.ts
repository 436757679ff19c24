/** The options of LoRA, under TRL's names: spread into the trainer's. */
import * as z from "zod";
import { option } from "./parse.ts";

const group = "LoRA";
const count = z.number().int();

export const loraOptions = {
  use_peft: option(z.boolean().default(false), {
    group,
    description: "train a LoRA adapter over the frozen model, which is the reference of a new adapter, at no memory",
    expects: "true or false",
    aliases: ["use_lora"],
  }),
  lora_r: option(count.min(1).default(16), {
    group,
    description: "rank of the adapter's matrices",
    expects: "a whole number of at least 1",
    aliases: ["lora_rank"],
  }),
  lora_alpha: option(z.number().positive().default(32), {
    group,
    description: "the adapter's result is multiplied by lora_alpha / lora_r",
    expects: "a number above 0",
  }),
  lora_dropout: option(z.number().min(0).lt(1).default(0.05), {
    group,
    description: "share of the adapter's inputs left out in training, where disable_dropout is false",
    expects: "a number from 0 to below 1",
  }),
  lora_target_modules: option(z.array(z.string()).default([]), {
    group,
    description:
      "the linear layers that get an adapter, by name, or all-linear; PEFT's for the family if not given (q_proj and v_proj, or c_attn)",
    expects: 'names of modules such as q_proj, or "all-linear"',
    placeholder: "names",
    aliases: ["lora_target"],
  }),
  use_rslora: option(z.boolean().default(false), {
    group,
    description: "divide lora_alpha by the root of the rank",
    expects: "true or false",
  }),
  disable_dropout: option(z.boolean().default(true), {
    group,
    description: "train without dropout, also where lora_dropout is not 0 (TRL's default)",
    expects: "true or false",
  }),
  adapter_name_or_path: option(z.string().min(1).optional(), {
    group,
    description: "an adapter to go on with (PEFT folder); without it a new one is made",
    expects: "a folder with adapter_config.json",
    placeholder: "folder",
    aliases: ["lora_model_name_or_path"],
  }),
};

/**
 * A sentence on options of an adapter that were given although none is trained, as happens where `use_peft` was
 * forgotten: TRL ignores them as well. undefined where all is as it should be.
 */
export function unusedLoraOptions(config: Readonly<Record<string, unknown>>): string | undefined {
  if (config.use_peft === true) return undefined;
  // disable_dropout, whose default is not everywhere the same, asks for no adapter.
  const { disable_dropout: _, ...adapterOptions } = loraOptions;
  const given = Object.entries(adapterOptions).filter(
    ([name, schema]) => JSON.stringify(config[name]) !== JSON.stringify(schema.parse(undefined)),
  );
  if (given.length === 0) return undefined;
  const names = given.map(([name]) => name).join(", ");
  return `without use_peft no adapter is made, and the whole model is trained: ${names} ${given.length === 1 ? "has" : "have"} no effect.`;
}
