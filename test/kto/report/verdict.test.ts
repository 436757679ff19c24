/** What a log is said to show: each outcome, by hand, and that nothing is claimed of what was not measured. */
import { describe, expect, test } from "vitest";
import { type LoggedLine, runVerdict } from "../../../src/kto/report/verdict.ts";

const margins = (...values: readonly number[]): LoggedLine[] => {
  return values.map((value, i) => ({ step: i + 1, loss: 0.5, "rewards/margins": value }));
};
const learnt = margins(0, 0.1, 0.3, 0.5, 0.52, 0.48, 0.51);
const margin = "eval_rewards/margins";
const validation = (low: number, high: number): LoggedLine => ({
  ...{ eval_loss: 0.4, [margin]: (low + high) / 2, [`${margin}/low`]: low, [`${margin}/high`]: high },
});
const judged = (low: number, high: number): LoggedLine => ({
  ...{ eval_win_rate: (low + high) / 2, "eval_win_rate/low": low, "eval_win_rate/high": high },
});

describe("KTO", () => {
  test.each([
    ["margin alone", learnt, "yes", /^It learnt its training rows: .* was not measured: give validation_split/],
    ["a margin around 0", margins(0.1, -0.1, 0.05, -0.05), "open", /^It is not shown that it learnt to tell thumbs up/],
    [
      "the same for too few updates",
      margins(0.1, -0.1, 0.05, -0.05),
      "open",
      /includes 0\. Take more updates, or a higher/,
    ],
    [
      "the same for too large steps",
      margins(0.1, -9, 9, -0.05).map((line) => ({ ...line, saturated: 0.98 })),
      "open",
      /includes 0\. Most rows are saturated, as after steps that are too large: start again .* a third of the learning_rate/,
    ],
    ["a margin below 0", margins(-0.5, -0.52, -0.49, -0.5), "no", /^It learnt the contrary/],
    ["one window", margins(0.5), "open", /^Too few windows were logged/],
    [
      "validation too",
      [...learnt, validation(0.1, 0.3)],
      "yes",
      /^It learnt: .* The validation rows, which .* show it too\.$/,
    ],
    [
      "validation around 0",
      [...learnt, validation(-0.1, 0.3)],
      "open",
      /trained on, do not show it: the interval of their margin includes 0\.$/,
    ],
    [
      "validation below 0",
      [...learnt, validation(-0.3, -0.1)],
      "no",
      /thumbs up: it learnt its training rows by heart\.$/,
    ],
    [
      "training and validation below 0, which is nothing learnt by heart",
      [...margins(-0.5, -0.52, -0.49, -0.5), validation(-0.3, -0.1)],
      "no",
      /^It learnt the contrary.* On the validation rows, .* thumbs down are rewarded above thumbs up too\.$/,
    ],
    [
      "an unsure margin, a sure validation",
      [...margins(0.1, -0.1, 0.05, -0.05), validation(0.1, 0.3)],
      "open",
      /show it\.$/,
    ],
    ["a judge who prefers it", [...learnt, judged(0.6, 0.7)], "yes", /The judge prefers its answers to those before/],
    ["a judge who does not", [...learnt, judged(0.3, 0.4)], "no", /prefers the answers before training to its own\.$/],
    ["an undecided judge", [...learnt, judged(0.45, 0.6)], "open", /the interval of the win rate includes 50%\.$/],
    [
      "an unsure margin and a judge",
      [...margins(0.1, -0.1), judged(0.6, 0.7)],
      "open",
      /^It is not shown that it learnt/,
    ],
  ] as const)("%s", (_, log, outcome, sentence) => {
    const verdict = runVerdict(log, "kto");
    expect(verdict?.outcome).toBe(outcome);
    expect(verdict?.text).toMatch(sentence);
  });

  test("the margin is the mean of the last windows, a quarter of them and four at least, with Student's interval", () => {
    const [, finding] = runVerdict(learnt, "kto")?.findings ?? [];
    expect(finding).toMatchObject({ name: "margin", first: 0, note: "over the last 4 of 7 logged windows" });
    expect(finding?.last).toBeCloseTo((0.5 + 0.52 + 0.48 + 0.51) / 4, 12);
    // t of three degrees of freedom is 3.1824; the standard error of the four is 0.008539.
    expect(finding?.interval?.low).toBeCloseTo(0.5025 - 3.1824 * 0.008539, 5);
  });

  test("a win rate that could not be measured at the last evaluation is that of the one before", () => {
    const log: LoggedLine[] = [...learnt, judged(0.6, 0.7), { eval_win_rate: null, "eval_win_rate/low": null }];
    const last = expect.closeTo(0.65, 12);
    expect(runVerdict(log, "kto")?.findings.at(-1)).toMatchObject({ name: "win rate", first: undefined, last });
  });

  test("an empty log says nothing", () => {
    expect(runVerdict([], "kto")).toBeUndefined();
  });
});

describe("supervised fine-tuning", () => {
  const losses = (name: string, ...values: readonly number[]): LoggedLine[] =>
    values.map((value) => ({ [name]: value }));

  test.each([
    ["a loss that fell", losses("loss", 2, 1), "yes", /^The loss of the training rows fell: [^.]*\.$/],
    ["a loss that rose", losses("loss", 1, 2), "no", /did not fall/],
    ["one window", losses("loss", 1), "open", /^Too few windows/],
    ["validation too", [...losses("loss", 2, 1), ...losses("eval_loss", 2, 1.5)], "yes", /So did that of rows/],
    ["validation that rose", [...losses("loss", 2, 1), ...losses("eval_loss", 2, 2.5)], "no", /by heart\.$/],
    ["validation once", [...losses("loss", 2, 1), ...losses("eval_loss", 2)], "open", /evaluated once/],
  ] as const)("%s", (_, log, outcome, sentence) => {
    const verdict = runVerdict(log, "sft");
    expect(verdict?.outcome).toBe(outcome);
    expect(verdict?.text).toMatch(sentence);
  });
});
