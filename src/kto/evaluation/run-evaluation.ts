/**
 * The evaluations of a training run: when they are due, the best model kept, the decision to stop. `evaluator.ts`
 * computes the metrics, `selection.ts` decides by them.
 */
import type { Model } from "../../engine/model/model.ts";
import { platform } from "../../engine/platform/index.ts";
import { ALONE, type Communicator } from "../../engine/ranks/communicator.ts";
import { byFirst } from "../../engine/ranks/sums.ts";
import { arenaFromFirst } from "../../engine/ranks/tensors.ts";
import { ConfigError, errorMessage, FileError } from "../../errors.ts";
import { type Metrics, numbersOf } from "../method/metrics.ts";
import { checkEvaluates, evaluationStrategy } from "../options/evaluation.ts";
import type { RunOptions } from "../options/run.ts";
import { stepsBetween } from "../options/steps.ts";
import { BEST_FOLDER, BestModel } from "./best-model.ts";
import { EVAL_PREFIX, Evaluator, type EvaluatorOptions } from "./evaluator.ts";
import { Selection, type SelectionState } from "./selection.ts";

/** What an evaluation leaves behind. */
export interface Evaluation {
  /** Under TRL's names, `eval_loss` and so on. */
  readonly metrics: Metrics;
  /** By `metric_for_best_model`. */
  readonly isBest: boolean;
  /** A sentence to show: the model learns its training rows by heart. */
  readonly warning?: string;
  /** Why the run stops here, if it does. */
  readonly stop?: string;
}

/** What a program adds to the metrics of an evaluation, such as the verdicts of a judge. */
export interface OwnMetrics {
  /** The names of the metrics that `measure` gives, without `eval_`. */
  readonly names: readonly string[];
  /**
   * Looks at the policy as it is, after this many updates, and changes nothing; undefined where it cannot be measured. Of
   * several ranks each calls it, and rank 0's metrics count.
   */
  readonly measure: (step: number) => Promise<Metrics | undefined>;
}

export interface RunEvaluationOptions extends Omit<EvaluatorOptions, "batchSize" | "examples"> {
  readonly examples: EvaluatorOptions["examples"] | undefined;
  readonly options: RunOptions;
  readonly totalSteps: number;
  readonly stepsPerEpoch: number;
  readonly ownMetrics: OwnMetrics | undefined;
  /** Told after each microbatch, of how many. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
  /** Where the best weights are kept. */
  readonly outputFolder: string | undefined;
}

export class RunEvaluation {
  readonly #evaluator: Evaluator;
  readonly #onProgress: RunEvaluationOptions["onProgress"];
  readonly #ownMetrics: OwnMetrics | undefined;
  readonly #ranks: Communicator;
  readonly #policy: Model;
  readonly selection: Selection;
  readonly #best: BestModel | undefined;
  readonly #due: (step: number) => boolean;
  #lastStep = -1;

  /**
   * undefined for a run that does not evaluate.
   *
   * @throws ConfigError for options that contradict each other; see `Evaluator` for the rest
   */
  static create(options: RunEvaluationOptions): RunEvaluation | undefined {
    const { examples } = options;
    const strategy = evaluationStrategy(options.options, examples !== undefined);
    checkEvaluates(options.options, strategy);
    if (strategy === "no") return undefined;
    if (examples === undefined) {
      throw new ConfigError(
        `option "eval_strategy" is "${strategy}", but there are no rows to evaluate on: give evalExamples, or set it to "no".`,
      );
    }
    if (options.options.load_best_model_at_end && options.outputFolder === undefined) {
      throw new ConfigError(
        'option "load_best_model_at_end" is true, but there is no folder to keep the best weights in: give outputFolder.',
      );
    }
    return new RunEvaluation({ ...options, examples }, strategy);
  }

  private constructor(
    run: RunEvaluationOptions & { readonly examples: EvaluatorOptions["examples"] },
    strategy: "steps" | "epoch",
  ) {
    const { options, totalSteps, stepsPerEpoch, ownMetrics, onProgress, outputFolder, ...rest } = run;
    this.#onProgress = onProgress;
    this.#ownMetrics = ownMetrics;
    this.#ranks = run.ranks ?? ALONE;
    this.#policy = run.policy;
    this.selection = new Selection({
      metric: options.metric_for_best_model,
      greaterIsBetter: options.greater_is_better,
      patience: options.early_stopping_patience,
      threshold: options.early_stopping_threshold,
    });
    this.#best =
      options.load_best_model_at_end && outputFolder !== undefined
        ? new BestModel(run.policy, platform.joinPath(outputFolder, BEST_FOLDER))
        : undefined;
    const given = options.eval_steps ?? options.logging_steps;
    const every = strategy === "epoch" ? stepsPerEpoch : stepsBetween(given, totalSteps);
    this.#due = (step) => (step === 0 ? options.eval_on_start : step % every === 0 || step === totalSteps);
    this.#evaluator = new Evaluator({ ...rest, batchSize: options.per_device_eval_batch_size });
  }

