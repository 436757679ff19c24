/**
 * The checkpoint that a run goes on from: one that is whole, and of this run. It is chosen before any work, since what
 * is computed before the run must come out as it did then. `checkpoints.ts` brings it back onto the device.
 */
import { checkpointDamage, listCheckpoints, unlistedFiles } from "../../engine/files/checkpoint-folders.ts";
import { Model } from "../../engine/model/model.ts";
import { platform } from "../../engine/platform/index.ts";
import { byFirst } from "../../engine/ranks/sums.ts";
import { ConfigError, counted, FileError, ModelFormatError, shown } from "../../errors.ts";
import type { Rank } from "../method/batch.ts";
import type { RunPlan } from "../method/run-plan.ts";
import { momentFormatOf, OPTIMIZERS } from "../options/training.ts";
import { warn } from "./callbacks.ts";
import { OPTIMIZER_FILE } from "./checkpoints.ts";
import { adapterOf, evaluatedRows, type Method, type RunInputs, ranksOf } from "./inputs.ts";
import type { StartDigests } from "./reference.ts";
import { digestOfExamples, kernelDigest, type RunState, readRunState } from "./state.ts";

export interface Resumption {
  /** The checkpoint's folder. */
  readonly path: string;
  readonly state: RunState;
}

/** Options that do not change what comes out of a step: a resumed run may have others than the run before. */
const MAY_CHANGE =
  /^(save_|logging_|log_examples|eval_(strategy|steps|on_start)|metric_for_best_model|greater_is_better|load_best|early_stopping|resume_|gradient_checkpointing|shard_optimizer|precompute_ref|overwrite_cache|max_steps|num_train_epochs)/;

/** What the values of reference_point_scope stand for. */
const rowsOf = { microbatch: "microbatch", step: "update" } as const;
/** What messages call the methods. */
const METHOD_NAMES = { kto: "KTO training", sft: "supervised fine-tuning" } as const;

/**
 * The checkpoint that `resume_from_checkpoint` names, or for true the last good one in the folder of the run; the
 * damaged ones after it are named in warnings. The device's tuner keeps to the kernels of that run from here on.
 *
 * @param digests of the models that this run starts with
 * @returns undefined for a run that is not resumed, and for a plan of a run
 * @throws FileError, ModelFormatError if there is none or the one that was named is damaged; ConfigError for options,
 * data or an adapter that are not those of the run that is resumed
 */
export async function resumption(
  inputs: RunInputs,
  method: Method,
  plan: RunPlan,
  digests: StartDigests,
): Promise<Resumption | undefined> {
  const { resume_from_checkpoint: from } = method.options;
  const { policy, outputFolder } = inputs;
  if (from === false || policy.device.counts) return undefined;
  if (outputFolder === undefined) {
    throw new ConfigError(
      'option "resume_from_checkpoint" is set, but there is no folder of the run that is resumed: give outputFolder.',
    );
  }
  const found = await byFirst(ranksOf(inputs), () =>
    typeof from === "string" ? named(from, outputFolder, inputs) : lastGood(outputFolder, inputs),
  );
  checkSame(found, inputs, method, plan);
  checkReferenceAdapter(found, digests.referenceAdapter);
  checkStart(found, inputs, method, digests);
  if (found.state.kernels !== kernelDigest()) {
    warn(
      inputs,
      `The checkpoint ${found.path} is of another version of kto-webgpu, whose kernels compute in another order: the run goes on, but its numbers will differ in their last digits from those of a run without a break.`,
    );
  }
  const { adapter } = found.state;
  const now = adapterOf(policy.device);
  if (adapter !== undefined && adapter !== now) {
    warn(
      inputs,
      `The run of ${found.path} was on the adapter "${adapter}" and goes on on "${now}", which rounds otherwise: its numbers will differ in their last digits from those of a run without a break.`,
    );
  }
  policy.device.tuner.adopt(tuningOf(found.state, plan.ranks));
  return found;
}

