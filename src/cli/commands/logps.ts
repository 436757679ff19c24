/** `kto logps`: log-probability of each completion, and its log-ratio to a reference model, row by row. */

import * as z from "zod";
import type { Model } from "../../engine/model/model.ts";
import { NumericError } from "../../errors.ts";
import { placeOf } from "../../kto/data/types.ts";
import { completionLogProbs } from "../../kto/method/log-probs.ts";
import { ktoOptions } from "../../kto/options/kto.ts";
import { reuse } from "../../kto/options/option.ts";
import { parseOptions } from "../../kto/options/parse.ts";
import { command } from "../options/command.ts";
import { commonOptions, evalBatchSize, feedbackOptions, modelOptions, referenceModel } from "../options/shared.ts";
import { loadModel, loadReference } from "../session/models.ts";
import { loadExamples, withDevice } from "../session/rows.ts";
import type { Output } from "../terminal/output.ts";

const schema = z.strictObject({
  model_name_or_path: reuse(ktoOptions.shape.model_name_or_path, { description: "the model" }),
  ref_model_name_or_path: referenceModel,
  ...modelOptions,
  ...feedbackOptions,
  per_device_eval_batch_size: evalBatchSize,
  ...commonOptions,
});

export type LogpsOptions = Readonly<z.output<typeof schema>>;

export const logpsCommand = command({
  examples: ["kto logps --model_name_or_path ./model --dataset_name feedback.jsonl --json"],
  schema,
  parse: ({ values, where }) => parseOptions(schema, values, { where }),
  run: runLogps,
});

async function runLogps(options: LogpsOptions, output: Output): Promise<void> {
  await withDevice(options, output, async (device) => {
    const policy = await loadModel(device, options, output);
    const referenceName = options.ref_model_name_or_path;
    const reference =
      referenceName === undefined ? undefined : await loadReference(device, policy, options, referenceName, output);
    const { examples } = await loadExamples({ policy, reference }, options, output);
    const finiteLogProbs = async (model: Model) => {
      const values = await completionLogProbs(model, examples, options.per_device_eval_batch_size);
      const row = examples[values.findIndex((value) => !Number.isFinite(value))];
      if (row === undefined) return values;
      throw new NumericError(
        `${placeOf(row.source)}: the log-probability under ${model.folder} is not a finite number; the model's weights overflow f32.`,
      );
    };
    const logProbs = await finiteLogProbs(policy);
    const referenceLogProbs = reference ? await finiteLogProbs(reference) : undefined;
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
