/**
 * From inputs and a method to a run that holds its memory: checks, the checkpoint to go on from, the reference, then
 * everything on the device. `createRun` is the one way to a run, whatever it trains for; `timeRun` measures one.
 */

import { trainedLayout } from "../../engine/model/freezing.ts";
import { platform } from "../../engine/platform/index.ts";
import { MeasuredRanks } from "../../engine/ranks/measured.ts";
import { byFirst } from "../../engine/ranks/sums.ts";
import { RunEvaluation } from "../evaluation/run-evaluation.ts";
import type { RunPlan } from "../method/run-plan.ts";
import { Update } from "../method/update.ts";
import type { RunOptions } from "../options/run.ts";
import { momentFormatOf, precisionOf } from "../options/training.ts";
import { warn } from "./callbacks.ts";
import { checkHostMemory, withWhatFits } from "./fitting.ts";
import { type Method, planRun, type RunInputs, ranksOf } from "./inputs.ts";
import { LocalUpdates } from "./local-updates.ts";
import { lockFolder, removeEmptyFolder } from "./lock.ts";
import { LoggingWindow } from "./logging-window.ts";
import { RunRecord } from "./record.ts";
import { type CachedReference, cachedReference, liveReference, type StartDigests, startDigests } from "./reference.ts";
import { ReferenceSync } from "./reference-sync.ts";
import { type Resumption, resumption } from "./resumption.ts";
import { Run, type RunParts } from "./run.ts";
import { checkSameRun } from "./same-run.ts";
import { type Savings, savings } from "./savings.ts";
import { measureRun, type RunTimes } from "./timing.ts";

/**
 * Makes a run and, with `resume_from_checkpoint`, puts the checkpoint's weights into the policy. The output folder is
 * the run's until it is freed.
 *
 * @throws ConfigError, DatasetError for inputs that cannot be trained on; AdapterError where the device cannot hold the
 * run, with the microbatch that fits; FileError where another run has the output folder; what a checkpoint that cannot
 * be gone on from throws
 */
export async function createRun<Options extends RunOptions>(
  given: RunInputs,
  method: Method<Options>,
): Promise<Run<Options>> {
  const { ranks: others } = given;
  const inputs = others && others.size > 1 ? { ...given, ranks: new MeasuredRanks(others) } : given;
  const plan = planRun(inputs, method);
  const { outputFolder, unlock } = inputs;
  const ranks = ranksOf(inputs);
  if (method.options.shard_optimizer && ranks.size === 1) {
    warn(inputs, "shard_optimizer has no effect: one process alone keeps all of the optimizer's state.");
  }
  const folder = inputs.policy.device.counts || ranks.rank > 0 ? undefined : outputFolder;
  const isNew = folder !== undefined && (await platform.exists(folder)) === undefined;
  let release = unlock;
  await byFirst(ranks, async () => {
    release ??= await lockFolder(folder);
  });
  try {
    const { parts, resumed } = await prepared(inputs, method, plan, true);
    try {
      if (resumed) await parts.record.resume(resumed);
      else await parts.local?.begin();
    } catch (error) {
      parts.free();
      throw error;
    }
    return new Run(parts, release);
  } catch (error) {
    release?.();
    if (isNew) await removeEmptyFolder(folder);
    throw error;
  }
}

/**
 * How long the run of these inputs, or what is left of it, takes: allocates it, runs a little of it and frees it.
 * Writes nothing and leaves the policy's weights as they are.
 *
 * @throws what `createRun` throws
 */
export async function timeRun(inputs: RunInputs, method: Method): Promise<RunTimes> {
  const { parts, resumed } = await prepared(inputs, method, planRun(inputs, method), false);
  try {
    if (resumed) parts.record.adopt(resumed.state);
    return await measureRun(parts);
  } finally {
    parts.free();
  }
}

/**
 * Changes of options with which the run of these inputs would take less device memory. Nothing is allocated.
 *
 * @throws what `createRun` throws for inputs that cannot be planned
 */
export async function savingsOf(inputs: RunInputs, method: Method): Promise<Savings> {
  return await savings(inputs, method, (counted, changed) => {
    allocate(counted, changed, planRun(counted, changed), undefined, {});
  });
}

/**
 * The parts of a run with their memory, and the checkpoint that it goes on from.
 *
 * @param compute whether the log-probs that the cache of a reference lacks are computed; zeros stand for them otherwise
 */
