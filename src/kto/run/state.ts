/**
 * The state of a run in a checkpoint, beside weights and moments: JSON files that are read back bit by bit.
 * trainer_state.json has the keys of Hugging Face's, for whoever reads those; the others are ours.
 */
import * as z from "zod";
import { parseShallowJson } from "../../engine/files/json-file.ts";
import { platform } from "../../engine/platform/index.ts";
import { ModelFormatError } from "../../errors.ts";
import { kernelTexts, textOf } from "../../kernels/texts.ts";
import type { BatchExample } from "../method/batch.ts";
import type { RunOptions } from "../options/run.ts";
import { stepsBetween } from "../options/steps.ts";

export const TRAINER_STATE_FILE = "trainer_state.json";
/** Options, position and counts. */
export const RUN_STATE_FILE = "run_state.json";
/** What random numbers follow from. */
export const RANDOM_STATE_FILE = "rng_state.json";

/** One line of the metrics; null for a number that is none. */
export type LogLine = Readonly<Record<string, number | null>>;

const number = z.number();
const whole = z.number().int().min(0);
/** NaN and infinities are null in JSON. */
const metric = z.number().nullable();
const settings = z.record(z.string(), z.unknown());

/** Older checkpoints name the evaluations without an improvement otherwise. */
function withPresentName(selection: unknown): unknown {
  if (typeof selection !== "object" || selection === null || !("vain" in selection)) return selection;
  const { vain, ...rest } = selection;
  return { evaluationsWithoutImprovement: vain, ...rest };
}

const runState = z.object({
  version: z.literal(1),
  /** What the model was trained for; checkpoints of the first version do not say it. */
  method: z.enum(["kto", "sft"]).default("kto"),
  /** Updates done. */
  step: whole,
  totalSteps: whole,
  stepsPerEpoch: z.number().int().min(1),
  /** The rows among which mismatched pairs are made; earlier versions made them within microbatches always. */
  pairsWithin: z.enum(["microbatch", "step"]).default("microbatch"),
  /** How many ranks shared each microbatch; earlier versions had one. */
  ranks: z.number().int().min(1).default(1),
  /** Why the run ended early, if it did. */
  stopReason: z.string().optional(),
  /** What the host counts in the logging window; the device's sums lie in optimizer.safetensors. */
  counts: z.object({
    tokens: whole,
    rowsRun: whole,
    windowTokens: whole,
    windowCutPairs: whole,
    windowOuterNorm: number.optional(),
  }),
  /** Updates that ranks did by themselves since the last outer step; of a run with sync_every. */
  localUpdates: whole.optional(),
  lastMetrics: z.record(z.string(), metric).optional(),
  evaluation: z
    .object({
      selection: z.preprocess(
        withPresentName,
        z.object({
          metric: z.string().optional(),
          greaterIsBetter: z.boolean().optional(),
          best: z.object({ step: whole, value: number }).optional(),
          evaluationsWithoutImprovement: whole,
          margins: z.array(z.object({ step: whole, training: number, validation: number })),
          warned: z.boolean(),
        }),
      ),
      lastStep: whole.or(z.literal(-1)),
    })
    .optional(),
  /** Kernels that the device's tuner chose: with others, the last bits of a result may be others. */
  tuning: z.record(z.string(), z.string()).default({}),
  /** The kernels that each rank's tuner chose, if there were several ranks; older checkpoints have rank 0's alone. */
  tuningOfRanks: z.array(z.record(z.string(), z.string())).optional(),
  /** The adapter that the run was on, by name; older checkpoints do not say it. */
  adapter: z.string().optional(),
  /** SHA-256 of the kernels' texts, see `kernelDigest`; older checkpoints do not say it. */
  kernels: z.string().optional(),
  /** SHA-256 of the examples, in their order. */
  data: z.string(),
  /** SHA-256 of the adapter that is the reference, where an adapter that was trained before goes on. */
  referenceAdapter: z.string().optional(),
  /** SHA-256 of models that no checkpoint holds (`startDigests`); older checkpoints do not say them. */
  startWeights: z.string().optional(),
  referenceWeights: z.string().optional(),
  /** SHA-256 of the rows that the run evaluates on; older checkpoints do not say it. */
  evaluationData: z.string().optional(),
  /** All options of the trainer; `settings` is what else the caller wants to be the same. */
  options: z.looseObject({
    metric_for_best_model: z.string().optional(),
    greater_is_better: z.boolean().optional(),
    /** Earlier checkpoints do not have it: no schedule took parameters then. */
    lr_scheduler_kwargs: settings.default({}),
  }),
  settings,
});

