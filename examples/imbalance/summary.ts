/** Combines the runs of all seeds: means with intervals, the differences for each seed, and the verdict. */
import { type Mean, meanInterval, type WinRate, winRate } from "../../src/index.ts";
import type { Outcome, Weighting } from "./train.ts";

/** Whose labels are trained and evaluated on. */
export type Labels = "annotators" | "shuffled";

export interface Run {
  readonly seed: number;
  readonly labels: Labels;
  readonly weighting: Weighting;
  readonly outcome: Outcome;
}

/** Fixed before any reported run (docs/imbalance.md): how far from 50% a mean of shuffled labels may lie. */
export const nearChance = 0.05;

/** The figures of a run that are shown, the primary one first. */
export const figures: Readonly<Record<string, (outcome: Outcome) => number>> = {
  "accuracy (trainer's)": ({ accuracy }) => accuracy,
  "desirable rows right": ({ desirableRight }) => desirableRight,
  "undesirable rows right": ({ undesirableRight }) => undesirableRight,
  "paired accuracy": ({ pairedAccuracy }) => pairedAccuracy,
  "accuracy by true labels": ({ byTrueLabels: { desirableRight, undesirableRight } }) =>
    (desirableRight + undesirableRight) / 2,
  "paired accuracy by true labels": ({ byTrueLabels }) => byTrueLabels.pairedAccuracy,
};

export interface Line {
  readonly labels: Labels;
  readonly figure: string;
  readonly equal: Mean;
  readonly auto: Mean;
  /** `auto` - `1/1` of the same seed. */
  readonly difference: Mean;
  /** The same, Nadeau and Bengio's interval, for comparisons that the data set does not hold. */
  readonly corrected: Mean;
}

export interface Summary {
  readonly lines: readonly Line[];
  /** Seeds in which `auto` has the better accuracy, annotators' labels. */
  readonly wins: WinRate;
  /** Sentences; none where the direction is shown. */
  readonly failures: readonly string[];
}

/**
 * @param runs both weightings under both labels for each of two seeds or more
 * @param overlap held-out rows over training rows, see `meanInterval`
 */
export function summarize(runs: readonly Run[], overlap: number): Summary {
  const lines = (["annotators", "shuffled"] as const).flatMap((labels) =>
    Object.entries(figures).map(([figure, figureOf]): Line => {
      const [equal, auto] = (["1/1", "auto"] as const).map((weighting) => valuesOf(runs, labels, weighting, figureOf));
      if (!equal || !auto) throw new Error("there are two weightings");
      const differences = auto.map((value, at) => value - (equal[at] ?? Number.NaN));
      return {
        ...{ labels, figure, equal: meanInterval(equal), auto: meanInterval(auto) },
        difference: meanInterval(differences),
        corrected: meanInterval(differences, overlap),
      };
    }),
  );
  const primary = (labels: Labels) => lines.find((line) => line.labels === labels) as Line;
  const accuracies = (weighting: Weighting) => valuesOf(runs, "annotators", weighting, ({ accuracy }) => accuracy);
  const equal = accuracies("1/1");
  const shuffled = primary("shuffled");
  return {
    lines,
    wins: winRate(accuracies("auto").map((value, at) => [equal[at] ?? Number.NaN, value] as const)),
    failures: [
      ...(primary("annotators").difference.low > 0 ? [] : ["the interval of the difference does not lie above 0"]),
      ...(["equal", "auto"] as const)
        .filter((arm) => !(Math.abs(shuffled[arm].mean - 0.5) <= nearChance))
        .map((arm) => `with shuffled labels and ${arm} weights the accuracy is not near 50%`),
    ],
  };
}

/** In the order of the seeds. */
function valuesOf(
  runs: readonly Run[],
  labels: Labels,
  weighting: Weighting,
  figureOf: (outcome: Outcome) => number,
): number[] {
  return runs
    .filter((run) => run.labels === labels && run.weighting === weighting)
    .sort((a, b) => a.seed - b.seed)
    .map(({ outcome }) => figureOf(outcome));
}

/** The lines as a Markdown table. */
export function tableText({ lines }: Summary): string {
  const percent = (value: number) => (100 * value).toFixed(1);
  const share = ({ mean, low, high }: Mean) => `${percent(mean)} (${percent(low)} to ${percent(high)})`;
  return [
    "| labels | share of validation rows in % (95% interval) | weights 1 and 1 | `auto` | difference | its corrected interval |",
    "|---|---|---|---|---|---|",
    ...lines.map(
      ({ labels, figure, equal, auto, difference, corrected }) =>
        `| ${labels} | ${figure} | ${share(equal)} | ${share(auto)} | ${share(difference)} | ${percent(corrected.low)} to ${percent(corrected.high)} |`,
    ),
  ].join("\n");
}