async function prepared<Options extends RunOptions>(
  inputs: RunInputs,
  method: Method<Options>,
  plan: RunPlan,
  compute: boolean,
): Promise<{ parts: RunParts<Options>; resumed: Resumption | undefined }> {
  const { device } = inputs.policy;
  const digests = await startDigests(inputs.policy, method);
  if (!device.counts) await checkSameRun(inputs, method, digests);
  // First, since what is computed before the run must come from the kernels that the first run chose.
  const resumed = await resumption(inputs, method, plan, digests);
  const cached = await cachedReference(inputs, method, plan, compute);
  const explained = (error: unknown) =>
    withWhatFits(error, inputs, method, (smaller, counted) => {
      allocate(smaller, counted, planRun(smaller, counted), cached, {});
    });
  let parts: RunParts<Options>;
  try {
    parts = device.allocating(() => allocate(inputs, method, plan, cached, digests));
  } catch (error) {
    throw await explained(error);
  }
  try {
    checkHostMemory(device);
    await device.idle(); // an adapter that runs out of memory says so only now
  } catch (error) {
    parts.free();
    throw await explained(error);
  }
  return { parts, resumed };
}

/** Allocates all device memory of a run but the models that were given. */
function allocate<Options extends RunOptions>(
  inputs: RunInputs,
  method: Method<Options>,
  plan: RunPlan,
  cached: CachedReference | undefined,
  digests: StartDigests,
): RunParts<Options> {
  const { policy, evalExamples, outputFolder, ownMetrics, onWork } = inputs;
  const { options, objective } = method;
  const { totalSteps, stepsPerEpoch } = plan;
  const precision = precisionOf(options);
  const reference = liveReference(policy, method);
  const update = new Update({
    policy,
    reference: reference.source,
    shapes: plan.shapes(),
    // Whoever wants all rows at once may ask for more than there are.
    maxSize: Math.min(options.per_device_train_batch_size, plan.examples.length),
    maxUpdateRows: Math.min(
      options.per_device_train_batch_size * options.gradient_accumulation_steps,
      plan.examples.length,
    ),
    objective,
    optimizer: {
      beta1: options.adam_beta1,
      beta2: options.adam_beta2,
      epsilon: options.adam_epsilon,
      weightDecay: options.weight_decay,
      maxGradientNorm: options.max_grad_norm,
      momentFormat: momentFormatOf(options),
    },
    trained: trainedLayout(policy, options.freeze_parameters),
    precision,
    gradientCheckpointing: options.gradient_checkpointing,
    referencePointScope: method.referencePointScope,
    logsExamples: options.log_examples,
    dropoutSeed: options.disable_dropout ? undefined : options.seed,
    noise: options.neftune_noise_alpha ? { alpha: options.neftune_noise_alpha, seed: options.seed } : undefined,
    ...(plan.isLocal ? { localRanks: inputs.ranks } : { ranks: inputs.ranks }),
    shardOptimizer: options.shard_optimizer,
  });
  const local =
    options.sync_every === undefined ? undefined : localUpdates(inputs, update, options.sync_every, options);
  const sync = method.sync && new ReferenceSync(policy, reference.source, method.sync);
  const evaluation = RunEvaluation.create({
    policy, // without dropout
    reference: reference.source === "cached" ? (cached?.evaluation ?? policy.base) : reference.source,
    examples: evalExamples,
    objective,
    maxLength: plan.batchOptions.maxLength,
    precision,
    options,
    totalSteps,
    stepsPerEpoch,
    ownMetrics,
    onProgress: (done, total) => onWork?.({ work: "evaluation", done, total }),
    outputFolder,
    ranks: inputs.ranks,
  });
  const window = new LoggingWindow(update, ranksOf(inputs));
  const run = { inputs, method, plan, update, window, evaluation, digests, sync, local };
  const free = () => {
    update.free();
    local?.free();
    evaluation?.free();
    reference.free();
  };
  return { ...run, record: new RunRecord(run), cached, free };
}

function localUpdates(inputs: RunInputs, update: Update, every: number, options: RunOptions): LocalUpdates {
  const { outer_learning_rate: learningRate, outer_momentum: momentum } = options;
  return new LocalUpdates(ranksOf(inputs), update, { every, learningRate, momentum });
}
