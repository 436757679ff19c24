/**
 * Whether a training run learnt, said from its log: the margin of its training rows, the margin of rows that it was not
 * trained on, the win rate of a judge, each against its 95% interval. No significance test, and no judgement of texts.
 */
import { counted } from "../../errors.ts";
import { type Mean, meanInterval } from "./statistics.ts";

/** A line of metrics.jsonl. */
export type LoggedLine = Readonly<Record<string, number | null | undefined>>;

export type Outcome = "yes" | "no" | "open";

/** One measure, from its first value to its last. */
export interface MeasuredChange {
  readonly name: string;
  readonly first: number | undefined;
  readonly last: number;
  /** Confidence interval of the last value. */
  readonly interval?: Pick<Mean, "low" | "high"> | undefined;
  /** Over what the last value was taken. */
  readonly note: string;
  /** A share of all, shown in percent. */
  readonly isShare?: boolean;
}

export interface RunVerdict {
  readonly findings: readonly MeasuredChange[];
  readonly outcome: Outcome;
  /** Whole sentences. */
  readonly text: string;
}

/** Windows at the end of a run whose margins are taken together: a quarter, so many at least and at most. */
const WINDOWS = { least: 4, most: 20 } as const;

const MARGIN = "rewards/margins";

/** @returns undefined for a log that holds nothing to judge */
export function runVerdict(log: readonly LoggedLine[], method: "kto" | "sft"): RunVerdict | undefined {
  const found = method === "kto" ? ofKto(log) : ofSft(log);
  return found.findings.length === 0 ? undefined : found;
}

function ofKto(log: readonly LoggedLine[]): RunVerdict {
  const loss = lossOf(log, "loss", "loss");
  const margin = trainingMargin(log);
  const validationLoss = lossOf(log, "eval_loss", "validation loss");
  const validation = lastWithInterval(log, `eval_${MARGIN}`, "validation margin", "rows that were not trained on");
  const winRate = lastWithInterval(log, "eval_win_rate", "win rate", "against the model before training, by the judge");
  const findings = [loss, margin, validationLoss, validation, winRate && { ...winRate, isShare: true }];
  const present = findings.filter((finding) => finding !== undefined);
  const trained = side(margin, 0);
  const unseen = side(validation, 0);
  const wins = side(winRate, 0.5);
  const parts = [
    trainedSentence(margin, trained, unseen),
    ...(trained === "yes" ? [] : isRuined(log) ? [RUINED] : trained === "open" && margin?.interval ? [LONGER] : []),
    ...(validation === undefined ? [] : [unseenSentence(trained, unseen, validation)]),
    ...(winRate === undefined ? [] : [winSentence(wins)]),
    ...(validation === undefined && winRate === undefined
      ? ["Whether it also learnt for other rows was not measured: give validation_split, or a judge."]
      : []),
  ];
  const signs = [...(winRate ? [wins] : []), ...(validation ? [unseen] : [])];
  const outcome = trained !== "yes" ? trained : signs.includes("no") ? "no" : signs.includes("open") ? "open" : "yes";
  return { findings: present, outcome, text: parts.join(" ") };
}

function trainedSentence(margin: MeasuredChange | undefined, trained: Outcome, unseen: Outcome): string {
  if (margin === undefined) return "The log holds no margin, so it cannot be said whether the model learnt.";
  if (margin.interval === undefined) {
    return "Too few windows were logged to say whether the model learnt its training rows: take more updates, or a smaller logging_steps.";
  }
  if (trained === "yes") {
    return `It learnt${unseen === "yes" ? "" : " its training rows"}: thumbs up are rewarded above thumbs down, beyond the interval.`;
  }
  if (trained === "no") return "It learnt the contrary: thumbs down are rewarded above thumbs up; look at the labels.";
  return "It is not shown that it learnt to tell thumbs up from thumbs down: the interval of the margin includes 0.";
}

/** Whether most rows of the last window hardly move the model any more, as after steps that were far too large. */
function isRuined(log: readonly LoggedLine[]): boolean {
  return (valuesOf(log, "saturated").at(-1) ?? 0) >= 0.5;
}

const LONGER = "Take more updates, or a higher learning_rate.";
const RUINED =
  "Most rows are saturated, as after steps that are too large: start again from the model before, with a third of the learning_rate or less.";

