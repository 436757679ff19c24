/**
 * The part of `kto train` and `kto sft` that is the same: a run from its options to a model folder, what it prints and
 * writes meanwhile, its plan, and its stop by a signal. The command decides what is trained and on which rows.
 */
import { isCheckpointLeftover, removeCheckpoints } from "../../engine/files/checkpoint-folders.ts";
import type { Device } from "../../engine/gpu/device.ts";
import { planningDevice } from "../../engine/gpu/memory-plan.ts";
import type { Model } from "../../engine/model/model.ts";
import { platform } from "../../engine/platform/index.ts";
import type { Communicator } from "../../engine/ranks/communicator.ts";
import { saveChatTemplate } from "../../engine/text/chat-template.ts";
import { ConfigError, counted, errorMessage, FileError, InterruptedError, mebibytes } from "../../errors.ts";
import type { Example } from "../../kto/data/types.ts";
import { BEST_FOLDER } from "../../kto/evaluation/best-model.ts";
import { drawsSamples } from "../../kto/options/evaluation.ts";
import { unusedLoraOptions } from "../../kto/options/lora.ts";
import { sizeInBytes } from "../../kto/options/output.ts";
import { computeNote } from "../../kto/options/quantization.ts";
import type { RunConfig } from "../../kto/options/run.ts";
import { precisionOf } from "../../kto/options/training.ts";
import { RUNS_FOLDER } from "../../kto/report/trackers/tensorboard.ts";
import { runVerdict } from "../../kto/report/verdict.ts";
import type { RunWork, TrainerCallbacks } from "../../kto/run/callbacks.ts";
import { EVENTS_FILE } from "../../kto/run/event-line.ts";
import { EXAMPLES_FILE } from "../../kto/run/example-line.ts";
import type { RunInputs } from "../../kto/run/inputs.ts";
import { LOCK_FILE, lockFolder, removeEmptyFolder } from "../../kto/run/lock.ts";
import { Publishing } from "../../kto/run/publishing.ts";
import { saveOrRescue } from "../../kto/run/rescue.ts";
import { requireCheckpoint } from "../../kto/run/resumption.ts";
import { ROWS_FILE } from "../../kto/run/row-line.ts";
import type { Run } from "../../kto/run/run.ts";
import { RUN_FILE } from "../../kto/run/run-facts.ts";
import { METRICS_FILE, SAMPLES_FILE } from "../../kto/run/run-files.ts";
import type { Savings } from "../../kto/run/savings.ts";
import type { RunTimes } from "../../kto/run/timing.ts";
import { TRACKERS_FILE, Tracking } from "../../kto/run/tracking.ts";
import { withRunDashboard } from "../server/run-dashboard.ts";
import { EventsFile } from "../terminal/events-file.ts";
import { ExamplesFile } from "../terminal/examples-file.ts";
import { isSameFile } from "../terminal/files.ts";
import { MetricsFile } from "../terminal/metrics-file.ts";
import type { Output } from "../terminal/output.ts";
import { type EndSignal, withSignals } from "../terminal/signals.ts";
import { type OutputPlace, summaryLines } from "../terminal/summary.ts";
import { ToldWork, working } from "../terminal/work.ts";
import { judgeOfRun, needOfWinRate, tellingUnhandled } from "./judge.ts";
import { formatOf } from "./models.ts";
import { tellPlan } from "./plan.ts";
import { adviseRanks, openRanks } from "./ranks.ts";
import { licenseOf, namedSource, shownOptions, shownSettings, writeCard, writeFacts } from "./results.ts";
import { checkOutputFolder, withDevice } from "./rows.ts";
import { RowTexts } from "./rows-file.ts";
import { SampleLog } from "./samples.ts";
import { runUpdates } from "./updates.ts";

/** A run that can begin. */
export interface ReadyRun {
  readonly trainer: Run;
  readonly policy: Model;
  readonly method: "kto" | "sft";
  /** The name or path of the base model, as the user gave it. */
  readonly baseName: string;
  /** The examples that are trained on. */
  readonly examples: readonly Example[];
  readonly evalExamples: readonly Example[] | undefined;
  /** One line about the rows, for people. */
  readonly data: string;
  readonly advice: readonly string[];
  /** Measures the run that was planned, on the real device. */
  readonly time: (device: Device) => Promise<RunTimes>;
  /** What would make the run smaller; of a run that was planned. */
  readonly savings: () => Promise<Savings>;
}

