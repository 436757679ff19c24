/** `kto train`: trains a model with KTO on feedback and writes a model folder. */
import { counted } from "../../errors.ts";
import type { Example } from "../../kto/data/types.ts";
import { weightAdvice } from "../../kto/data/weights.ts";
import { configAdvice } from "../../kto/options/advice.ts";
import { type KtoConfig, trainerOptions } from "../../kto/options/kto.ts";
import { KtoTrainer } from "../../kto/trainer.ts";
import { trainDescription } from "../descriptions/train.ts";
import { command } from "../options/command.ts";
import { loadForTraining } from "../session/models.ts";
import { checkKind } from "../session/rows.ts";
import { round, runTraining } from "../session/training.ts";
import { loadTrainingRows } from "../session/training-rows.ts";
import type { Output } from "../terminal/output.ts";
import { working } from "../terminal/work.ts";

export default command(trainDescription, runTrain);

async function runTrain(config: KtoConfig, output: Output): Promise<void> {
  await runTraining(config, output, async (device, shared) => {
    const { policy, reference, baseName, fineTuned } = await loadForTraining(device, config, output);
    const use = config.loss_type === "kto" ? "pairs" : "rows";
    const { examples, evalExamples } = await loadTrainingRows({ policy, reference }, config, use, output);
    await checkKind(config.output_dir, policy.adapter !== undefined);
    const inputs = {
      examples,
      ...(evalExamples ? { evalExamples } : {}),
      baseModel: baseName,
      ownsReference: true,
      ...shared,
      options: trainerOptions.partOf(config),
    };
    const trainer = await working(output, "preparing the run", () =>
      KtoTrainer.create({ policy, ...(reference ? { reference } : {}), ...inputs }),
    );
    if (trainer.precisionNote !== undefined) output.info(`bf16: ${trainer.precisionNote}`);
    const { referenceNote } = trainer;
    if (referenceNote !== undefined && trainer.referenceIsKept) output.debug(`reference: ${referenceNote}`);
    else if (referenceNote !== undefined) output.info(`reference: ${referenceNote}`);
    const { weights, rowsLeftOut } = trainer;
    const desirable = examples.filter(({ label }) => label).length;
    const undesirable = examples.length - desirable;
    const leftOut =
      rowsLeftOut === 0
        ? []
        : [
            `${rowsLeftOut} of ${examples.length} rows waits in each epoch, another one each time: it would stand alone in its microbatch, or update, and have no mismatched pair.`,
          ];
    const imbalance = weightAdvice(desirable, undesirable, weights.desirable, weights.undesirable);
    const facts = {
      rows: examples.length,
      desirable,
      undesirable,
      fineTuned,
      prompts: prompts(examples),
      evaluationPrompts: evalExamples && prompts(evalExamples),
      parameters: policy.layout.parameterCount,
      adapter: policy.adapter !== undefined,
      ranks: shared.ranks?.size,
    };
    return {
      trainer,
      method: "kto",
      policy,
      baseName,
      examples,
      evalExamples,
      data: `${counted(examples.length, "row")}, ${desirable} desirable (weight ${round(weights.desirable)}), ${undesirable} undesirable (weight ${round(weights.undesirable)})`,
      time: async (real) => {
        const models = await loadForTraining(real, config, output);
        const other = models.reference ? { reference: models.reference } : {};
        return await KtoTrainer.time({ policy: models.policy, ...other, ...inputs });
      },
      savings: () => KtoTrainer.savings({ policy, ...(reference ? { reference } : {}), ...inputs }),
      advice: [...leftOut, ...(imbalance ? [imbalance] : []), ...configAdvice(config, facts)],
    };
  });
}

function prompts(examples: readonly Example[]): number {
  return new Set(examples.map(({ promptIds }) => promptIds.join())).size;
}
