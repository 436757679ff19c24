/**
 * What follows from a row of evaluations: which is the best, when to stop, when the model fits its training rows at the
 * cost of others. Numbers only; the weights of the best are kept by `best-model.ts`.
 */
import { ConfigError, counted } from "../../errors.ts";
import type { Metrics } from "../method/metrics.ts";
import { EVAL_PREFIX, EVALUATION_TIMES } from "./evaluator.ts";

export interface SelectionOptions {
  /** A metric of the evaluation, with or without `eval_`. Default "loss". */
  readonly metric?: string | undefined;
  /**
   * Default: false for a metric whose name ends in "loss" (as in transformers), "losses" or "inconsistent", else true.
   */
  readonly greaterIsBetter?: boolean | undefined;
  /** Evaluations in a row without an improvement after which to stop; default never. */
  readonly patience?: number | undefined;
  /** How much more than the best is an improvement for `patience`; default any. */
  readonly threshold?: number | undefined;
}

/** One evaluation as the warning looks at it. */
interface Margins {
  readonly step: number;
  /** rewards/margins of the training rows. */
  readonly training: number;
  /** eval_rewards/margins. */
  readonly validation: number;
}

/** Plain values, so that it fits into a JSON checkpoint. */
export interface SelectionState {
  /** The metric behind `best` and `evaluationsWithoutImprovement`, with the prefix `eval_`. */
  readonly metric: string;
  readonly greaterIsBetter: boolean;
  readonly best: { readonly step: number; readonly value: number } | undefined;
  /** Evaluations since the last improvement by more than the threshold. */
  readonly evaluationsWithoutImprovement: number;
  readonly margins: readonly Margins[];
  readonly warned: boolean;
}

export interface Selected {
  /** This evaluation is the best so far. */
  readonly isBest: boolean;
  /** A sentence, if the run is to stop. */
  readonly stop?: string;
  /** A sentence, once in a run. */
  readonly warning?: string;
}

/** Evaluations that the warning looks at: as many falls in a row, one less, are seldom chance. */
const WARNING_WINDOW = 4;

export class Selection {
  /** The name of the metric, with the prefix `eval_`. */
  readonly metric: string;
  readonly greaterIsBetter: boolean;
  readonly #patience: number;
  readonly #threshold: number;
  #state: SelectionState;

  constructor(options: SelectionOptions = {}) {
    const criterion = criterionOf(options);
    this.metric = criterion.metric;
    this.greaterIsBetter = criterion.greaterIsBetter;
    this.#patience = options.patience ?? Number.POSITIVE_INFINITY;
    this.#threshold = options.threshold ?? 0;
    this.#state = { ...criterion, best: undefined, evaluationsWithoutImprovement: 0, margins: [], warned: false };
  }

  get state(): SelectionState {
    return this.#state;
  }

  /** Why the run should end now, if it should. */
  get stop(): string | undefined {
    const { evaluationsWithoutImprovement, best } = this.#state;
    if (evaluationsWithoutImprovement < this.#patience) return undefined;
    const times = counted(evaluationsWithoutImprovement, "evaluation", "evaluations in a row");
    const enough = this.#threshold === 0 ? "" : ` by more than ${this.#threshold}`;
    const since =
      best === undefined ? "it was never a finite number" : `its best is ${best.value} at step ${best.step}`;
    return `${this.metric} has not improved${enough} in ${times}: ${since}.`;
  }

  /**
   * Goes on from the state of another one, whose patience may have been another. Where it went by another metric, whose
   * values cannot be compared with those to come, the search for the best begins again.
   *
   * @returns a sentence, if it is
   */
  restore(state: SelectionState): string | undefined {
    const { metric, greaterIsBetter } = state;
    if (metric === this.metric && greaterIsBetter === this.greaterIsBetter) {
      this.#state = state;
      return undefined;
    }
    this.#state = {
      ...state,
      ...{ metric: this.metric, greaterIsBetter: this.greaterIsBetter },
      ...{ best: undefined, evaluationsWithoutImprovement: 0 },
    };
    const named = (name: string, more: boolean) => `${name} (${more ? "more" : "less"} is better)`;
    return `The best model was that by ${named(metric, greaterIsBetter)} and is now that by ${named(this.metric, this.greaterIsBetter)}: the search for it begins again with the next evaluation.`;
  }