function unseenSentence(trained: Outcome, unseen: Outcome, { interval }: MeasuredChange): string {
  if (interval === undefined) return "There are too few validation rows for an interval of their margin.";
  const rows = "validation rows, which it was not trained on,";
  if (unseen === "yes") return `The ${rows} show it${trained === "yes" ? " too" : ""}.`;
  if (unseen === "open") return `The ${rows} do not show it: the interval of their margin includes 0.`;
  const byHeart = trained === "yes" ? ": it learnt its training rows by heart" : " too";
  return `On the ${rows} thumbs down are rewarded above thumbs up${byHeart}.`;
}

function winSentence(wins: Outcome): string {
  if (wins === "yes") return "The judge prefers its answers to those before training.";
  if (wins === "no") return "The judge prefers the answers before training to its own.";
  return "The judge sees no clear difference: the interval of the win rate includes 50%.";
}

function ofSft(log: readonly LoggedLine[]): RunVerdict {
  const loss = lossOf(log, "loss", "loss");
  const validation = lossOf(log, "eval_loss", "validation loss");
  const findings = [loss, validation].filter((finding) => finding !== undefined);
  const [trained, unseen] = [loss, validation].map(fallen);
  const outcome = trained !== "yes" || validation === undefined ? (trained ?? "open") : (unseen ?? "open");
  const texts = {
    yes: "The loss of the training rows fell: their completions have become likelier.",
    no: "The loss of the training rows did not fall: take more updates, or another learning_rate.",
    open: "Too few windows were logged to say whether the loss fell.",
  };
  const others = {
    yes: "So did that of rows that were not trained on.",
    no: "That of rows that were not trained on did not: it learns its rows by heart.",
    open: "Rows that were not trained on were evaluated once, so their loss has nothing to be compared with.",
  };
  const told = validation === undefined ? [] : [others[unseen ?? "open"]];
  return { findings, outcome, text: [texts[trained ?? "open"], ...told].join(" ") };
}

/** Whether a value lies above a bound with its whole interval, below it, or neither. */
function side(finding: MeasuredChange | undefined, bound: number): Outcome {
  if (finding?.interval === undefined) return "open";
  const { low, high } = finding.interval;
  return low > bound ? "yes" : high < bound ? "no" : "open";
}

function fallen(finding: MeasuredChange | undefined): Outcome {
  if (finding?.first === undefined) return "open";
  return finding.last < finding.first ? "yes" : "no";
}

function lossOf(log: readonly LoggedLine[], metric: string, name: string): MeasuredChange | undefined {
  const values = valuesOf(log, metric);
  const last = values.at(-1);
  if (last === undefined) return undefined;
  return { name, first: values.length > 1 ? values[0] : undefined, last, note: "" };
}

/** The mean of the last windows: a single one is noisy. */
function trainingMargin(log: readonly LoggedLine[]): MeasuredChange | undefined {
  const values = valuesOf(log, MARGIN);
  const [first] = values;
  if (first === undefined) return undefined;
  const size = Math.min(WINDOWS.most, Math.max(WINDOWS.least, Math.ceil(values.length / 4)));
  const recent = values.slice(-size);
  const name = "margin";
  if (recent.length < 2) return { name, first: undefined, last: first, note: "one logged window" };
  const { mean, ...interval } = meanInterval(recent);
  const note = `over the last ${recent.length} of ${counted(values.length, "logged window")}`;
  return { name, first, last: mean, interval, note };
}

/** A metric that is logged with its interval, as `<name>/low` and `<name>/high`. */
function lastWithInterval(
  log: readonly LoggedLine[],
  metric: string,
  name: string,
  note: string,
): MeasuredChange | undefined {
  const lines = log.filter((line) => isNumber(line[metric]));
  const [first, last] = [lines[0], lines.at(-1)];
  const value = last?.[metric];
  if (last === undefined || !isNumber(value)) return undefined;
  const [low, high] = [last[`${metric}/low`], last[`${metric}/high`]];
  return {
    name,
    first: first === last ? undefined : (first?.[metric] ?? undefined),
    last: value,
    interval: isNumber(low) && isNumber(high) ? { low, high } : undefined,
    note,
  };
}

function valuesOf(log: readonly LoggedLine[], metric: string): number[] {
  return log.map((line) => line[metric]).filter(isNumber);
}

function isNumber(value: number | null | undefined): value is number {
  return typeof value === "number" && Number.isFinite(value);
}
