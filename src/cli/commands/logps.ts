/** `kto logps`: log-probability of each completion, and its log-ratio to a reference model, row by row. */
import type { Model } from "../../engine/model/model.ts";
import { NumericError } from "../../errors.ts";
import { placeOf } from "../../kto/data/types.ts";
import { completionLogProbs } from "../../kto/method/log-probs.ts";
import { checkSameRows } from "../../kto/run/same-run.ts";
import { type LogpsOptions, logpsDescription } from "../descriptions/logps.ts";
import { command } from "../options/command.ts";
import { loadModel, loadReference } from "../session/models.ts";
import { openRanks } from "../session/ranks.ts";
import { loadExamples, withDevice } from "../session/rows.ts";
import type { Output } from "../terminal/output.ts";
import { working } from "../terminal/work.ts";

export default command(logpsDescription, runLogps);

async function runLogps(options: LogpsOptions, output: Output): Promise<void> {
  const ranks = await openRanks(options, output);
  await withDevice(options, output, async (device) => {
    const policy = await loadModel(device, options, output);
    const referenceName = options.ref_model_name_or_path;
    const reference =
      referenceName === undefined ? undefined : await loadReference(device, policy, options, referenceName, output);
    const { examples } = await loadExamples({ policy, reference }, options, output);
    await checkSameRows(ranks, examples);
    const finiteLogProbs = async (model: Model) => {
      const values = await working(output, `log-probs of ${model.folder}`, async () => {
        return await completionLogProbs(model, examples, options.per_device_eval_batch_size, ranks);
      });
      const row = examples[values.findIndex((value) => !Number.isFinite(value))];
      if (row === undefined) return values;
      throw new NumericError(
        `${placeOf(row.source)}: the log-probability under ${model.folder} is not a finite number; the model's weights overflow f32.`,
      );
    };
    const logProbs = await finiteLogProbs(policy);
    const referenceLogProbs = reference ? await finiteLogProbs(reference) : undefined;
    if (ranks.rank > 0) return;
    examples.forEach(({ index, label, completionIds }, i) => {
      const logProb = logProbs[i] ?? Number.NaN;
      const referenceLogProb = referenceLogProbs?.[i] ?? null;
      const logRatio = referenceLogProb === null ? null : logProb - referenceLogProb;
      const tokens = completionIds.length;
      if (output.json) {
        output.jsonLine({ index, label, logp: logProb, ref_logp: referenceLogProb, log_ratio: logRatio, tokens });
        return;
      }
      const ratio = logRatio === null ? "" : `  log-ratio ${logRatio.toFixed(4)}`;
      output.result(`${index}  ${label ? "up  " : "down"}  log-prob ${logProb.toFixed(4)}${ratio}  tokens ${tokens}`);
    });
  });
}
