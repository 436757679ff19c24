/**
 * Advice on values that are allowed but seldom meant, once the model and the data of a run are known. Values that are
 * refused stand in `kto.ts` and `run.ts`, advice on the class weights in `data/weights.ts`.
 */
import { counted } from "../../errors.ts";
import type { TrainerOptions } from "./kto.ts";
import { referencePointScope } from "./method.ts";
import type { RunOptions } from "./run.ts";
import { scheduleOf } from "./schedule.ts";

/** The size of a run, known once the model and the data have been read. */
export interface SizeFacts {
  /** Rows that training will use. */
  readonly rows: number;
  /** Parameters of the model. */
  readonly parameters: number;
  /** A LoRA adapter is trained, which takes rates ten times as high; default false. */
  readonly adapter?: boolean;
  /** How many ranks give rows to a microbatch; default 1. */
  readonly ranks?: number | undefined;
}

/** The facts of a run on feedback. */
export interface AdviceFacts extends SizeFacts {
  readonly desirable: number;
  readonly undesirable: number;
  /** Whether the model is known to come from supervised fine-tuning; default false. */
  readonly fineTuned?: boolean;
  /** How many different prompts the rows have, and the validation rows if there are any; default: enough. */
  readonly prompts?: number;
  readonly evaluationPrompts?: number | undefined;
}

/** Parameters from which a model counts as large: the KTO paper trains such models without fine-tuning them before. */
const LARGE_PARAMETERS = 7e9;
/** Parameters below which a model is a toy, and takes learning rates that would ruin a real one. */
const TOY_PARAMETERS = 1e8;

/**
 * Warnings on values outside the ranges that are known to work (KTO paper, TRL's page on KTO): one sentence each,
 * naming the option and the range. Nothing is changed.
 */
export function configAdvice(config: TrainerOptions, facts: AdviceFacts): string[] {
  const advice: string[] = [];
  const large = facts.parameters >= LARGE_PARAMETERS;
  const betaRange: [number, number] = large ? [0.01, 0.1] : [0.01, 1];
  if (config.beta < betaRange[0] || config.beta > betaRange[1]) {
    advice.push(
      `beta ${config.beta} is unusual: 0.01 to 0.1 suits large or fine-tuned models, 0.1 to 1 small ones without supervised fine-tuning.`,
    );
  }
  advice.push(...rateAdvice(config, facts, [5e-7, 5e-6]));
  // Ranks that update by themselves have reference points of their own.
  const ranks = config.sync_every === undefined ? (facts.ranks ?? 1) : 1;
  const microbatch = config.per_device_train_batch_size * ranks;
  const perUpdate = microbatch * config.gradient_accumulation_steps;
  const scope = referencePointScope(config, ranks) === "step" ? perUpdate : microbatch;
  if (config.loss_type === "kto" && (scope < 8 || scope > 128)) {
    const remedy = scope < 8 && perUpdate >= 8 ? ' (reference_point_scope "step" takes it over the whole update)' : "";
    advice.push(
      `the reference point is taken over ${counted(scope, "row")}; 8 to 128 are recommended, since fewer make it noisy and more make it slow${remedy}.`,
    );
  }
  if (config.loss_type === "kto") {
    for (const [rows, prompts] of [
      ["rows", facts.prompts],
      ["validation rows", facts.evaluationPrompts],
    ] as const) {
      if (prompts !== 1) continue;
      advice.push(
        `all ${rows} have the same prompt, so no pair of them is mismatched and the reference point is not estimated (kl is 0); give rows of several prompts.`,
      );
    }
  }
  advice.push(...scheduleAdvice(config, facts));
  // A toy is for trying things out; nobody fine-tunes it first because we say so.
  if (!large && facts.parameters >= TOY_PARAMETERS && !facts.fineTuned) {
    advice.push(
      "below 7B parameters, KTO brings little over supervised fine-tuning alone: unless this model has had that on the same kind of text, run kto sft first.",
    );
  }
  return advice;
}

/** Warnings of unusual values for supervised fine-tuning, which takes higher learning rates than KTO. */
export function sftAdvice(config: RunOptions, facts: SizeFacts): string[] {
  return [...rateAdvice(config, facts, [1e-6, 1e-4]), ...scheduleAdvice(config, facts)];
}

/** @param range of rates for a model that is no toy and is trained whole */
function rateAdvice(config: RunOptions, facts: SizeFacts, [lowest, highest]: readonly [number, number]): string[] {
  const most = (facts.parameters < TOY_PARAMETERS ? 5e-3 : highest) * (facts.adapter ? 10 : 1);
  if (config.learning_rate >= lowest && config.learning_rate <= most) return [];
  return [
    `learning_rate ${config.learning_rate} is outside ${[lowest, most].map((rate) => rate.toExponential()).join(" to ")}, the range that works for models of this size.`,
  ];
}

function scheduleAdvice(config: RunOptions, facts: SizeFacts): string[] {
  const advice: string[] = [];
  const perUpdate = config.per_device_train_batch_size * (facts.ranks ?? 1) * config.gradient_accumulation_steps;
  if (perUpdate > facts.rows) {
    advice.push(
      `one update asks for ${perUpdate} rows (per_device_train_batch_size x gradient_accumulation_steps), but there are only ${facts.rows}.`,
    );
  }
  const steps = config.max_steps > 0 ? config.max_steps : Math.ceil((facts.rows * config.num_train_epochs) / perUpdate);
  const { type, warmupSteps, parameters } = scheduleOf(config, steps);
  if (type === "constant" && warmupSteps > 0) {
    advice.push(
      'lr_scheduler_type "constant" has no warm-up, so warmup_steps and warmup_ratio have no effect: use "constant_with_warmup".',
    );
  } else if (warmupSteps >= steps && warmupSteps > 0) {
    advice.push(
      `the warm-up of ${counted(warmupSteps, "step")} does not end within the run's ${counted(steps, "step")}: the learning rate never reaches ${config.learning_rate}.`,
    );
  } else if (warmupSteps + (parameters?.num_decay_steps ?? 0) > steps) {
    advice.push(
      `warm-up and decay take ${warmupSteps} and ${parameters?.num_decay_steps} steps, more than the run's ${steps}: the decay begins before the warm-up ends, so the learning rate never reaches ${config.learning_rate}.`,
    );
  }
  return advice;
}
