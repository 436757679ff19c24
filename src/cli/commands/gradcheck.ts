/** `kto gradcheck`: the loss and every gradient of one microbatch, the GPU's against the float64 model's. */
import { writeSafetensors } from "../../engine/files/safetensors.ts";
import { NumericError } from "../../errors.ts";
import { type Example, placeOf } from "../../kto/data/types.ts";
import { checkGradients, type GradientCheck } from "../../kto/gradcheck.ts";
import { objectiveOptions } from "../../kto/method/objective.ts";
import { type GradcheckOptions, gradcheckDescription } from "../descriptions/gradcheck.ts";
import { command } from "../options/command.ts";
import { loadModel, loadReference } from "../session/models.ts";
import { loadExamples, requirePairs, withDevice } from "../session/rows.ts";
import { checkOutputFile } from "../terminal/files.ts";
import type { Output } from "../terminal/output.ts";
import { working } from "../terminal/work.ts";

/** Rows that are taken where max_samples does not say how many: they are one microbatch. */
const MOST_ROWS = 64;

export default command(gradcheckDescription, runGradcheck);

async function runGradcheck(options: GradcheckOptions, output: Output): Promise<void> {
  if (options.grads_out !== undefined) await checkOutputFile(options.grads_out);
  await withDevice(options, output, async (device) => {
    const policy = await loadModel(device, options, output);
    const reference = await loadReference(device, policy, options, options.ref_model_name_or_path, output);
    const { examples: all } = await loadExamples({ policy, reference }, options, output);
    const examples = options.max_samples === undefined ? all.slice(0, MOST_ROWS) : all;
    if (examples.length < all.length)
      output.info(`checking the first ${MOST_ROWS} of ${all.length} rows; max_samples takes another number of them`);
    if (options.loss_type === "kto") requirePairs(examples, options);
    const objective = objectiveOptions(options, examples);
    const check = await working(output, "checking gradients", async () => {
      const onCompare = () => output.info("comparing with the float64 model, in plain JavaScript ...");
      return await checkGradients({ policy, reference, examples, objective, tolerance: options.tolerance, onCompare });
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