/**
 * The kernels that this rank's tuner chose in the run that is resumed. Ranks on other adapters, or that measured at
 * another time, chose others, and a sum has the same bits only if each keeps to its own.
 *
 * @returns rank 0's where there were as many ranks no more
 */
export function tuningOf(
  { ranks: before, tuning, tuningOfRanks }: Pick<RunState, "ranks" | "tuning" | "tuningOfRanks">,
  { rank, size }: Rank,
): Readonly<Record<string, string>> {
  return (before === size ? tuningOfRanks?.[rank] : undefined) ?? tuning;
}

/**
 * @returns a sentence without its end for a checkpoint that cannot be used
 * @throws FileError where there is none
 */
async function read(path: string, inputs: RunInputs): Promise<Resumption | string> {
  await requireCheckpoint(path);
  const damage = await checkpointDamage(path);
  if (damage !== undefined) return `The checkpoint ${path} is damaged: ${damage}`;
  if ((await platform.exists(platform.joinPath(path, OPTIMIZER_FILE))) !== "file") {
    return `The checkpoint ${path} has no ${OPTIMIZER_FILE} (it was saved with save_only_model), so the run cannot go on from it`;
  }
  const strangers = await unlistedFiles(path);
  const weights = strangers.find((name) => name.includes(".safetensors"));
  if (weights !== undefined) return `The checkpoint ${path} is damaged: its checksums do not list its ${weights}`;
  if (strangers.length > 0) {
    warn(inputs, `The checkpoint ${path} holds ${strangers.join(", ")}, which its checksums do not list.`);
  }
  try {
    return { path, state: await readRunState(path) };
  } catch (error) {
    if (!(error instanceof ModelFormatError || error instanceof FileError)) throw error;
    return `The checkpoint ${path} is damaged: ${error.message.replace(/\.$/, "")}`;
  }
}

/**
 * Whether something named as a checkpoint can be one, without a look into its files.
 *
 * @throws FileError that says what it is otherwise
 */
export async function requireCheckpoint(path: string): Promise<void> {
  if ((await platform.exists(path)) !== "folder") {
    throw new FileError(
      `There is no checkpoint "${path}"; resume_from_checkpoint names the folder of one, or is true for the last good one in output_dir.`,
    );
  }
  const last = (await listCheckpoints(path)).at(-1);
  if (last === undefined) return;
  throw new FileError(
    `"${path}" is no checkpoint but the folder of a run, which holds some; name one of them as resume_from_checkpoint, such as ${last.path}, or give true with this folder as output_dir.`,
  );
}

/**
 * The checkpoint of this path. Later ones in the folder of the run stay, since they may be wanted, and are named in a
 * warning: `resume_from_checkpoint true` would take the last of them.
 */
async function named(path: string, outputFolder: string, inputs: RunInputs): Promise<Resumption> {
  const found = await read(path, inputs);
  if (typeof found === "string") throw new ModelFormatError(`${found}; resume from another one.`);
  const { step } = found.state;
  // The one that was named may have another name than its step gives it.
  const others = (await listCheckpoints(outputFolder)).filter((other) => platform.joinPath(other.path) !== path);
  const later = others.filter((other) => other.step > step);
  const [last] = later.slice(-1);
  if (last !== undefined) {
    const names = later.map((other) => `checkpoint-${other.step}`);
    const listed = names.length > 4 ? [...names.slice(0, 2), "...", ...names.slice(-1)] : names;
    warn(
      inputs,
      `The run goes on from step ${step}, and ${outputFolder} holds what came after it before: ${listed.join(", ")}. Each is replaced when this run saves at its step; until then resume_from_checkpoint true would go on from ${last.path}, so remove those that you do not want.`,
    );
  }
  return found;
}