/** run_state.json, and the lines of the metrics from trainer_state.json. */
export type RunState = z.output<typeof runState> & { readonly log: readonly LogLine[] };

const trainerState = z.object({ global_step: whole, log_history: z.array(z.record(z.string(), metric)) });

/** What trainer_state.json tells beyond the run's state. */
export interface TrainerStateFacts {
  readonly options: RunOptions;
  readonly best: { readonly step: number; readonly value: number } | undefined;
  /** The checkpoint of the best step, where there is one. */
  readonly bestCheckpoint: string | undefined;
}

/** trainer_state.json with the keys that transformers writes; those that mean nothing here are at their defaults. */
export function trainerStateText(state: RunState, { options, best, bestCheckpoint }: TrainerStateFacts): string {
  const json = {
    best_global_step: best?.step ?? null,
    best_metric: best?.value ?? null,
    best_model_checkpoint: bestCheckpoint ?? null,
    epoch: state.step / state.stepsPerEpoch,
    eval_steps: null,
    global_step: state.step,
    is_hyper_param_search: false,
    is_local_process_zero: true,
    is_world_process_zero: true,
    log_history: state.log,
    logging_steps: stepsBetween(options.logging_steps, state.totalSteps),
    max_steps: state.totalSteps,
    num_input_tokens_seen: state.counts.tokens,
    num_train_epochs: Math.ceil(options.num_train_epochs),
    save_steps: stepsBetween(options.save_steps, state.totalSteps),
    stateful_callbacks: {},
    total_flos: 0,
    train_batch_size: options.per_device_train_batch_size,
    trial_name: null,
    trial_params: null,
  };
  return `${JSON.stringify(json, null, 2)}\n`;
}

/** Writes a state's files into a folder. */
export async function writeRunState(folder: string, state: RunState, facts: TrainerStateFacts): Promise<void> {
  const { log: _, ...rest } = state;
  const random = {
    about: "No generator runs on from step to step: every draw follows from the seed, the epoch and the update.",
    seed: facts.options.seed,
    epoch: Math.floor(state.step / state.stepsPerEpoch),
    update: state.step,
  };
  const texts = {
    [TRAINER_STATE_FILE]: trainerStateText(state, facts),
    [RUN_STATE_FILE]: `${JSON.stringify(rest, null, 2)}\n`,
    [RANDOM_STATE_FILE]: `${JSON.stringify(random, null, 2)}\n`,
  };
  for (const [name, text] of Object.entries(texts)) {
    await platform.writeFileAtomic(platform.joinPath(folder, name), text);
  }
}

/** Reads them back. Throws ModelFormatError naming the file for what is malformed or contradicts itself; FileError. */
export async function readRunState(folder: string): Promise<RunState> {
  const state = await readJson(platform.joinPath(folder, RUN_STATE_FILE), runState);
  const trainer = await readJson(platform.joinPath(folder, TRAINER_STATE_FILE), trainerState);
  const randomFile = platform.joinPath(folder, RANDOM_STATE_FILE);
  const random = await readJson(randomFile, z.object({ seed: whole, update: whole }));
  for (const [file, step] of [
    [TRAINER_STATE_FILE, trainer.global_step],
    [RANDOM_STATE_FILE, random.update],
  ] as const) {
    if (step === state.step) continue;
    throw new ModelFormatError(
      `${platform.joinPath(folder, file)} is of step ${step} and ${RUN_STATE_FILE} of step ${state.step}.`,
    );
  }
  if (random.seed !== state.options.seed) {
    throw new ModelFormatError(`${randomFile} has the seed ${random.seed}, and the run ${String(state.options.seed)}.`);
  }
  const wrong = contradiction(state, trainer.log_history);
  if (wrong !== undefined) throw new ModelFormatError(`${platform.joinPath(folder, wrong)}.`);
  return { ...state, log: trainer.log_history };
}

