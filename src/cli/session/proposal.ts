/**
 * Values of a first configuration for one model, its feedback and this adapter: what fits its memory, by the counts of
 * the code that allocates a run, and otherwise the middle of the ranges that `advice.ts` knows. No search for the best.
 */
import type { Device } from "../../engine/gpu/device.ts";
import { planningDevice } from "../../engine/gpu/memory-plan.ts";
import { counted, DatasetError } from "../../errors.ts";
import type { DatasetReport, Example } from "../../kto/data/types.ts";
import { holdOut } from "../../kto/data/validation-split.ts";
import { recommendedRatio, weightRatio } from "../../kto/data/weights.ts";
import { type KtoConfig, ktoOptions, parseKtoConfig, trainerOptions } from "../../kto/options/kto.ts";
import { KtoTrainer } from "../../kto/trainer.ts";
import { Output } from "../terminal/output.ts";
import { loadForTraining } from "./models.ts";

/** An option's value, and why it has it where that is to be told. */
export interface Proposed {
  readonly name: string;
  readonly value: unknown;
  readonly why?: string;
}

export interface Proposal {
  readonly values: readonly Proposed[];
  /** Device memory of the run in bytes, and whether it is within what was granted. */
  readonly bytes: number;
  readonly fits: boolean;
}

/** Rows of one update where there are that many: the reference point wants 8 to 128. */
const ROWS_OF_UPDATE = 32;
/** Rows from which some are held out, to see how the run does on rows that it does not train on. */
const ROWS_TO_HOLD_OUT = 100;
const HELD_OUT = 0.1;
/** Bytes a parameter that training all of them takes at least; activations come on top. */
const LEAST_BYTES_WHOLE = 16;
/** Parameters below which a model is a toy and takes rates that would ruin a real one. */
const TOY_PARAMETERS = 1e8;
const EPOCHS = 3;

/**
 * @param given options that the user named: model, rows, folder of the result, adapter
 * @param grantedBytes memory that the run may take on the device
 */
export async function propose(
  device: Device,
  given: Readonly<Record<string, unknown>>,
  { examples, report }: { readonly examples: readonly Example[]; readonly report: DatasetReport },
  contextLength: number,
  grantedBytes: number,
): Promise<Proposal> {
  const length = lengthOf(report, contextLength);
  const held = heldOut(examples);
  const choices = choicesOf(held.training.length);
  let tried: { values: readonly Proposed[]; bytes: number } | undefined;
  for (const choice of choices) {
    const values = valuesOf(given, choice, held, report, length, device);
    const config = parseKtoConfig(Object.fromEntries(values.map(({ name, value }) => [name, value])));
    const { bytes, parameters } = await plan(device, config, held);
    const isToy = parameters < TOY_PARAMETERS;
    const rate: Proposed = {
      name: "learning_rate",
      value: (isToy ? 5e-4 : 5e-6) * (choice.lora ? 10 : 1),
      why: `${isToy ? "a toy model" : "a real model"} of ${counted(parameters, "parameter")}, ${choice.lora ? "through an adapter, which takes rates ten times as high" : "trained whole"}`,
    };
    const before = values.findIndex(({ name }) => name === "warmup_ratio");
    tried = { values: values.toSpliced(before, 0, rate), bytes };
    if (bytes <= grantedBytes) return { ...tried, fits: true };
    if (!choice.lora && parameters * LEAST_BYTES_WHOLE > grantedBytes) {
      choices.splice(0, choices.length, ...choices.filter(({ lora }) => lora));
    }
  }
  if (tried === undefined) throw new Error("there is nothing to choose from");
  return { ...tried, fits: false };
}

/** How a run may be made smaller. */
interface Choice {
  readonly lora: boolean;
  /** Rows of a microbatch, and microbatches of an update. */
  readonly rows: number;
  readonly accumulated: number;
  readonly checkpointing: boolean;
}

/** The rows that are trained on, and those that a run evaluates on. */
interface HeldOut {
  readonly training: readonly Example[];
  readonly validation?: readonly Example[];
}

function heldOut(examples: readonly Example[]): HeldOut {
  if (examples.length < ROWS_TO_HOLD_OUT) return { training: examples };
  try {
    return holdOut(examples, HELD_OUT, ktoOptions.shape.seed.parse(undefined));
  } catch (error) {
    // Rows of too few prompts: no prompt is trained on and evaluated.
    if (error instanceof DatasetError) return { training: examples };
    throw error;
  }
}