async function lastGood(folder: string, inputs: RunInputs): Promise<Resumption> {
  const unusable: string[] = [];
  for (const { path, step } of (await listCheckpoints(folder)).reverse()) {
    let found = await read(path, inputs);
    // A folder that was renamed would stand for later updates than it holds, at each time the run goes on.
    if (typeof found !== "string" && found.state.step !== step) {
      found = `The checkpoint ${path} is of step ${found.state.step}, which its name does not say`;
    }
    if (typeof found === "string") {
      unusable.push(found);
      continue;
    }
    for (const sentence of unusable) warn(inputs, `${sentence}; the last good one before it, ${path}, is used.`);
    return found;
  }
  for (const sentence of unusable) warn(inputs, `${sentence}.`);
  throw new FileError(
    `resume_from_checkpoint is true, but ${folder} has no ${unusable.length > 0 ? "good " : ""}checkpoint to go on from; leave it out to start from the beginning.`,
  );
}

/** Whether both are names of the same optimizer: fused, paged and plain AdamW are one here. */
function isSameOptimizer(name: string, before: unknown, after: unknown): boolean {
  if (name !== "optim") return false;
  const [then, now] = [before, after].map((one) => OPTIMIZERS.find((known) => known === one));
  return then !== undefined && now !== undefined && momentFormatOf({ optim: then }) === momentFormatOf({ optim: now });
}

/** What makes up an update beside the number of ranks. */
const SIZES: ReadonlySet<string> = new Set(["per_device_train_batch_size", "gradient_accumulation_steps"]);

/**
 * Whether updates hold the same rows as those of a run of another number of ranks.
 *
 * @throws ConfigError that says which options would make them the same
 */
function checkSameUpdates(
  path: string,
  { options, ranks }: RunState,
  { options: given, ranks: now, scope, isLocal }: RunPlan,
): void {
  if (isLocal) {
    throw new ConfigError(
      `The run of ${path} had ${counted(ranks, "rank")} that update by themselves (sync_every), each with its own rows and moments, and this one has ${now.size}: start ${ranks}.`,
    );
  }
  const [size, accumulation] = [
    Number(options.per_device_train_batch_size),
    Number(options.gradient_accumulation_steps),
  ];
  const { per_device_train_batch_size: sizeNow, gradient_accumulation_steps: accumulationNow } = given;
  const [rows, rowsNow] = [size * ranks, sizeNow * now.size];
  const same =
    scope === "step"
      ? rows * accumulation === rowsNow * accumulationNow
      : rows === rowsNow && accumulation === accumulationNow;
  if (same) return;
  const fits = Number.isInteger(rows / now.size);
  throw new ConfigError(
    `The run of ${path} had ${counted(ranks, "rank")} with per_device_train_batch_size ${size} and gradient_accumulation_steps ${accumulation}, and this one has ${counted(now.size, "rank")} with ${sizeNow} and ${accumulationNow}, so that its updates would hold other rows: ${fits ? `set per_device_train_batch_size ${rows / now.size} and gradient_accumulation_steps ${accumulation}` : `take a number of ranks that divides ${rows}`}.`,
  );
}

