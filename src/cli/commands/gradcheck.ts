/** `kto gradcheck`: the loss and every gradient of one microbatch, the GPU's against the float64 model's. */
import * as z from "zod";
import { writeSafetensors } from "../../engine/files/safetensors.ts";
import { NumericError } from "../../errors.ts";
import { type Example, placeOf } from "../../kto/data/types.ts";
import { solveWeights } from "../../kto/data/weights.ts";
import { checkGradients, type GradientCheck } from "../../kto/gradcheck.ts";
import { ktoOptions } from "../../kto/options/kto.ts";
import { option, reuse } from "../../kto/options/option.ts";
import { parseOptions } from "../../kto/options/parse.ts";
import { command } from "../options/command.ts";
import { commonOptions, feedbackOptions, modelOptions, referenceModel } from "../options/shared.ts";
import { loadModel, loadReference } from "../session/models.ts";
import { loadExamples, requirePairs, withDevice } from "../session/rows.ts";
import { checkOutputFile } from "../terminal/files.ts";
import type { Output } from "../terminal/output.ts";

const check = "Check";

const schema = z.strictObject({
  model_name_or_path: reuse(ktoOptions.shape.model_name_or_path, { description: "the model" }),
  ref_model_name_or_path: reuse(referenceModel, { description: "the reference model (default: the model itself)" }),
  ...feedbackOptions,
  dataset_name: reuse(ktoOptions.shape.dataset_name, {
    description: "the feedback; the whole file is one microbatch, in its order",
  }),
  ...modelOptions,
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

export const gradcheckCommand = command({
  examples: ["kto gradcheck --model_name_or_path ./model --dataset_name rows.jsonl --grads_out grads.safetensors"],
  schema,
  parse: ({ values, where }): GradcheckOptions => {
    const options = parseOptions(schema, values, { where });
    return { ...options, ref_model_name_or_path: options.ref_model_name_or_path ?? options.model_name_or_path };
  },
  run: runGradcheck,
});

async function runGradcheck(options: GradcheckOptions, output: Output): Promise<void> {
  if (options.grads_out !== undefined) await checkOutputFile(options.grads_out);
  await withDevice(options, output, async (device) => {
    const policy = await loadModel(device, options, output);
    const reference = await loadReference(device, policy, options, options.ref_model_name_or_path, output);
    const { examples } = await loadExamples({ policy, reference }, options, output);
    if (options.loss_type === "kto") requirePairs(examples, options);
    const weights = solveWeights(options.desirable_weight, options.undesirable_weight, examples);
    const check = await checkGradients({
      policy,
      reference,
      examples,
      objective: {
        beta: options.beta,
        desirableWeight: weights.desirable,
        undesirableWeight: weights.undesirable,
        lossType: options.loss_type,
      },
      tolerance: options.tolerance,
    });
    requireFinite(check, examples, options);
    if (options.grads_out !== undefined) await writeSafetensors(options.grads_out, check.gradients);
    const { comparison } = check;
    if (output.json) {
      output.jsonLine({
        loss: check.loss,
        kl: check.kl,
        kl_unclamped: check.klUnclamped,
        log_ratio: check.logRatio,
        kl_log_ratio: check.klLogRatio,
        grad_norm: check.gradientNorm,
        max_relative_error: comparison?.maxRelativeError ?? null,
        worst_parameter: comparison?.worstParameter ?? null,
        passed: comparison?.passed ?? null,
      });
    } else {
      output.result(`loss ${check.loss}  kl ${check.kl} (before the clamp ${check.klUnclamped})`);
      output.result(`gradient norm ${check.gradientNorm}, ${check.gradients.length} tensors`);
      if (comparison) {
        output.result(
          `${comparison.passed ? "passed" : "FAILED"}: largest relative error ${comparison.maxRelativeError.toExponential(2)} in ${comparison.worstParameter} (tolerance ${options.tolerance})`,
        );
      }
    }
    if (comparison === undefined) {
      output.warning(
        "the model and data are too large for the float64 model, which runs in plain JavaScript: gradients were computed but not compared; use fewer or shorter rows.",
      );
    } else if (!comparison.passed) {
      throw new NumericError(
        `The gradients disagree with the float64 model: ${comparison.worstParameter} is off by ${comparison.maxRelativeError.toExponential(2)} relative in norm (allowed ${options.tolerance}), the loss by ${comparison.lossError.toExponential(2)}.`,
      );
    }
  });
}

/** Without a finite loss there is no error to compare; the message names the row that it came from. */
function requireFinite(check: GradientCheck, examples: readonly Example[], options: GradcheckOptions): void {
  if (Number.isFinite(check.loss) && Number.isFinite(check.gradientNorm)) return;
  const row = examples[check.logRatio.findIndex((ratio) => !Number.isFinite(ratio))];
  const where = row === undefined ? options.dataset_name : placeOf(row.source);
  throw new NumericError(
    `${where}: the loss is ${check.loss} and the gradient's norm ${check.gradientNorm}: the weights of ${options.model_name_or_path} or ${options.ref_model_name_or_path} overflow f32.`,
  );
}
