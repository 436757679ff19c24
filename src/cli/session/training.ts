/**
 * The part of `kto train` and `kto sft` that is the same: a run from its options to a model folder, what it prints and
 * writes meanwhile, its plan, and its stop by a signal. The command decides what is trained and on which rows.
 */
import { isCheckpointLeftover, removeCheckpoints } from "../../engine/files/checkpoint-folders.ts";
import type { Device } from "../../engine/gpu/device.ts";
import { planningDevice } from "../../engine/gpu/memory-plan.ts";
import type { Model } from "../../engine/model/model.ts";
import { platform } from "../../engine/platform/index.ts";
import { saveChatTemplate } from "../../engine/text/chat-template.ts";
import { ConfigError, counted, errorMessage, FileError, InterruptedError, mebibytes } from "../../errors.ts";
import type { Example } from "../../kto/data/types.ts";
import { BEST_FOLDER } from "../../kto/evaluation/best-model.ts";
import type { Evaluation } from "../../kto/evaluation/run-evaluation.ts";
import type { Metrics } from "../../kto/method/metrics.ts";
import { drawsSamples } from "../../kto/options/evaluation.ts";
import { SECRET_OPTIONS } from "../../kto/options/hub.ts";
import { unusedLoraOptions } from "../../kto/options/lora.ts";
import { sizeInBytes } from "../../kto/options/output.ts";
import { computeNote } from "../../kto/options/quantization.ts";
import type { RunConfig } from "../../kto/options/run.ts";
import { precisionOf } from "../../kto/options/training.ts";
import { RUNS_FOLDER } from "../../kto/report/trackers/tensorboard.ts";
import type { TrainerCallbacks } from "../../kto/run/callbacks.ts";
import { useOf } from "../../kto/run/checkpoints.ts";
import type { RunInputs } from "../../kto/run/inputs.ts";
import { LOCK_FILE, lockFolder, removeEmptyFolder } from "../../kto/run/lock.ts";
import { Publishing } from "../../kto/run/publishing.ts";
import { saveOrRescue } from "../../kto/run/rescue.ts";
import { requireCheckpoint } from "../../kto/run/resumption.ts";
import type { Run } from "../../kto/run/run.ts";
import type { Saving } from "../../kto/run/savings.ts";
import type { RunTimes } from "../../kto/run/timing.ts";
import { TRACKERS_FILE, Tracking } from "../../kto/run/tracking.ts";
import { isSameFile } from "../terminal/files.ts";
import { METRICS_FILE, MetricsFile } from "../terminal/metrics-file.ts";
import type { Output } from "../terminal/output.ts";
import { ProgressLine } from "../terminal/progress.ts";
import { type EndSignal, withSignals } from "../terminal/signals.ts";
import { timeFacts, timeLines } from "../terminal/time-estimate.ts";
import { judgeOfRun, needOfWinRate, tellingUnhandled } from "./judge.ts";
import { formatOf } from "./models.ts";
import { licenseOf, namedSource, shownSettings, writeCard } from "./results.ts";
import { checkOutputFolder, withDevice } from "./rows.ts";
import { SAMPLES_FILE, SampleLog } from "./samples.ts";

/** A run that can begin. */
export interface ReadyRun {
  readonly trainer: Run;
  readonly policy: Model;
  readonly method: "kto" | "sft";
  /** The name or path of the base model, as the user gave it. */
  readonly baseName: string;
  readonly evalExamples: readonly Example[] | undefined;
  /** One line about the rows, for people. */
  readonly data: string;
  readonly advice: readonly string[];
  /** Measures the run that was planned, on the real device. */
  readonly time: (device: Device) => Promise<RunTimes>;
  /** What would make the run smaller; of a run that was planned. */
  readonly savings: () => Promise<readonly Saving[]>;
}

/** Inputs of the trainer that are the same for both commands. */
export type SharedInputs = Pick<RunInputs, "outputFolder" | "unlock" | "settings" | "ownMetrics"> & TrainerCallbacks;

/** Loads models and rows onto the device and creates the trainer. For a plan the device only counts memory. */
type Preparation = (device: Device, shared: SharedInputs) => Promise<ReadyRun>;

