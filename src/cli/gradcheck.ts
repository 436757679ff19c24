/** `kto gradcheck`: the loss and every gradient of one microbatch, the GPU's against the float64 reference's. */
import * as z from "zod";
import { ktoOptions } from "../kto/config.ts";
import { option, parseOptions } from "../kto/parse-options.ts";
import { command } from "./command.ts";
import type { Output } from "./output.ts";
import { commonOptions, referenceModel, reuse } from "./shared-options.ts";

const check = "Check";

const schema = z.strictObject({
  model_name_or_path: reuse(ktoOptions.shape.model_name_or_path, { description: "the model" }),
  ref_model_name_or_path: reuse(referenceModel, { description: "the reference model (default: the model itself)" }),
  dataset_name: reuse(ktoOptions.shape.dataset_name, {
    description: "the feedback; the whole file is one microbatch, in its order",
  }),
  max_length: ktoOptions.shape.max_length,
  beta: ktoOptions.shape.beta,
  desirable_weight: ktoOptions.shape.desirable_weight,
  undesirable_weight: ktoOptions.shape.undesirable_weight,
  loss_type: ktoOptions.shape.loss_type,
  grads_out: option(z.string().min(1).optional(), {
    group: check,
    description: "write the gradients under their Hugging Face names",
    expects: "a path that ends in .safetensors",
    placeholder: "file.safetensors",
  }),
  tolerance: option(z.number().positive().default(1e-3), {
    group: check,
    description: "largest relative error, in norm, that a parameter's gradient may have",
    expects: "a number above 0",
  }),
  ...commonOptions,
});

export type GradcheckOptions = Readonly<z.output<typeof schema> & { ref_model_name_or_path: string }>;

export const gradcheckCommand = command({
  name: "gradcheck",
  summary: "compare the GPU's gradients with the float64 reference",
  examples: ["kto gradcheck --model_name_or_path ./model --dataset_name rows.jsonl --grads_out grads.safetensors"],
  schema,
  parse: ({ values, where }): GradcheckOptions => {
    const options = parseOptions(schema, values, { where });
    return { ...options, ref_model_name_or_path: options.ref_model_name_or_path ?? options.model_name_or_path };
  },
  run: runGradcheck,
});

async function runGradcheck(_options: GradcheckOptions, _output: Output): Promise<void> {
  throw new Error("kto gradcheck is not wired yet");
}