/** @throws ConfigError naming the option, or the data, that is another one than in the run that is resumed */
function checkSame(
  { path, state }: Resumption,
  inputs: RunInputs,
  { name: method, options: given }: Method,
  plan: RunPlan,
): void {
  if (state.method !== method) {
    throw new ConfigError(
      `The run of ${path} is ${METHOD_NAMES[state.method]} and this one is ${METHOD_NAMES[method]}, which cannot go on from it: give its model as model_name_or_path, and another output_dir.`,
    );
  }
  const options: Readonly<Record<string, unknown>> = { ...given };
  const settings = inputs.settings ?? {};
  // The values of a damaged file may nest too deeply to be written.
  const text = (value: unknown) => shown(value ?? null, Number.POSITIVE_INFINITY);
  const rows = evaluatedRows(inputs.evalExamples, given);
  const otherRanks = state.ranks !== plan.ranks.size;
  if (otherRanks) checkSameUpdates(path, state, plan);
  const comparesEvaluations = rows !== undefined && (state.evaluation?.lastStep ?? -1) >= 0;
  for (const [name, before] of Object.entries({ ...state.options, ...state.settings })) {
    if (otherRanks && SIZES.has(name)) continue;
    if (MAY_CHANGE.test(name) || (name === "per_device_eval_batch_size" && !comparesEvaluations)) continue;
    if (Object.hasOwn(settings, name) && settings[name] === undefined) continue;
    const after = Object.hasOwn(settings, name) ? settings[name] : options[name];
    if (text(before) === text(after) || isSameOptimizer(name, before, after)) continue;
    // The reference of an adapter was once always its base.
    const wasBase = ["auto", "adapter_off", "cached"].includes(String(before)) && state.referenceAdapter === undefined;
    if (name === "reference" && after === "base" && wasBase) continue;
    throw new ConfigError(
      `option "${name}" is ${text(after)}, but the run of ${path} had ${text(before)}, and a run that is resumed keeps it: set it back, or start in another output_dir.`,
    );
  }
  if (plan.isLocal && state.localUpdates === undefined) {
    throw new ConfigError(
      `The run of ${path} summed the gradients of each update, and with sync_every ranks would go on by themselves: leave it out, or start in another output_dir.`,
    );
  }
  if (state.pairsWithin !== plan.scope && given.gradient_accumulation_steps > 1) {
    throw new ConfigError(
      `The run of ${path} made its mismatched pairs within each ${rowsOf[state.pairsWithin]}, and this version of kto-webgpu makes them within each ${rowsOf[plan.scope]} (reference_point_scope "${plan.scope}"): start in another output_dir.`,
    );
  }
  if (state.data !== digestOfExamples(plan.examples)) {
    throw new ConfigError(
      `The data is not that of the run of ${path}: its rows, their order or their tokens changed; give the same data, or start in another output_dir.`,
    );
  }
  if (rows && state.evaluationData !== undefined && state.evaluationData !== digestOfExamples(rows)) {
    throw new ConfigError(
      `The rows to evaluate on are not those of the run of ${path}, so that its evaluations before and after could not be compared: give the same rows, set eval_strategy to "no", or start in another output_dir.`,
    );
  }
  const { totalSteps } = plan;
  if (totalSteps < state.totalSteps) {
    throw new ConfigError(
      `The run of ${path} was to have ${counted(state.totalSteps, "update")} and would now have ${totalSteps}: max_steps and num_train_epochs may grow when a run is resumed, not shrink.`,
    );
  }
  if (totalSteps > state.totalSteps) {
    warn(
      inputs,
      `The run was to have ${counted(state.totalSteps, "update")} and now has ${totalSteps}: the learning rate of the updates to come follows the new length.`,
    );
  }
}

/** @throws ConfigError where models that no checkpoint holds have other weights than in the run that is resumed */
function checkStart(
  { path, state }: Resumption,
  { policy }: RunInputs,
  { reference }: Method,
  now: StartDigests,
): void {
  const changed = (name: "startWeights" | "referenceWeights") =>
    state[name] !== undefined && now[name] !== undefined && state[name] !== now[name];
  const start = changed("startWeights");
  if (!start && !changed("referenceWeights")) return;
  const own = reference instanceof Model ? reference.folder : "";
  throw new ConfigError(
    `The weights of the ${start ? `model ${policy.folder}` : `reference model ${own}`} are not those that the run of ${path} started with, so that its rewards before and after could not be compared: give that model as it was then, or start in another output_dir.`,
  );
}

/** @throws ConfigError where the reference of the run that is resumed is another adapter than this run starts with */
function checkReferenceAdapter({ path, state }: Resumption, digest: string | undefined): void {
  if (digest === state.referenceAdapter) return;
  throw new ConfigError(
    state.referenceAdapter === undefined
      ? `The reference of the run of ${path} is the model without its adapter, and that of this run the adapter as it starts: set reference "base" to go on from it.`
      : `The adapter is not the one that the run of ${path} started from and has as its reference: give that adapter, as it was then, as adapter_name_or_path, or start in another output_dir.`,
  );
}
