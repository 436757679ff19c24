/**
 * The live line of a training run: `renderProgress` makes its text, `ProgressLine` puts it on stderr, in place on a
 * terminal and as a plain line every few seconds elsewhere. It shows the trainer's metrics and computes only the time.
 */
import type { LiveLine, TextSink } from "./output.ts";

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

export interface ProgressOptions {
  /** Milliseconds, monotone; for tests. */
  readonly now?: () => number;
  /** Between plain lines where stderr is not a terminal. */
  readonly plainIntervalMs?: number;
}

/** Least time between two drawings on a terminal. */
const REDRAW_MS = 100;

export class ProgressLine implements LiveLine {
  readonly #stream: TextSink;
  readonly #now: () => number;
  readonly #intervalMs: number;
  #latest: Progress | undefined;
  #metrics: Progress["metrics"] = {};
  #tokensPerSecond: number | undefined;
  /** The first update compiles pipelines, so the time left is measured from its end. */
  #first: { step: number; at: number } | undefined;
  #writtenAt = Number.NEGATIVE_INFINITY;
  #writtenStep = -1;

  constructor(stream: TextSink, options: ProgressOptions = {}) {
    this.#stream = stream;
    this.#now = options.now ?? (() => performance.now());
    this.#intervalMs = stream.isTTY === true ? REDRAW_MS : (options.plainIntervalMs ?? 5000);
  }

  /** Call after every update. Absent metrics and speed keep their last value until a plain line has shown it. */
  update(progress: {
    step: number;
    totalSteps: number;
    metrics?: Progress["metrics"] | undefined;
    tokensPerSecond?: number | undefined;
  }): void {
    const now = this.#now();
    if (progress.metrics !== undefined) this.#metrics = progress.metrics;
    if (progress.tokensPerSecond !== undefined) this.#tokensPerSecond = progress.tokensPerSecond;
    this.#first ??= { step: progress.step, at: now };
    const stepsTimed = progress.step - this.#first.step;
    const secondsPerStep = stepsTimed > 0 ? (now - this.#first.at) / 1000 / stepsTimed : undefined;
    this.#latest = {
      step: progress.step,
      totalSteps: progress.totalSteps,
      metrics: this.#metrics,
      tokensPerSecond: this.#tokensPerSecond,
      secondsLeft: secondsPerStep === undefined ? undefined : secondsPerStep * (progress.totalSteps - progress.step),
    };
    if (now - this.#writtenAt >= this.#intervalMs) this.#draw(now);
  }

  /**
   * Leaves the last state on the screen and starts a new line. Belongs in a `finally`, since errors are printed after
   * it.
   */
  finish(): void {
    if (this.#latest !== undefined && this.#writtenStep !== this.#latest.step) this.#draw(this.#now());
    if (this.#stream.isTTY === true && this.#writtenStep >= 0) this.#stream.write("\n");
    this.#latest = undefined;
  }

  clear(): void {
    if (this.#stream.isTTY === true && this.#latest !== undefined) this.#stream.write("\r\x1b[K");
  }

  redraw(): void {
    if (this.#stream.isTTY === true && this.#latest !== undefined) this.#draw(this.#now());
  }

  #draw(now: number): void {
    if (this.#latest === undefined) return;
    this.#writtenAt = now;
    this.#writtenStep = this.#latest.step;
    if (this.#stream.isTTY === true) {
      // One column stays free: a full line would wrap, and \r would then go back to its second half only.
      const width = (this.#stream.columns ?? 80) - 1;
      this.#stream.write(`\r${renderProgress(this.#latest, width)}\x1b[K`);
    } else {
      this.#stream.write(`${renderProgress(this.#latest)}\n`);
      // Lines stay: the same numbers again beside a later step would be taken for that step's.
      this.#metrics = {};
      this.#tokensPerSecond = undefined;
    }
  }
}
