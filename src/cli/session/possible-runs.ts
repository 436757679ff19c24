/**
 * What an adapter could train with a model: runs of `kto train`, each allocated on a device that only counts, as for
 * `dry_run`. Of the model only config.json and the headers of its weights are read.
 */
import type { Device } from "../../engine/gpu/device.ts";
import { planningDevice } from "../../engine/gpu/memory-plan.ts";
import type { ModelHeaders } from "../../engine/hub/resolve.ts";
import { AdapterError, ConfigError, ModelFormatError } from "../../errors.ts";
import { parseKtoConfig, trainerOptions } from "../../kto/options/kto.ts";
import { checkHostMemory } from "../../kto/run/fitting.ts";
import { KtoTrainer } from "../../kto/trainer.ts";
import type { Output } from "../terminal/output.ts";
import { loadForTraining } from "./models.ts";

/** What is trained, and the options that say so. */
export const TRAININGS = {
  full: {},
  LoRA: { use_peft: true },
  QLoRA: { use_peft: true, load_in_4bit: true },
} as const;
export type Training = keyof typeof TRAININGS;

/** Tokens of each row; half of them are the answer's. */
export const ROW_TOKENS = [512, 1024, 2048] as const;
/** The lengths that a model of this context can read; its context alone where all are longer. */
export function rowTokensOf(contextLength: number): readonly number[] {
  const readable = ROW_TOKENS.filter((tokens) => tokens <= contextLength);
  return readable.length > 0 ? readable : [contextLength];
}

/** Rows of a microbatch. */
export const MICROBATCHES = [1, 4] as const;
/** Rows of an update, whatever its microbatches. */
const UPDATE_ROWS = 8;

/** A run in numbers. */
export interface PossibleRun {
  readonly training: Training;
  readonly row_tokens: number;
  readonly per_device_train_batch_size: number;
  readonly gradient_accumulation_steps: number;
  /** Null where a part of the run is larger than the adapter allows, or where the model cannot be trained so. */
  readonly device_bytes: number | null;
  /** Whether the adapter allows every buffer and, where its memory is the host's, the host has as much. */
  readonly fits: boolean;
  /** Why it does not fit, a sentence; null if it does. */
  readonly reason: string | null;
}

export interface PossibleRuns {
  readonly model_name_or_path: string;
  readonly parameters: number;
  /** Tokens that the model can read; longer rows are no runs. */
  readonly context_length: number;
  /** In the order of the trainings, then of the lengths of rows, then of the microbatches. */
  readonly runs: readonly PossibleRun[];
}

/**
 * @param device the adapter's, or one with its limits; nothing is allocated on it
 * @throws ModelFormatError for a folder that is no model
 */
export async function possibleRuns(
  device: Device,
  name: string,
  { folder, files }: ModelHeaders,
  output: Output,
): Promise<PossibleRuns> {
  let facts: { parameters: number; context_length: number } | undefined;
  const runs: PossibleRun[] = [];
  for (const training of Object.keys(TRAININGS) as Training[]) {
    const planned = planningDevice(device);
    const first = sizes(training, ROW_TOKENS[0], MICROBATCHES[0]);
    const loaded = await orReason(() => loadForTraining(planned, { ...configOf(folder, first), files }, output));
    if (typeof loaded !== "string") {
      const { config, layout } = loaded.policy;
      facts ??= { parameters: layout.parameterCount, context_length: config.contextLength };
    }
    const lengths = facts ? rowTokensOf(facts.context_length) : ROW_TOKENS;
    for (const run of lengths.flatMap((tokens) => MICROBATCHES.map((rows) => sizes(training, tokens, rows)))) {
      const bytes = typeof loaded === "string" ? loaded : await orReason(() => bytesOf(planned, loaded, folder, run));
      if (typeof bytes === "string") runs.push({ ...run, device_bytes: null, fits: false, reason: bytes });
      else runs.push({ ...run, ...bytes });
    }
  }
  if (facts === undefined) {
    throw new ModelFormatError(`The model ${name} cannot be trained here: ${runs[0]?.reason ?? "it has no context"}`);
  }
  return { model_name_or_path: name, ...facts, runs };
}

type Sizes = Pick<
  PossibleRun,
  "training" | "row_tokens" | "per_device_train_batch_size" | "gradient_accumulation_steps"
>;

function sizes(training: Training, tokens: number, rows: number): Sizes {
  return {
    training,
    row_tokens: tokens,
    per_device_train_batch_size: rows,
    gradient_accumulation_steps: UPDATE_ROWS / rows,
  };
}

/** The configuration of a run, with the defaults of `kto train`. */
function configOf(folder: string, { training, row_tokens, ...microbatches }: Sizes) {
  const given = { model_name_or_path: folder, dataset_name: "rows", output_dir: "run", max_length: row_tokens };
  return parseKtoConfig({ ...given, ...TRAININGS[training], ...microbatches });
}

/** Allocates a run beside its models, counts, and gives it back. */
async function bytesOf(
  planned: Device,
  { policy, reference }: Awaited<ReturnType<typeof loadForTraining>>,
  folder: string,
  run: Sizes,
): Promise<Pick<PossibleRun, "device_bytes" | "fits" | "reason">> {
  const trainer = await KtoTrainer.create({
    policy,
    ...(reference ? { reference } : {}),
    examples: rowsOf(run.row_tokens),
    options: trainerOptions.partOf(configOf(folder, run)),
    onWarning: () => undefined,
  });
  const reason = hostReason(planned);
  const device_bytes = planned.totalBytes;
  trainer.free();
  return { device_bytes, fits: reason === null, reason };
}

/** What `work` gives, or the sentence of its refusal. */
async function orReason<T>(work: () => Promise<T>): Promise<T | string> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof AdapterError || error instanceof ConfigError) return error.message;
    throw error;
  }
}

/** Rows of both kinds for one update. */
function rowsOf(tokens: number) {
  const ids = new Uint32Array(tokens / 2);
  return Array.from({ length: UPDATE_ROWS }, (_, i) => ({ promptIds: ids, completionIds: ids, label: i % 2 === 0 }));
}

function hostReason(planned: Device): string | null {
  try {
    checkHostMemory(planned);
    return null;
  } catch (error) {
    if (!(error instanceof AdapterError)) throw error;
    return error.message;
  }
}