/** Inputs of the trainer that are the same for both commands. */
export type SharedInputs = Pick<RunInputs, "outputFolder" | "unlock" | "ranks" | "settings" | "ownMetrics"> &
  TrainerCallbacks;

/** Loads models and rows onto the device and creates the trainer. For a plan the device only counts memory. */
type Preparation = (device: Device, shared: SharedInputs) => Promise<ReadyRun>;

/** Trains a model and saves it. */
export async function runTraining(config: RunConfig, output: Output, prepare: Preparation): Promise<void> {
  await tellingUnhandled(config, output, () => train(config, output, prepare));
}

async function train(config: RunConfig, output: Output, prepare: Preparation): Promise<void> {
  const { output_dir } = config;
  const ranks = await openRanks(config, output);
  // Rank 0 alone reads and writes the folder.
  if (ranks.rank > 0) {
    await trainIn({ ...config, report_to: undefined, push_to_hub: false }, ranks, output, prepare, undefined);
    return;
  }
  const isNew = (await platform.exists(output_dir)) === undefined;
  await checkRunFolder(config);
  // Before models and rows are downloaded and loaded, which may take long.
  const unlock = config.dry_run ? undefined : await lockFolder(output_dir);
  try {
    await trainIn(config, ranks, output, prepare, unlock);
  } finally {
    unlock?.();
    if (isNew && !config.dry_run) await removeEmptyFolder(output_dir);
  }
}

