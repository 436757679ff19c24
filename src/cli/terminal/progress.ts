/** A training run on one line: where there is no terminal, and where a terminal is too small for more. */
import { formatCount, formatDuration, formatMetric } from "./numbers.ts";
import { type RunView, SHOWN_METRICS, secondsLeft } from "./run-view.ts";

export interface RunProgress {
  readonly method: RunView["method"];
  /** Updates done. */
  readonly step: number;
  readonly totalSteps: number;
  /** By TRL's names: loss, kl, rewards/chosen, ...; what is absent or NaN (no row of a class) is shown as "-". */
  readonly metrics: Readonly<Record<string, number | undefined>>;
  readonly tokensPerSecond?: number | undefined;
  readonly secondsLeft?: number | undefined;
}

/** The order in which metrics go when there is little room, the last one first, and that of reading. */
const IMPORTANCE = ["loss", "mean_token_accuracy", "kl", "rewards/margins", "rewards/accuracies", "rewards/chosen"];
const READING = ["loss", "mean_token_accuracy", "kl", "rewards/chosen", "rewards/rejected", "rewards/margins"];
/** Too much for one line. */
const LEFT_OUT = ["entropy"];

/** Names in an order, those that it does not hold at its end. */
function inOrder<T>(items: readonly T[], nameOf: (item: T) => string, order: readonly string[]): T[] {
  const place = (item: T) => order.indexOf(nameOf(item)) >>> 0; // -1 is the largest
  return [...items].sort((a, b) => place(a) - place(b));
}

/**
 * One line of at most `width` characters: full metric names where they fit, short ones else, then fewer of them.
 * Step and time left stay to the end.
 */
export function renderProgress(progress: RunProgress, width = Number.POSITIVE_INFINITY): string {
  const { method, step, totalSteps, metrics, tokensPerSecond, secondsLeft } = progress;
  const all = SHOWN_METRICS[method].flat().filter(({ metric }) => !LEFT_OUT.includes(metric));
  const shown = inOrder(all, ({ metric }) => metric, IMPORTANCE);
  const count = `${String(step).padStart(String(totalSteps).length)}/${totalSteps}`;
  const head = `update ${count}`;
  const left = secondsLeft === undefined ? [] : [`${formatDuration(secondsLeft)} left`];
  const speed = tokensPerSecond === undefined ? [] : [`${formatCount(tokensPerSecond)} tokens/s`];
  const line = (most: number, long: boolean, tail: readonly string[]): string => {
    const kept = Object.keys(metrics).length === 0 ? [] : shown.slice(0, most); // none before the first logging step
    const fields = inOrder(kept, ({ metric }) => metric, READING).map(({ metric, short }) => {
      return `${long ? metric : short} ${formatMetric(metric, metrics[metric])}`;
    });
    return [head, ...fields, ...tail].join("  ");
  };
  const candidates = [
    line(shown.length, true, [...speed, ...left]),
    ...shown.map((_, dropped) => line(shown.length - dropped, false, [...speed, ...left])),
    line(1, false, left),
    line(0, false, left),
    [count, ...left].join("  "),
  ];
  const fitting = candidates.find((candidate) => candidate.length <= width);
  return fitting ?? count.slice(0, width);
}

/** A run's state on one line of at most `width` characters. */
export function plainProgress(view: RunView, width?: number): string {
  const tokensPerSecond = view.metrics.tokens_per_second;
  return renderProgress({ ...view, tokensPerSecond, secondsLeft: secondsLeft(view) }, width);
}
