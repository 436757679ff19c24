/**
 * The live line of a training run: `renderProgress` makes its text, `ProgressLine` puts it on stderr, in place on a
 * terminal and as a plain line every few seconds elsewhere. It shows the trainer's metrics and computes only the time.
 */
import { RedrawnLine } from "./redrawn-line.ts";

export interface Progress {
  /** Updates done. */
  readonly step: number;
  readonly totalSteps: number;
  /** By TRL's names: loss, kl, rewards/chosen, ...; what is absent or NaN (no row of a class) is shown as "-". */
  readonly metrics: Readonly<Record<string, number | undefined>>;
  readonly tokensPerSecond?: number | undefined;
  readonly secondsLeft?: number | undefined;
}

/** The metrics of the line in the order in which they go when the terminal is narrow: the last one first. */
const ktoMetrics: readonly { metric: string; short: string }[] = [
  { metric: "loss", short: "loss" },
  { metric: "kl", short: "kl" },
  { metric: "rewards/margins", short: "margin" },
  { metric: "rewards/accuracies", short: "accuracy" },
  { metric: "rewards/chosen", short: "chosen" },
  { metric: "rewards/rejected", short: "rejected" },
];
/** The same for supervised fine-tuning, which has no rewards. */
const sftMetrics: typeof ktoMetrics = [
  { metric: "loss", short: "loss" },
  { metric: "mean_token_accuracy", short: "accuracy" },
];
/** The order of reading. */
const readingOrder = [
  ...["loss", "mean_token_accuracy"],
  ...["kl", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"],
];

/**
 * One line of at most `width` characters: full metric names where they fit, short ones else, then fewer of them.
 * Step and time left stay to the end.
 */
export function renderProgress(progress: Progress, width = Number.POSITIVE_INFINITY): string {
  const { step, totalSteps, metrics, tokensPerSecond, secondsLeft } = progress;
  const shown = "mean_token_accuracy" in metrics ? sftMetrics : ktoMetrics;
  const count = `${String(step).padStart(String(totalSteps).length)}/${totalSteps}`;
  const head = `update ${count}`;
  const left = secondsLeft === undefined ? [] : [`${formatDuration(secondsLeft)} left`];
  const speed = tokensPerSecond === undefined ? [] : [`${formatCount(tokensPerSecond)} tokens/s`];
  const line = (most: number, long: boolean, tail: readonly string[]): string => {
    const kept = Object.keys(metrics).length === 0 ? [] : shown.slice(0, most); // none before the first logging step
    const fields = readingOrder.flatMap((metric) => {
      const field = kept.find((candidate) => candidate.metric === metric);
      return field === undefined ? [] : [`${long ? metric : field.short} ${formatMetric(metric, metrics[metric])}`];
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

/** 0:07, 12:05, 1:02:03. */
export function formatDuration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const twoDigits = (value: number): string => String(value).padStart(2, "0");
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return hours > 0 ? `${hours}:${twoDigits(minutes)}:${twoDigits(rest)}` : `${minutes}:${twoDigits(rest)}`;
}

/** 0 to 9999 as they are, above in k or M with three digits. */
function formatCount(value: number): string {
  if (value < 9999.5) return String(Math.round(value));
  return value < 999_500 ? `${(value / 1e3).toPrecision(3)}k` : `${(value / 1e6).toPrecision(3)}M`;
}

function formatMetric(metric: string, value: number | undefined): string {
  if (value === undefined || Number.isNaN(value)) return "-";
  if (metric.endsWith("accuracies") || metric.endsWith("accuracy")) return `${Math.round(value * 100)}%`;
  const digits = value.toFixed(Math.abs(value) >= 100 ? 1 : 3);
  return metric.startsWith("rewards/") && value >= 0 ? `+${digits}` : digits;
}

export class ProgressLine extends RedrawnLine<Progress> {
  #metrics: Progress["metrics"] = {};
  #tokensPerSecond: number | undefined;
  /** The first update compiles pipelines, so the time left is measured from its end. */
  #first: { step: number; at: number } | undefined;

  /** Call after every update. Absent metrics and speed keep their last value until a plain line has shown it. */
  update(progress: {
    step: number;
    totalSteps: number;
    metrics?: Progress["metrics"] | undefined;
    tokensPerSecond?: number | undefined;
  }): void {
    const { step, totalSteps } = progress;
    const now = this.now();
    this.#metrics = progress.metrics ?? this.#metrics;
    this.#tokensPerSecond = progress.tokensPerSecond ?? this.#tokensPerSecond;
    this.#first ??= { step, at: now };
    const stepsTimed = step - this.#first.step;
    const secondsPerStep = stepsTimed > 0 ? (now - this.#first.at) / 1000 / stepsTimed : undefined;
    const secondsLeft = secondsPerStep && secondsPerStep * (totalSteps - step);
    this.show({ step, totalSteps, metrics: this.#metrics, tokensPerSecond: this.#tokensPerSecond, secondsLeft });
  }

  protected override text(state: Progress, width?: number): string {
    return renderProgress(state, width);
  }

  /** Lines stay: the same numbers again beside a later step would be taken for that step's. */
  protected override wrotePlain(): void {
    this.#metrics = {};
    this.#tokensPerSecond = undefined;
  }
}