/** From what is best where it fits to what takes the least memory. */
function choicesOf(rows: number): Choice[] {
  const perUpdate = Math.max(2, Math.min(ROWS_OF_UPDATE, 2 ** Math.floor(Math.log2(Math.max(2, rows)))));
  return [false, true].flatMap((lora) =>
    [false, true].flatMap((checkpointing) =>
      [8, 4, 2]
        .filter((size) => size <= perUpdate)
        .map((size) => ({ lora, checkpointing, rows: size, accumulated: perUpdate / size })),
    ),
  );
}

/** Tokens of the longest row, up to the default and the model's context. */
function lengthOf({ lengths }: DatasetReport, contextLength: number): number {
  const most = Math.min(contextLength, parseKtoConfig({ model: "m", dataset: "d", output_dir: "o" }).max_length);
  return Math.max(2, Math.min(most, 32 * Math.ceil(lengths.total.max / 32)));
}

function valuesOf(
  given: Readonly<Record<string, unknown>>,
  { lora, rows, accumulated, checkpointing }: Choice,
  { training, validation }: HeldOut,
  report: DatasetReport,
  length: number,
  device: Device,
): Proposed[] {
  const { desirable, undesirable, lengths } = report;
  const updates = EPOCHS * Math.ceil(training.length / (rows * accumulated));
  const ratio = weightRatio(desirable, undesirable, 1, 1);
  const isBalanced = !(ratio > 0) || (ratio >= recommendedRatio.low && ratio <= recommendedRatio.high);
  const smaller = desirable <= undesirable ? "desirable_weight" : "undesirable_weight";
  const thumbs = `${desirable} thumbs up, ${undesirable} down`;
  const memory = "what fits this adapter's memory";
  const when = (condition: boolean, ...values: Proposed[]) => (condition ? values : []);
  const proposed: Proposed[] = [
    {
      name: "max_length",
      value: length,
      why: `the rows have up to ${lengths.total.max} tokens, half of them ${lengths.total.median} or fewer`,
    },
    { name: "beta", value: 0.1 },
    ...when(!isBalanced && Number.isFinite(ratio), { name: smaller, value: "auto", why: thumbs }),
    ...when(
      lora,
      { name: "use_peft", value: true, why: memory },
      { name: "lora_r", value: 16 },
      { name: "lora_alpha", value: 32 },
    ),
    { name: "per_device_train_batch_size", value: rows, ...(rows < 8 && accumulated > 1 ? { why: memory } : {}) },
    {
      name: "gradient_accumulation_steps",
      value: accumulated,
      why: `updates of ${rows * accumulated} of the ${counted(training.length, "row")}`,
    },
    ...when(rows < 8 && accumulated > 1, {
      name: "reference_point_scope",
      value: "step",
      why: "8 rows or more make it less noisy",
    }),
    ...when(checkpointing, { name: "gradient_checkpointing", value: true, why: memory }),
    ...when(device.facts.matrices !== undefined, {
      name: "bf16",
      value: true,
      why: "this adapter has subgroup matrices",
    }),
    { name: "num_train_epochs", value: EPOCHS, why: counted(updates, "update") },
    { name: "warmup_ratio", value: 0.1 },
    ...when(
      validation !== undefined,
      { name: "validation_split", value: HELD_OUT },
      { name: "eval_strategy", value: "epoch" },
    ),
    { name: "logging_steps", value: Math.max(1, Math.min(10, Math.floor(updates / 10))) },
    { name: "save_strategy", value: "epoch" },
    { name: "save_total_limit", value: 2 },
  ];
  const named = Object.entries(given).map(([name, value]) => ({ name, value }));
  return [...named, ...proposed.filter(({ name }) => !(name in given))];
}

/** What a run takes, by the code that allocates it, on a device that only counts. */
async function plan(device: Device, config: KtoConfig, { training, validation }: HeldOut) {
  const counting = planningDevice(device);
  const silent = new Output(
    { stdout: { write: () => true }, stderr: { write: () => true } },
    { json: false, log_level: "error" },
  );
  const { policy, reference } = await loadForTraining(counting, config, silent);
  const trainer = await KtoTrainer.create({
    policy,
    ...(reference ? { reference } : {}),
    examples: training,
    ...(validation ? { evalExamples: validation } : {}),
    ownsReference: true,
    onWarning: () => undefined,
    options: trainerOptions.partOf(config),
  });
  const { totalBytes } = counting;
  trainer.free();
  return { bytes: totalBytes, parameters: policy.layout.parameterCount };
}
