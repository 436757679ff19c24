/** The options, the help text and the checks of `kto gradcheck`. What it does is in commands/gradcheck.ts. */
import * as z from "zod";
import { ktoOptions } from "../../kto/options/kto.ts";
import { option, reuse } from "../../kto/options/option.ts";
import { parseOptions } from "../../kto/options/parse.ts";
import { describe } from "../options/description.ts";
import { commonOptions, feedbackOptions, loadedModelOptions, referenceModel } from "../options/shared.ts";

const check = "Check";

const schema = z.strictObject({
  model_name_or_path: reuse(ktoOptions.shape.model_name_or_path, { description: "the model" }),
  ref_model_name_or_path: reuse(referenceModel, { description: "the reference model (default: the model itself)" }),
  ...feedbackOptions,
  dataset_name: reuse(ktoOptions.shape.dataset_name, {
    description: "the feedback; its first rows, 64 unless max_samples says how many, are one microbatch in their order",
  }),
  ...loadedModelOptions,
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
  }),
  ...commonOptions,
});

export type GradcheckOptions = Readonly<z.output<typeof schema> & { ref_model_name_or_path: string }>;

export const gradcheckDescription = describe({
  examples: ["kto gradcheck --model_name_or_path ./model --dataset_name rows.jsonl --grads_out grads.safetensors"],
  schema,
  parse: ({ values, ...context }): GradcheckOptions => {
    const options = parseOptions(schema, values, context);
    return { ...options, ref_model_name_or_path: options.ref_model_name_or_path ?? options.model_name_or_path };
  },
});