/** Trains a model and saves it. */
export async function runTraining(config: RunConfig, output: Output, prepare: Preparation): Promise<void> {
  await tellingUnhandled(config, output, () => train(config, output, prepare));
}

async function train(config: RunConfig, output: Output, prepare: Preparation): Promise<void> {
  const { output_dir } = config;
  const isNew = (await platform.exists(output_dir)) === undefined;
  await checkRunFolder(config);
  // Before models and rows are downloaded and loaded, which may take long.
  const unlock = config.dry_run ? undefined : await lockFolder(output_dir);
  try {
    await trainIn(config, output, prepare, unlock);
  } finally {
    unlock?.();
    if (isNew && !config.dry_run) await removeEmptyFolder(output_dir);
  }
}

async function trainIn(
  config: RunConfig,
  output: Output,
  prepare: Preparation,
  unlock: (() => void) | undefined,
): Promise<void> {
  const { output_dir } = config;
  const warn = (sentence: string) => output.warning(sentence);
  const stopping = new AbortController();
  const judged = await judgeOfRun(config, output, stopping.signal);
  const publishing = await publishingOf(config, warn);
  let run: Run | undefined;
  const work = withDevice(config, output, async (device) => {
    // A plan runs the same code on a device that only counts memory.
    const target = config.dry_run ? planningDevice(device) : device;
    const tracking = new Tracking({
      ...config,
      outputFolder: output_dir,
      config: Object.fromEntries(Object.entries(config).filter(([name]) => !SECRET_OPTIONS.includes(name))),
      onWarning: warn,
    });
    let samples: SampleLog | undefined;
    // As with the metrics, a full disk is no reason to lose the run.
    const writeSamples = async (step: number): Promise<void> => {
      try {
        await samples?.write(step);
      } catch (error) {
        if (!(error instanceof FileError)) throw error;
        warn(`The samples of step ${step} were not written: ${errorMessage(error)} The training goes on.`);
      }
    };
    const { trainer, method, policy, baseName, evalExamples, data, advice, time, savings } = await prepare(target, {
      outputFolder: output_dir,
      unlock,
      settings: keptSettings(config),
      onWarning: warn,
      ownMetrics: judged?.(async (step) => (await samples?.pairs(step)) ?? []),
      // Before the checkpoint of the step, so that a run resumed from there need not generate them again.
      onEvaluate: async ({ step }) => {
        if (step > 0) await writeSamples(step);
      },
      onCheckpoint: (checkpoint) => {
        output.info(`checkpoint: ${checkpoint.folder}`);
        publishing?.checkpoint(checkpoint);
      },
    });
    run = trainer;
    samples = await SampleLog.create(policy, config, evalExamples, output);
    const quantized = policy.quantizedFormats;
    output.info(
      `model: ${policy.layout.parameterCount} parameters${quantized.length > 0 ? ` (matrices as ${quantized.join(" and ")})` : ""}${policy.adapter ? `, an adapter of ${policy.adapter.parameterCount} trained` : ""}; data: ${data}`,
    );
    output.info(
      `plan: ${counted(trainer.totalSteps, "update")}, ${epochs(trainer.totalSteps / trainer.stepsPerEpoch)}; device memory ${mebibytes(target.totalBytes)}`,
    );
    const computing = computeNote(config, precisionOf(config));
    if (computing !== undefined) output.info(computing);
    const unused = policy.adapter ? undefined : unusedLoraOptions({ ...config });
    for (const sentence of [...(unused ? [unused] : []), ...advice]) output.warning(sentence);

    if (config.dry_run) {
      const smaller = await savings();
      const facts = { ...planFacts(trainer, target), savings: smaller };
      if (!output.json) reportPlan(config, trainer, target, output);
      let times: RunTimes | undefined;
      try {
        times = await time(device);
      } finally {
        // The plan is printed even if the run turns out not to fit.
        if (output.json) output.jsonLine({ ...facts, ...(times ? timeFacts(times) : {}) });
      }
      for (const line of output.json ? [] : timeLines(times)) output.result(line);
      if (!output.json) reportSavings(smaller, output);
      return;
    }
    const metricsFile = new MetricsFile(output_dir, warn);
    // Not earlier: a run that is refused must leave its folder as it was.
    if (config.resume_from_checkpoint === false) await removeCheckpoints(output_dir);
    else
      output.info(`resumed: ${trainer.stepsDone} of ${counted(trainer.totalSteps, "update is", "updates are")} done`);
    await samples?.start(trainer.stepsDone, trainer.finished ? undefined : needOfWinRate(config));
    await metricsFile.start(trainer.log);
    const started = performance.now();
    const { stepsDone: doneBefore } = trainer;
    if (trainer.stepsDone === 0) await writeSamples(0);
    const { last, lastEvaluation } = await runUpdates(trainer, tracking, metricsFile, output, () => stopping.abort());
    if (trainer.stopReason !== undefined) output.info(`stopped at step ${trainer.stepsDone}: ${trainer.stopReason}`);
    if (trainer.bestStep === 0) {
      output.warning(
        "no evaluation was better than the one before training, so the model is saved as it was; look at the evaluations before you trust the options or the rows.",
      );
    } else if (trainer.bestStep !== undefined) {
      output.info(`the model of step ${trainer.bestStep} is the best and is saved`);
    }
    const dtype = formatOf(config.save_dtype) ?? "f32";
    const maxShardBytes = sizeInBytes(config.max_shard_size);
    const save = async (folder: string) => {
      await trainer.save(folder, { dtype, baseModel: baseName, maxShardBytes });
      await trainer.saveState(folder);
      // The model must be used with the template that it was trained with.
      if (config.chat_template_path !== undefined) await saveChatTemplate(config.chat_template_path, folder);
    };
    // A run may have no checkpoint that holds what is now written.
    const goOn = (signal: EndSignal) =>
      output.warning(`${signal}: the training has ended and is being saved; once more to stop at once.`);
    await withSignals(goOn, () => saveOrRescue(trainer, output_dir, save));
    const card = {
      method,
      base: await namedSource(baseName),
      license: await licenseOf(policy.folder),
      isAdapter: policy.adapter !== undefined,
      datasets: [await namedSource(config.dataset_name)],
      data,
      settings: shownSettings(config),
      log: trainer.log,
    };
    await writeCard(output_dir, card, [`Trained on ${device.description}.`], output);
    const seconds = (performance.now() - started) / 1000;
    const summary = {
      output_dir,
      steps: trainer.stepsDone,
      train_runtime: seconds,
      ...last,
      ...lastEvaluation,
      ...(trainer.bestStep === undefined ? {} : { best_step: trainer.bestStep }),
      adapter: device.description,
      peak_device_bytes: device.peakBytes,
      peak_host_bytes: process.resourceUsage().maxRSS * 1024,
    };
    if (output.json) output.jsonLine(summary);
    else
      output.result(
        `trained ${counted(trainer.stepsDone, "update")}${doneBefore > 0 ? `, ${trainer.stepsDone - doneBefore} of them` : ""} in ${seconds.toFixed(1)} s; ${policy.adapter ? "the adapter" : "the model"} and ${METRICS_FILE} are in ${output_dir}`,
      );
    if (publishing !== undefined) output.info(`uploaded to ${await publishing.end()}`);
  });
  await work.finally(async () => {
    run?.free();
    await publishing?.settled();
  });
}

