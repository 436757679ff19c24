/** The options of LoRA, under TRL's and PEFT's names. */
import * as z from "zod";
import type { LORA_BIASES } from "../../engine/model/lora-modules.ts";
import { optionGroup } from "./option.ts";

const { option, trainerOption } = optionGroup("LoRA");

export const loraOptions = {
  use_peft: option(z.boolean().default(false), {
    description: "train a LoRA adapter over the frozen model, which is the reference of a new adapter, at no memory",
    aliases: ["use_lora"],
  }),
  lora_r: option(z.number().int().min(1).default(16), {
    description: "rank of the adapter's matrices",
    aliases: ["lora_rank"],
  }),
  lora_alpha: option(z.number().positive().default(32), {
    description: "the adapter's result is multiplied by lora_alpha / lora_r",
  }),
  lora_dropout: option(z.number().min(0).lt(1).default(0.05), {
    description: "share of the adapter's inputs left out in training, where disable_dropout is false",
  }),
  lora_target_modules: option(z.array(z.string()).default([]), {
    description:
      "the layers that get an adapter, by name, or all-linear, which leaves out embedding and head; PEFT's for the family if not given (q_proj and v_proj, or c_attn)",
    expects: 'names of modules such as q_proj, or "all-linear"',
    placeholder: "names",
    aliases: ["lora_target"],
  }),
  lora_exclude_modules: option(z.array(z.string().min(1)).default([]), {
    description: "targets that get no adapter all the same, by the ends of their names",
    expects: "names of modules such as k_proj",
    placeholder: "names",
    aliases: ["exclude_modules"],
  }),
  lora_layers_to_transform: option(z.array(z.coerce.number().int().min(0)).default([]), {
    description: "layers that get an adapter, by number from 0; all if not given",
    expects: "whole numbers of at least 0",
    placeholder: "n",
    aliases: ["layers_to_transform", "peft_layers_to_transform"],
  }),
  lora_layers_pattern: option(z.array(z.string().min(1)).default([]), {
    description:
      "what stands before a layer's number in names of modules, where it is not clear (PEFT's layers_pattern)",
    expects: "names such as layers",
    placeholder: "names",
    aliases: ["layers_pattern", "peft_layers_pattern"],
  }),
  lora_rank_pattern: option(z.record(z.string().min(1), z.number().int().min(1)).default({}), {
    description: "other ranks by regular expressions for the ends of module names; the first that matches counts",
    expects: 'whole numbers of at least 1 by pattern, such as {"layers.0.self_attn.q_proj": 32}',
    aliases: ["rank_pattern"],
  }),
  lora_alpha_pattern: option(z.record(z.string().min(1), z.number().positive()).default({}), {
    description: "other values of lora_alpha, in the same way",
    expects: 'numbers above 0 by pattern, such as {"layers.0.self_attn.q_proj": 64}',
    aliases: ["alpha_pattern"],
  }),
  use_rslora: option(z.boolean().default(false), { description: "divide lora_alpha by the root of the rank" }),
  use_dora: option(z.boolean().default(false), {
    description:
      "DoRA: train the length of each output's row of weights apart from the adapter, which changes its direction; one product more a layer in the backward pass",
  }),
  lora_modules_to_save: option(z.array(z.string().min(1)).default([]), {
    description:
      "modules that are trained whole beside the adapter, and saved with it, by the ends of their names, such as lm_head or embed_tokens; they take gradients and moments as in full training",
    expects: "names of modules such as lm_head",
    placeholder: "names",
    aliases: ["modules_to_save"],
  }),
  bias: option(z.enum(["none", "all", "lora_only"] satisfies typeof LORA_BIASES).default("none"), {
    description: "the base's biases that are trained too, as in PEFT: none, all, or those of the adapter's targets",
  }),
  disable_dropout: trainerOption(z.boolean().default(true), {
    description: "train without dropout, also where lora_dropout is not 0 (TRL's default)",
  }),
  adapter_name_or_path: option(z.string().min(1).optional(), {
    description: "an adapter to go on with (PEFT folder); without it a new one is made",
    expects: "a folder with adapter_config.json",
    placeholder: "folder",
    aliases: ["lora_model_name_or_path"],
  }),
};

/**
 * A sentence that names options of an adapter which were given although none is trained, most likely because `use_peft`
 * was forgotten (TRL ignores them as well); undefined where there is none.
 */
export function unusedLoraOptions(config: Readonly<Record<string, unknown>>): string | undefined {
  if (config.use_peft === true) return undefined;
  // disable_dropout asks for no adapter, and its default is the command's.
  const { disable_dropout: _, ...adapterOptions } = loraOptions;
  const given = Object.entries(adapterOptions).filter(
    ([name, schema]) => JSON.stringify(config[name]) !== JSON.stringify(schema.parse(undefined)),
  );
  if (given.length === 0) return undefined;
  const names = given.map(([name]) => name).join(", ");
  return `without use_peft no adapter is made, and the whole model is trained: ${names} ${given.length === 1 ? "has" : "have"} no effect.`;
}
