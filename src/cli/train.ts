/** `kto train`: KTO training from a feedback file and a model folder to a model folder. */
import { ConfigError } from "../errors.ts";
import {
  configAdvice,
  type KtoConfig,
  ktoOptions,
  ktoParseContext,
  parseKtoConfig,
  sizeInBytes,
  trainerOptionNames,
} from "../kto/config.ts";
import { weightAdvice } from "../kto/data/weights.ts";
import type { Metrics } from "../kto/metrics.ts";
import { command } from "./command.ts";
import type { Output } from "./output.ts";
import { ProgressLine } from "./progress.ts";

export const trainCommand = command({
  name: "train",
  summary: "align a model with thumbs-up/thumbs-down feedback (KTO)",
  examples: [
    "kto train --model_name_or_path ./model --dataset_name feedback.jsonl --output_dir ./aligned",
    "kto train --config run.yaml beta=0.2 learning_rate=1e-6",
  ],
  schema: ktoOptions,
  context: ktoParseContext,
  parse: ({ values, where }) => parseKtoConfig(values, where),
  run: runTrain,
});

const METRICS_FILE = "metrics.jsonl";

async function runTrain(config: KtoConfig, output: Output): Promise<void> {
  const { formatOf, loadExamples, loadForTraining, platform, requirePairs, withDevice } = await import("./session.ts");
  const { KtoTrainer } = await import("../kto/trainer.ts");
  const { output_dir } = config;
  // Before any work: a run must not end in a folder that cannot be written.
  await platform.checkWritable(output_dir);
  // The metrics of a run that was broken off hold nothing that another run could spoil.
  const present = (await platform.list(output_dir)).filter((name) => name !== METRICS_FILE);
  if (present.length > 0 && !config.overwrite_output_dir) {
    throw new ConfigError(
      `output_dir "${output_dir}" is not empty (it holds ${present[0]}${present.length > 1 ? ", …" : ""}); choose another folder or set overwrite_output_dir true.`,
    );
  }
  const metricsFile = platform.joinPath(output_dir, METRICS_FILE);
  await withDevice(config, output, async (device) => {
    const { policy, reference } = await loadForTraining(device, config);
    const { examples, report } = await loadExamples({ policy, reference }, config, output);
    requirePairs(examples, config);
    const options = Object.fromEntries(trainerOptionNames.map((name) => [name, config[name]]));
    const trainer = await KtoTrainer.create({ policy, ...(reference ? { reference } : {}), examples, options });
    const { desirable, undesirable } = report;
    output.info(
      `model: ${policy.layout.parameterCount} parameters${policy.adapter ? `, an adapter of ${policy.adapter.parameterCount} trained` : ""}; data: ${examples.length} rows, ${desirable} desirable (weight ${round(trainer.weights.desirable)}), ${undesirable} undesirable (weight ${round(trainer.weights.undesirable)})`,
    );
    output.info(
      `plan: ${trainer.totalSteps} updates, ${round(trainer.totalSteps / trainer.stepsPerEpoch)} epochs; device memory ${megabytes(device.totalBytes)}`,
    );
    if (trainer.rowsLeftOut > 0) {
      output.warning(
        `${trainer.rowsLeftOut} of ${examples.length} rows waits in each epoch, another one each time: it would be a microbatch of one row, which has no mismatched pair.`,
      );
    }
    const imbalance = weightAdvice(desirable, undesirable, trainer.weights.desirable, trainer.weights.undesirable);
    const facts = { rows: examples.length, desirable, undesirable, parameters: policy.layout.parameterCount };
    for (const advice of [...(imbalance ? [imbalance] : []), ...configAdvice(config, facts)]) output.warning(advice);

    const told = config.log_level === "info" || config.log_level === "debug";
    const line = told ? new ProgressLine(output.streams.stderr) : undefined;
    output.setLive(line);
    // Not earlier: a run that was refused leaves its folder empty, so that it can be started again.
    await platform.writeFileAtomic(metricsFile, "");
    const started = performance.now();
    let last: Metrics = {};
    try {
      for await (const { step, totalSteps, metrics } of trainer) {
        if (metrics) {
          last = metrics;
          await platform.appendText(metricsFile, `${JSON.stringify({ step, ...metrics })}\n`);
        }
        line?.update({ step, totalSteps, metrics: last, tokensPerSecond: last.tokens_per_second });
      }
    } finally {
      line?.finish();
      output.setLive(undefined);
    }
    const dtype = formatOf(config.save_dtype) ?? "f32";
    await trainer.save(output_dir, { dtype, maxShardBytes: sizeInBytes(config.max_shard_size) });
    const seconds = (performance.now() - started) / 1000;
    const summary = { output_dir, steps: trainer.stepsDone, train_runtime: seconds, ...last };
    if (output.json) output.jsonLine(summary);
    else
      output.result(`trained ${trainer.stepsDone} updates in ${seconds.toFixed(1)} s; the model is in ${output_dir}`);
  });
}

function round(value: number): string {
  return String(Number(value.toPrecision(4)));
}

function megabytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}