  /** Whether the model is now to be evaluated, after this many updates: every so many and at the end, once. */
  due(step: number): boolean {
    return step > this.#lastStep && this.#due(step);
  }

  /** How many evaluations a run of so many updates still has after so many of them, if nothing stops it. */
  count(done: number, totalSteps: number): number {
    return Array.from({ length: totalSteps + 1 - done }, (_, i) => done + i).filter((step) => this.due(step)).length;
  }

  /** Seconds that one evaluation takes, measured on a part of it. */
  async seconds(): Promise<number> {
    return await this.#evaluator.seconds();
  }

  /**
   * Evaluates, selects and keeps the best weights; nothing of that where it is broken off.
   *
   * @param training the metrics of the last logging window, if there was one
   * @throws the reason of `signal` where it is aborted before all is measured; of several ranks it is not broken off
   */
  async run(step: number, training: Metrics | undefined, signal: AbortSignal): Promise<Evaluation> {
    const { rank, size } = this.#ranks;
    // Several ranks must decide alike, and none may leave while the others wait for it.
    const breaksOff = size === 1 ? { signal } : {};
    breaksOff.signal?.throwIfAborted();
    // All take part, since answers are generated by all of them; what counts is what rank 0 finds.
    const own = await this.#ownMetrics?.measure(step);
    const ownNames = (this.#ownMetrics?.names ?? []).map((name) => EVAL_PREFIX + name);
    const rows = await this.#evaluator.run({ ...breaksOff, onProgress: this.#onProgress });
    const { found, hasOwn } = await byFirst(this.#ranks, async () => ({
      found: {
        ...rows,
        ...Object.fromEntries(ownNames.map((name) => [name, own?.[name.slice(EVAL_PREFIX.length)] ?? Number.NaN])),
      } as Readonly<Record<string, number | null>>,
      hasOwn: own !== undefined,
    }));
    const metrics = numbersOf(found);
    const measured = hasOwn || !ownNames.includes(this.selection.metric);
    const selected = this.selection.consider(step, metrics, training, measured);
    this.#lastStep = step;
    if (selected.isBest && this.#best && rank === 0) {
      const { metric } = this.selection;
      try {
        await this.#best.keep({ step, metric, value: metrics[metric] ?? Number.NaN });
      } catch (error) {
        if (!(error instanceof FileError)) throw error;
        const warning = `The best model so far, of step ${step}, was not kept: ${errorMessage(error)} The training goes on.`;
        return { metrics, ...selected, warning };
      }
    }
    return { metrics, ...selected };
  }

  /** What a run that is resumed goes on from; plain numbers. */
  get state(): { readonly selection: SelectionState; readonly lastStep: number } {
    return { selection: this.selection.state, lastStep: this.#lastStep };
  }

  /** @returns a sentence, if the best model is looked for from here on */
  restore(state: RunEvaluation["state"]): string | undefined {
    this.#lastStep = state.lastStep;
    return this.selection.restore(state.selection);
  }

  /** The metrics now, without any consequence. */
  async metrics(): Promise<Metrics> {
    return await this.#evaluator.run();
  }

  /**
   * Puts the best weights back where `load_best_model_at_end` asks for it; returns their step.
   *
   * @throws FileError if there are none, if they are not there, or were replaced by a later run's
   */
  async loadBest(): Promise<number | undefined> {
    const { best, metric } = this.selection.state;
    if (this.#best === undefined) return undefined;
    if (best === undefined) throw new FileError(`there is none by ${metric}.`);
    if (best.step === this.#lastStep) return best.step;
    await byFirst(this.#ranks, async () => await this.#best?.restore(best.step));
    await arenaFromFirst(this.#ranks, this.#policy.trained);
    return best.step;
  }

  /** Gives the device memory back. */
  free(): void {
    this.#evaluator.free();
  }
}
