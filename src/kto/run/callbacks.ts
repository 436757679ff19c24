/**
 * What a program may hang onto a training run, to plug in a tracker of its own. A callback is waited for before the run
 * goes on; what it throws ends the run as it is, unchanged.
 */
import type { Evaluation } from "../evaluation/run-evaluation.ts";
import type { Metrics } from "../method/metrics.ts";
import type { ExampleLine } from "./example-line.ts";

/** What an update leaves behind. */
export interface TrainingStep {
  /** Updates done, from 1; 0 for the evaluation of `eval_on_start`. */
  readonly step: number;
  readonly totalSteps: number;
  /** Passes over the data so far. */
  readonly epoch: number;
  readonly learningRate: number;
  /** On logging steps: means over the window since the last one. */
  readonly metrics?: Metrics;
  /** On logging steps, of long runs on some of them: what the update did with each example, with `log_examples`. */
  readonly examples?: ExampleLine;
  /**
   * After steps at which the model is evaluated. Where a stop broke that off, its step comes once more when the run
   * goes on.
   */
  readonly evaluation?: Evaluation;
}

/** A checkpoint that is complete on the disk. */
export interface SavedCheckpoint {
  readonly folder: string;
  /** Updates done. */
  readonly step: number;
}

/** How far a part of a run is that is no update and takes a while. */
export interface RunWork {
  /** The log-probs of a cached reference, before the first update, or an evaluation. */
  readonly work: "reference" | "evaluation";
  /** Steps of it, of how many. */
  readonly done: number;
  readonly total: number;
}

export interface TrainerCallbacks {
  /**
   * After each update and its evaluation, before a checkpoint of it: what the loop over the trainer then gets as well.
   */
  readonly onStep?: (step: TrainingStep) => void | Promise<void>;
  /** After each evaluation, that of `eval_on_start` (step 0) included, before `onStep`. */
  readonly onEvaluate?: (evaluation: Evaluation & { readonly step: number }) => void | Promise<void>;
  readonly onCheckpoint?: (checkpoint: SavedCheckpoint) => void | Promise<void>;
  /** Told often, and not waited for. */
  readonly onWork?: (work: RunWork) => void;
  /** Sentences about what went wrong and did not end the run. Default: the console. */
  readonly onWarning?: (sentence: string) => void;
}

export function warn({ onWarning = console.warn }: TrainerCallbacks, sentence: string): void {
  onWarning(sentence);
}
