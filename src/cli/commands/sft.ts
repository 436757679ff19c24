/** `kto sft`: supervised fine-tuning on completions to be imitated, the stage before KTO. Writes a model folder. */
import { counted } from "../../errors.ts";
import { sftAdvice } from "../../kto/options/advice.ts";
import { type SftConfig, sftTrainerOptions } from "../../kto/options/sft.ts";
import { SftTrainer } from "../../kto/sft-trainer.ts";
import { sftDescription } from "../descriptions/sft.ts";
import { command } from "../options/command.ts";
import { loadPolicy } from "../session/models.ts";
import { checkKind } from "../session/rows.ts";
import { runTraining } from "../session/training.ts";
import { loadTrainingRows } from "../session/training-rows.ts";
import type { Output } from "../terminal/output.ts";
import { working } from "../terminal/work.ts";

export default command(sftDescription, runSft);

async function runSft(config: SftConfig, output: Output): Promise<void> {
  await runTraining(config, output, async (device, shared) => {
    const { policy, baseName } = await loadPolicy(device, config, output);
    const models = { policy, reference: undefined };
    const { examples, evalExamples } = await loadTrainingRows(models, config, "imitation", output);
    await checkKind(config.output_dir, policy.adapter !== undefined);
    const inputs = {
      examples,
      ...(evalExamples ? { evalExamples } : {}),
      baseModel: baseName,
      ...shared,
      options: sftTrainerOptions.partOf(config),
    };
    const trainer = await working(output, "preparing the run", () => SftTrainer.create({ policy, ...inputs }));
    const tokens = examples.reduce((sum, { completionIds }) => sum + completionIds.length, 0);
    const facts = {
      rows: examples.length,
      parameters: policy.layout.parameterCount,
      adapter: policy.adapter !== undefined,
      ranks: shared.ranks?.size,
    };
    return {
      trainer,
      method: "sft",
      policy,
      baseName,
      examples,
      evalExamples,
      data: `${counted(examples.length, "row")} with ${counted(tokens, "completion token")}`,
      time: async (real) => {
        const { policy: own } = await loadPolicy(real, config, output);
        return await SftTrainer.time({ policy: own, ...inputs });
      },
      savings: () => SftTrainer.savings({ policy, ...inputs }),
      advice: sftAdvice(config, facts),
    };
  });
}