/** Copies trainer_state.json, where there is one, into the folder of a model that is made of what the run trained. */
export async function copyTrainerState(from: string, into: string): Promise<void> {
  const path = platform.joinPath(from, TRAINER_STATE_FILE);
  if ((await platform.exists(path)) !== "file") return;
  await platform.writeFileAtomic(platform.joinPath(into, TRAINER_STATE_FILE), await platform.readText(path));
}

/** Whether the folder of a model or an adapter shows that supervised fine-tuning made it: kto sft, or TRL's. */
export async function showsFineTuning(folder: string): Promise<boolean> {
  const path = platform.joinPath(folder, TRAINER_STATE_FILE);
  if ((await platform.exists(path)) !== "file") return false;
  try {
    const { log_history } = await readJson(path, trainerState);
    return log_history.some((line) => "mean_token_accuracy" in line);
  } catch (error) {
    if (error instanceof ModelFormatError) return false; // another program's
    throw error;
  }
}

/** What contradicts itself in a state, in words that begin with the file's name. */
function contradiction(
  { step, totalSteps, counts, evaluation }: z.output<typeof runState>,
  log: readonly LogLine[],
): string | undefined {
  if (step > totalSteps) return `${RUN_STATE_FILE} is of step ${step} of ${totalSteps}`;
  const steps = {
    "evaluation.lastStep": evaluation?.lastStep ?? 0,
    "evaluation.selection.best.step": evaluation?.selection.best?.step ?? 0,
  };
  const later = Object.entries(steps).find(([, value]) => value > step);
  if (later) return `${RUN_STATE_FILE} is of step ${step}, but its ${later[0]} is ${later[1]}`;
  if (counts.windowTokens > counts.tokens) {
    return `${RUN_STATE_FILE} counts ${counts.windowTokens} tokens since the last line of the metrics, and ${counts.tokens} in all`;
  }
  const line = log.find((one) => !(Number(one.step) >= 0 && Number(one.step) <= step));
  return line && `${TRAINER_STATE_FILE} is of step ${step}, but has a line of the metrics of step ${String(line.step)}`;
}

async function readJson<S extends z.ZodType>(path: string, schema: S): Promise<z.output<S>> {
  const read = schema.safeParse(parseShallowJson(await platform.readText(path), path));
  if (read.success) return read.data;
  const [issue] = read.error.issues;
  throw new ModelFormatError(`${path}: ${issue?.path.join(".") || "it"} cannot be used (${issue?.message}).`);
}

let digestOfKernels: string | undefined;

/** SHA-256 of one text of each kernel: with other kernels, the last digits of a run's numbers may be others. */
export function kernelDigest(): string {
  if (digestOfKernels === undefined) {
    const hash = platform.sha256();
    for (const text of kernelTexts) hash.update(new TextEncoder().encode(textOf(text)));
    digestOfKernels = hash.digest();
  }
  return digestOfKernels;
}

/** SHA-256 of examples in their order: token ids, where prompts end, labels. */
/** SHA-256 of sequences of token ids, their lengths included. */
export function digestOfIds(sequences: readonly ArrayLike<number>[]): string {
  const hash = platform.sha256();
  for (const ids of sequences) {
    for (const words of [[ids.length], ids]) hash.update(new Uint8Array(Uint32Array.from(words).buffer));
  }
  return hash.digest();
}

export function digestOfExamples(examples: readonly BatchExample[]): string {
  const hash = platform.sha256();
  for (const { promptIds, completionIds, label } of examples) {
    const words = Uint32Array.from([promptIds.length, completionIds.length, label ? 1 : 0]);
    for (const ids of [words, promptIds, completionIds]) hash.update(new Uint8Array(Uint32Array.from(ids).buffer));
  }
  return hash.digest();
}