/** Where the run's results are uploaded, if they are. */
async function publishingOf(config: RunConfig, onWarning: (sentence: string) => void): Promise<Publishing | undefined> {
  if (!config.push_to_hub) return undefined;
  if (["checkpoint", "all_checkpoints"].includes(config.hub_strategy) && config.judge_request !== undefined) {
    throw new ConfigError(
      `hub_strategy "${config.hub_strategy}" would upload the settings of the run, and with them judge_request, which may hold a key: use "every_save" or "end".`,
    );
  }
  return await Publishing.prepare({ ...config, outputFolder: config.output_dir, onWarning });
}

/** Options beside the trainer's own that may not change when a run is resumed: models, LoRA, and encoding of rows. */
const KEPT_SETTINGS = [
  "model_name_or_path",
  "ref_model_name_or_path",
  "model_revision",
  "dtype",
  "adapter_name_or_path",
  "use_peft",
  "lora_r",
  "lora_alpha",
  "lora_dropout",
  "lora_target_modules",
  "use_rslora",
  "load_in_4bit",
  "load_in_8bit",
  "use_bnb_nested_quant",
  "quantize_embeddings",
  "append_eos",
  "text_as_chat",
  "prompt_format",
  "system_format",
  "completion_format",
  "chat_template_path",
  "chat_template_kwargs",
];