  /**
   * Takes the next evaluation. A value that is not finite is no improvement.
   *
   * @param measured false where the metric could not be measured, which says nothing of the model: `patience` does not
   * count it
   * @param training the metrics of the last logging window, if there was one
   * @throws ConfigError if the evaluation has no such metric
   */
  consider(step: number, evaluation: Metrics, training: Metrics | undefined, measured = true): Selected {
    const value = evaluation[this.metric];
    if (value === undefined) throw noSuchMetric(this.metric, Object.keys(evaluation));
    const { best } = this.#state;
    const gain = best === undefined ? Number.POSITIVE_INFINITY : (value - best.value) * (this.greaterIsBetter ? 1 : -1);
    const isBest = Number.isFinite(value) && gain > 0;
    const improves = isBest && gain > this.#threshold;
    const evaluationsWithoutImprovement = improves ? 0 : this.#state.evaluationsWithoutImprovement + (measured ? 1 : 0);
    const margins = withMargins(this.#state.margins, step, evaluation, training);
    const warning = this.#state.warned ? undefined : overfits(margins);
    const newBest = isBest ? { step, value } : best;
    const warned = this.#state.warned || warning !== undefined;
    this.#state = { ...this.#state, best: newBest, evaluationsWithoutImprovement, margins, warned };
    const { stop } = this;
    return { isBest, ...(stop === undefined ? {} : { stop }), ...(warning === undefined ? {} : { warning }) };
  }
}

/** Which metric says what is best, with the prefix, and whether more of it is better. */
export function criterionOf({
  metric = "loss",
  greaterIsBetter,
}: SelectionOptions): Pick<SelectionState, "metric" | "greaterIsBetter"> {
  const name = withPrefix(metric);
  return { metric: name, greaterIsBetter: greaterIsBetter ?? !/(loss|losses|inconsistent)$/.test(name) };
}

/**
 * @throws ConfigError before any evaluation, if an evaluation with metrics of these names will not have the one asked
 * for
 */
export function checkMetric(asked: string, names: readonly string[]): void {
  const metric = withPrefix(asked);
  const all = [...names, ...EVALUATION_TIMES].map(withPrefix);
  if (!all.includes(metric)) throw noSuchMetric(metric, all);
}

function withPrefix(metric: string): string {
  return metric.startsWith(EVAL_PREFIX) ? metric : `${EVAL_PREFIX}${metric}`;
}

function noSuchMetric(metric: string, names: readonly string[]): ConfigError {
  return new ConfigError(
    `metric_for_best_model is "${metric}", which the evaluation of these rows does not have; give one that it has: ${names.join(", ")}.`,
  );
}

/** The last few evaluations for which both margins are known. */
function withMargins(
  earlier: readonly Margins[],
  step: number,
  evaluation: Metrics,
  training: Metrics | undefined,
): Margins[] {
  const [own, other] = [training?.["rewards/margins"], evaluation[`${EVAL_PREFIX}rewards/margins`]];
  // A margin that is no number tells nothing, and no checkpoint could hold it.
  if (own === undefined || other === undefined || !Number.isFinite(own + other)) return [...earlier];
  return [...earlier, { step, training: own, validation: other }].slice(-WARNING_WINDOW);
}

/**
 * The rule: over the last four evaluations the validation margin fell each time, while the training margin, whose
 * windows are noisy, was higher at the last than at the first.
 */
function overfits(margins: readonly Margins[]): string | undefined {
  const [first, last] = [margins[0], margins.at(-1)];
  if (margins.length < WARNING_WINDOW || first === undefined || last === undefined) return undefined;
  const falls = margins.every((here, i) => i === 0 || here.validation < (margins[i - 1]?.validation ?? 0));
  if (!falls || !(last.training > first.training)) return undefined;
  const change = (key: "training" | "validation") => `from ${first[key].toPrecision(3)} to ${last[key].toPrecision(3)}`;
  return `since step ${first.step} the reward margin of the training rows rose ${change("training")} while that of the validation rows fell ${change("validation")} in ${WARNING_WINDOW - 1} evaluations in a row: the model learns its rows by heart; stop earlier (early_stopping_patience), raise beta, or lower learning_rate.`;
}