async function trainIn(
  config: RunConfig,
  ranks: Communicator,
  output: Output,
  prepare: Preparation,
  unlock: (() => void) | undefined,
): Promise<void> {
  const { output_dir } = config;
  const writes = ranks.rank === 0;
  const warn = (sentence: string) => output.warning(sentence);
  const events = new EventsFile(output_dir, warn);
  output.listener = (level, text) => events.take(level, text);
  const stopping = new AbortController();
  const judged = await judgeOfRun(config, output, { signal: stopping.signal, isFirst: writes });
  const publishing = await publishingOf(config, warn);
  const told = new ToldWork(output);
  // A terminal shows what goes on from here; elsewhere the first news would be the adapter's, a second or two later.
  if (!output.streams.stderr.isTTY) output.info(`loading: ${config.model_name_or_path} and ${config.dataset_name}`);
  let run: Run | undefined;
  const trained = async (device: Device) => {
    // A plan runs the same code on a device that only counts memory, also more than there is.
    const target = config.dry_run ? planningDevice(device, { countsOn: true }) : device;
    const tracking = new Tracking({
      ...config,
      outputFolder: output_dir,
      config: shownOptions(config),
      onWarning: warn,
    });
    let samples: SampleLog | undefined;
    const examplesFile = new ExamplesFile(output_dir, warn);
    // As with the metrics, a full disk is no reason to lose the run.
    const writeSamples = async (step: number): Promise<void> => {
      try {
        await samples?.write(step);
      } catch (error) {
        if (!(error instanceof FileError)) throw error;
        warn(`The samples of step ${step} were not written: ${errorMessage(error)} The training goes on.`);
      }
    };
    let rowTexts: RowTexts | undefined;
    const ready = await prepare(target, {
      outputFolder: output_dir,
      unlock,
      ranks,
      settings: keptSettings(config),
      onWarning: warn,
      onStep: async ({ step, examples }) => {
        events.step = step;
        if (examples === undefined || !writes) return;
        await examplesFile.write(examples);
        await rowTexts?.write(examples);
      },
      onWork: ({ work, done, total }) => told.tell(WORKS[work], done, total),
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
    const { trainer, method, policy, baseName, examples, evalExamples, data, advice, time, savings } = ready;
    run = trainer;
    adviseRanks(trainer);
    samples = await SampleLog.create(policy, config, evalExamples, ranks, output);
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
      const planned = { config, trainer, device: target, ranks };
      await tellPlan(planned, await savings(), () => time(device), output);
      return;
    }
    const metricsFile = new MetricsFile(output_dir, warn);
    // Not earlier: a run that is refused must leave its folder as it was.
    if (config.resume_from_checkpoint !== false)
      output.info(`resumed: ${trainer.stepsDone} of ${counted(trainer.totalSteps, "update is", "updates are")} done`);
    else if (writes) await removeCheckpoints(output_dir);
    await samples?.start(trainer.stepsDone, trainer.finished ? undefined : needOfWinRate(config));
    if (writes) {
      const startedWith = {
        ...{ method, adapter: device.description, model: baseName, data, options: shownOptions(config) },
        ...{ parameters: policy.layout.parameterCount, trained: (policy.adapter ?? policy.layout).parameterCount },
        ...{ updates: trainer.totalSteps, updates_per_epoch: trainer.stepsPerEpoch },
      };
      await writeFacts(output_dir, startedWith, warn);
      await metricsFile.start(trainer.log);
      await events.start(trainer.stepsDone);
      const logged = await examplesFile.start(trainer.stepsDone);
      rowTexts = new RowTexts(output_dir, policy, examples, warn);
      await rowTexts.start(trainer.stepsDone, logged);
    }
    const started = performance.now();
    const { stepsDone: doneBefore } = trainer;
    if (trainer.stepsDone === 0) await writeSamples(0);
    const files = { tracking, metricsFile: writes ? metricsFile : undefined };
    const { last, lastEvaluation } = await runUpdates({ trainer, method }, files, output, () => {
      told.end(); // an evaluation is broken off
      stopping.abort();
    });
    if (!writes) return;
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
    await withSignals(goOn, async () => {
      await working(output, "saving the model", () => saveOrRescue(trainer, output_dir, save));
    });
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
    else {
      output.result(
        `trained ${counted(trainer.stepsDone, "update")}${doneBefore > 0 ? `, ${trainer.stepsDone - doneBefore} of them` : ""} in ${seconds.toFixed(1)} s; ${policy.adapter ? "the adapter" : "the model"} and ${METRICS_FILE} are in ${output_dir}`,
      );
      if (output.tells("info"))
        tellSummary({ trainer, method, isAdapter: policy.adapter !== undefined, samples }, config, output);
    }
    if (publishing !== undefined) output.info(`uploaded to ${await publishing.end()}`);
  };
  const served = { ...config, dashboard: config.dashboard && writes };
  await withRunDashboard(served, output, () => withDevice(config, output, trained))
    .catch((error: unknown) => {
      events.take(error instanceof InterruptedError ? "info" : "error", errorMessage(error));
      throw error;
    })
    .finally(async () => {
      told.end(); // of work that failed
      run?.free();
      await publishing?.settled();
      output.listener = undefined;
      await events.end();
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

/** Options that a run with a judge keeps when it is resumed. A run without a judge may be resumed with one. */
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
  const left = [
    ...[METRICS_FILE, EXAMPLES_FILE, ROWS_FILE, EVENTS_FILE, RUN_FILE, SAMPLES_FILE],
    ...[BEST_FOLDER, LOCK_FILE, TRACKERS_FILE, RUNS_FOLDER],
  ];
  const isLogging = (name: string) =>
    logging_dir !== undefined &&
    platform.absolutePath(platform.joinPath(output_dir, name)) === platform.absolutePath(logging_dir);
  await checkOutputFolder(
    config,
    (name) => resumesHere || left.includes(name) || isLogging(name) || isCheckpointLeftover(name),
  );
}

/** What the display says of work that a run tells of. */
const WORKS: Readonly<Record<RunWork["work"], string>> = {
  reference: "log-probs of the reference",
  evaluation: "evaluating",
};

/** The table of what the run came to, and where everything lies, behind its one-line result. */
function tellSummary(
  {
    trainer,
    method,
    isAdapter,
    samples,
  }: Pick<ReadyRun, "trainer" | "method"> & {
    readonly isAdapter: boolean;
    readonly samples: SampleLog | undefined;
  },
  config: RunConfig,
  output: Output,
): void {
  const { output_dir } = config;
  const inFolder = (name: string) => platform.joinPath(output_dir, name);
  const { lastCheckpoint } = trainer;
  const places: OutputPlace[] = [
    { what: isAdapter ? "adapter" : "model", path: output_dir },
    { what: "metrics", path: inFolder(METRICS_FILE) },
    ...(config.log_examples && method === "kto" ? [{ what: "examples", path: inFolder(EXAMPLES_FILE) }] : []),
    ...(samples ? [{ what: "samples", path: inFolder(SAMPLES_FILE) }] : []),
    ...(lastCheckpoint ? [{ what: "checkpoint", path: lastCheckpoint.path }] : []),
  ];
  output.report(summaryLines(runVerdict(trainer.log, method), places, output.columns));
}

/** A number of epochs, to two digits behind the point; less than one as a share of it. */
function epochs(count: number): string {
  return count < 1
    ? `${Number((100 * count).toPrecision(2))}% of an epoch`
    : counted(Number(count.toFixed(2)), "epoch");
}

export function round(value: number): number {
  return Number(value.toPrecision(4));
}