/** The same for a run with a judge. A run without one may be resumed with a judge. */
const KEPT_OF_JUDGE = ["judge", "judge_model", "judge_request"];

function keptSettings(config: RunConfig): Readonly<Record<string, unknown>> {
  const { judge, judge_model: model } = config;
  const names = (judge ?? model) ? [...KEPT_SETTINGS, ...KEPT_OF_JUDGE] : KEPT_SETTINGS;
  // null, so that an option that is added when resuming is noticed.
  const kept = Object.fromEntries(names.map((name) => [name, (config as Record<string, unknown>)[name] ?? null]));
  return { ...kept, eval_max_new_tokens: drawsSamples(config) ? config.eval_max_new_tokens : undefined };
}

/** Checks, before any work, that the folder of a new run is empty; that of a resumed run may hold its files. */
async function checkRunFolder(config: RunConfig): Promise<void> {
  const { output_dir, model_name_or_path, resume_from_checkpoint: from, logging_dir } = config;
  if (from === false && (await isSameFile(output_dir, model_name_or_path))) {
    throw new ConfigError(
      `output_dir "${output_dir}" is the folder of the model that is trained, whose files would be replaced; choose another folder.`,
    );
  }
  if (typeof from === "string") await requireCheckpoint(from);
  const resumesHere =
    from === true ||
    (from !== false && (await platform.exists(platform.joinPath(output_dir, platform.baseName(from)))) === "folder");
  // A run that ended before its first checkpoint cannot be resumed, so its files do not prevent a new start.
  const left = [METRICS_FILE, SAMPLES_FILE, BEST_FOLDER, LOCK_FILE, TRACKERS_FILE, RUNS_FOLDER];
  const isLogging = (name: string) =>
    logging_dir !== undefined &&
    platform.absolutePath(platform.joinPath(output_dir, name)) === platform.absolutePath(logging_dir);
  await checkOutputFolder(
    config,
    (name) => resumesHere || left.includes(name) || isLogging(name) || isCheckpointLeftover(name),
  );
}

/**
 * Runs the remaining updates and prints progress.
 *
 * @param onStop is called when a signal asks the run to stop
 * @returns the metrics of the last logging window and of the last evaluation
 * @throws InterruptedError after a signal, once the update in progress is done and saved
 */
async function runUpdates(
  trainer: Run,
  tracking: Tracking,
  metricsFile: MetricsFile,
  output: Output,
  onStop: () => void,
): Promise<{ last: Metrics; lastEvaluation: Metrics }> {
  const lastLine = (name: string) => (trainer.log.findLast((line) => name in line) ?? {}) as Metrics;
  const line = output.tells("info") ? new ProgressLine(output.streams.stderr) : undefined;
  output.setLive(line);
  const tell = (signal: EndSignal) => {
    trainer.stop();
    onStop();
    output.warning(
      `${signal}: stopping after this update, with a checkpoint (an evaluation is broken off, and made when the run goes on); once more to stop at once.`,
    );
  };
  try {
    return await withSignals(tell, async (signalled) => {
      const { stepsDone: before } = trainer;
      for await (const { step, totalSteps, metrics, evaluation } of tracking.follow(trainer)) {
        await metricsFile.update(trainer.log);
        if (evaluation) {
          output.info(evaluationLine(step, evaluation));
          if (evaluation.warning) output.warning(evaluation.warning);
        }
        if (step === before) continue; // an evaluation before the first update
        line?.update({ step, totalSteps, metrics, tokensPerSecond: metrics?.tokens_per_second });
      }
      await metricsFile.finish(trainer.log);
      const signal = signalled();
      if (signal !== undefined && trainer.interrupted) throw interruption(trainer, signal);
      const { step: _, ...last } = lastLine("loss");
      const { step: __, epoch: ___, ...lastEvaluation } = lastLine("eval_loss");
      return { last, lastEvaluation };
    });
  } finally {
    line?.finish();
    output.setLive(undefined);
  }
}

function interruption(trainer: Run, signal: EndSignal): InterruptedError {
  const { lastCheckpoint: saved, stepsDone, totalSteps } = trainer;
  const where = saved ? `${saved.path} ${useOf(saved)}` : "no checkpoint was due yet; start the run again";
  return new InterruptedError(`${signal} after ${stepsDone} of ${counted(totalSteps, "update")}: ${where}.`, signal);
}

/** An evaluation on one line. */
function evaluationLine(step: number, { metrics, isBest }: Evaluation): string {
  const shown = [
    "eval_loss",
    "eval_mean_token_accuracy",
    "eval_kl",
    "eval_rewards/margins",
    "eval_rewards/accuracies",
    "eval_win_rate",
  ].flatMap((name) => {
    const value = metrics[name];
    return value === undefined ? [] : [`${name} ${value.toFixed(4)}`];
  });
  return `evaluation at step ${step}: ${shown.join("  ")}${isBest ? "  (the best so far)" : ""}`;
}

/** The result of `dry_run`: updates, memory by category and the adapter's limit, disk space of checkpoints. */
function planFacts(
  { totalSteps, stepsPerEpoch, checkpointSpace }: Run,
  device: Device,
): Readonly<Record<string, unknown>> {
  return {
    dry_run: true,
    steps: totalSteps,
    steps_per_epoch: stepsPerEpoch,
    device_bytes: device.totalBytes,
    device_bytes_by_category: device.memory(),
    largest_buffer: device.largestBuffer,
    max_buffer_size: device.limits.maxBufferSize,
    host_bytes: hostBytes(device),
    checkpoint_bytes: checkpointSpace?.bytes ?? 0,
    most_checkpoints: checkpointSpace?.most ?? 0,
  };
}

/** Prints what would make the run smaller. */
function reportSavings(found: readonly Saving[], output: Output): void {
  if (found.length === 0) return;
  output.result("less device memory, each alone:");
  const width = Math.max(...found.map(({ change }) => change.length));
  for (const { change, bytes } of found) output.result(`  ${change.padEnd(width)}  ${mebibytes(bytes)} less`);
}

/** Prints the plan for people. */
function reportPlan(config: RunConfig, trainer: Run, device: Device, output: Output): void {
  const { totalSteps, stepsPerEpoch, checkpointSpace } = trainer;
  output.result(
    `${counted(totalSteps, "update")} of ${counted(config.per_device_train_batch_size * config.gradient_accumulation_steps, "row")}, ${stepsPerEpoch} in an epoch`,
  );
  for (const [category, bytes] of Object.entries(device.memory()))
    output.result(`  ${category.padEnd(18)} ${mebibytes(bytes)}`);
  output.result(`  ${"device, in all".padEnd(18)} ${mebibytes(device.totalBytes)}`);
  output.result(`  ${"host, about".padEnd(18)} ${mebibytes(hostBytes(device))}`);
  const { largestBuffer, limits } = device;
  output.result(
    `every buffer fits: the largest has ${mebibytes(largestBuffer.bytes)} (${largestBuffer.label}), and the adapter allows ${mebibytes(limits.maxBufferSize)}`,
  );
  if (checkpointSpace) {
    const { bytes, most } = checkpointSpace;
    const atOnce = most === 1 ? "there is one" : `at most ${most} at once, ${mebibytes(most * bytes)}`;
    output.result(`a checkpoint takes about ${mebibytes(bytes)} on the disk; ${atOnce}`);
  }
}

/**
 * Estimated memory of this process during the run: what it uses now, with Dawn and the data loaded, plus buffers that
 * move weights between files and device. A software adapter keeps the device's memory in the process too.
 */
function hostBytes(device: Device): number {
  return process.memoryUsage().rss + TRANSFER_BYTES + (device.isSoftware ? device.totalBytes + DRIVER_BYTES : 0);
}

/** Buffers for pieces of weights, whose memory Node gives back late. */
const TRANSFER_BYTES = 96 * 2 ** 20;
/** Compiled kernels of a software adapter. */
const DRIVER_BYTES = 128 * 2 ** 20;

/** A number of epochs, to two digits behind the point; less than one as a share of it. */
function epochs(count: number): string {
  return count < 1
    ? `${Number((100 * count).toPrecision(2))}% of an epoch`
    : counted(Number(count.toFixed(2)), "epoch");
}

export function round(value: number): number {
  return Number(value.toPrecision(4));
}
