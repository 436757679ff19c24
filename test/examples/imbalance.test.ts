/**
 * The imbalance study: its rows, its split and its figures by hand, and a run of two updates, so that it cannot rot.
 */
import { describe, expect, test } from "vitest";
import {
  type Comparison,
  judge,
  majority,
  maxLength,
  promptOf,
  readComparisons,
} from "../../examples/imbalance/comparisons.ts";
import { splitOf } from "../../examples/imbalance/design.ts";
import { figures, type Run, summarize, tableText } from "../../examples/imbalance/summary.ts";
import { type Outcome, rewardShares, trainArm, validationLogProbs } from "../../examples/imbalance/train.ts";
import { modelFolder } from "../../examples/quickstart/stories.ts";
import { loadTokenizer, Model, tokenizeRows } from "../../src/index.ts";
import { sharedDevice } from "../helpers/device.ts";

const comparisons = await readComparisons();
const { rows, ties, unfit } = judge(comparisons);
const tokenizer = await loadTokenizer(modelFolder);
const { examples, report } = tokenizeRows(rows, { tokenizer, vocabSize: 512, contextLength: 512, maxLength });

describe("rows of the majority vote", () => {
  test.each([
    [[1, 1, 2], 1],
    [[2, 1, 2], 2],
    [[0, 0, 1], 0],
    [[0, 1, 2], undefined],
  ])("votes %j say %s", (votes, vote) => {
    expect(majority(votes)).toBe(vote);
  });

  test("the preferred answer is desirable; ties and empty answers are left out and counted", () => {
    const comparison = (responses: readonly [string, string], ...votes: number[]): Comparison => ({
      ...{ idx: 0, instruction: "Say", input: "it.", responses, votes },
    });
    const judged = judge([
      comparison(["a", "b"], 2, 2, 1),
      comparison(["a", "b"], 0, 0, 1),
      comparison(["a", " "], 1, 1, 1),
      comparison(["c", "d"], 1, 1, 1),
    ]);
    expect(judged).toMatchObject({ ties: 1, unfit: 1 });
    expect(judged.rows.map(({ completion, label, pair }) => [completion, label, pair])).toEqual([
      ["b", true, 0],
      ["a", false, 0],
      ["c", true, 1],
      ["d", false, 1],
    ]);
    expect(judged.rows[0]?.prompt).toBe("Say\nit.\n");
    expect(promptOf({ instruction: "Say", input: "" })).toBe("Say\n");
  });

  test("the committed comparisons are those that docs/imbalance.md counts, and all fit", () => {
    expect({ comparisons: comparisons.length, rows: rows.length, ties, unfit }).toEqual({
      ...{ comparisons: 508, rows: 838, ties: 84, unfit: 5 },
    });
    expect(report).toMatchObject({ examples: rows.length, cut: 0, warnings: [], advice: [] });
  });
});

describe.each([false, true])("the split of a seed, labels shuffled: %s", (shuffled) => {
  const { training, validation } = splitOf(examples, 3, shuffled);
  const desirable = (list: typeof training) => list.filter(({ label }) => label).length;
  const prompts = (list: typeof training) => new Set(list.map(({ promptIds }) => promptIds.join()));

  test("no prompt is on both sides", () => {
    const held = prompts(validation);
    expect([...prompts(training)].filter((prompt) => held.has(prompt))).toEqual([]);
  });

  test("the validation rows are balanced, and the same rows whatever the labels", () => {
    expect(desirable(validation)).toBe(validation.length / 2);
    expect(validation.map(({ index }) => index)).toEqual(
      splitOf(examples, 3, false).validation.map((row) => row.index),
    );
  });

  test("all undesirable training rows are kept and a tenth of the desirable ones", () => {
    const comparisonsTrained = (examples.length - validation.length) / 2;
    expect(training.length - desirable(training)).toBe(comparisonsTrained);
    expect(desirable(training)).toBe(Math.round(comparisonsTrained / 10));
  });

  test("about half of the comparisons have their labels turned, or none", () => {
    const turned = validation.filter(({ label, index }) => label !== (index % 2 === 0)).length / validation.length;
    expect(Math.abs(turned - (shuffled ? 0.5 : 0))).toBeLessThan(shuffled ? 0.15 : 1e-9);
  });
});

test("rewardShares: the sides of the reference point, and comparisons with the better answer ahead", () => {
  const pair = (pairId: number) => [
    { label: true, pairId },
    { label: false, pairId },
  ];
  const shares = rewardShares([...pair(0), ...pair(1), ...pair(2)], [2, 1, -1, 0.5, 3, 3], 1);
  // Desirable 2, -1, 3 against 1; undesirable 1, 0.5, 3, of which 1 is on no side.
  expect(shares).toEqual({ desirableRight: 2 / 3, undesirableRight: 1 / 3, pairedAccuracy: (1 + 0 + 0.5) / 3 });
});

describe("the verdict", () => {
  const outcome = (accuracy: number): Outcome => {
    const shares = { desirableRight: 0.5, undesirableRight: 0.5, pairedAccuracy: 0.5 };
    const facts = { desirableWeight: 1, updates: 1, seconds: 1, evaluation: {} };
    return { accuracy, ...shares, byTrueLabels: shares, ...facts };
  };
  const runs = (equal: number[], auto: number[], shuffled: number): Run[] =>
    equal.flatMap((accuracy, at): Run[] => {
      const seed = at + 1;
      return [
        { seed, labels: "annotators", weighting: "1/1", outcome: outcome(accuracy) },
        { seed, labels: "annotators", weighting: "auto", outcome: outcome(auto[at] ?? Number.NaN) },
        { seed, labels: "shuffled", weighting: "1/1", outcome: outcome(0.5) },
        { seed, labels: "shuffled", weighting: "auto", outcome: outcome(shuffled + at / 1000) },
      ];
    });

  test("the direction is shown where auto is better in every seed and shuffled labels teach nothing", () => {
    const summary = summarize(runs([0.5, 0.51, 0.5], [0.56, 0.58, 0.57], 0.5), 1 / 3);
    expect(summary.failures).toEqual([]);
    expect(summary.wins).toMatchObject({ wins: 3, losses: 0 });
    expect(summary.lines).toHaveLength(2 * Object.keys(figures).length);
    expect(summary.lines[0]?.difference.mean).toBeCloseTo(0.2 / 3, 12);
    expect(tableText(summary)).toContain("| annotators | accuracy (trainer's) | 50.3 (");
  });

  test.each([
    ["a difference that may be nothing", [0.5, 0.6, 0.55], [0.56, 0.5, 0.57], 0.5, /does not lie above 0/],
    ["a worse accuracy", [0.6, 0.6, 0.6], [0.5, 0.5, 0.5], 0.5, /does not lie above 0/],
    ["shuffled labels that are learnt", [0.5, 0.51, 0.5], [0.56, 0.58, 0.57], 0.6, /shuffled labels and auto weights/],
    ["no number", [0.5, 0.51, 0.5], [0.56, Number.NaN, 0.57], Number.NaN, /does not lie above 0/],
  ])("%s does not show it", (_, equal, auto, shuffled, sentence) => {
    expect(summarize(runs(equal, auto, shuffled), 1 / 3).failures.join("; ")).toMatch(sentence);
  });
});

test("a run of two updates ends with every figure, and auto solves the weight", async () => {
  const device = await sharedDevice();
  // Whole comparisons: a better answer alone has nothing to be compared with.
  const tokens = ({ promptIds, completionIds }: (typeof examples)[number]) => promptIds.length + completionIds.length;
  const long = new Set(examples.filter((row) => tokens(row) > 90).map(({ pairId }) => pairId));
  const short = examples.filter(({ pairId }) => !long.has(pairId));
  const split = {
    training: short.slice(0, 24).filter(({ label }, row) => !label || row === 0),
    validation: short.slice(-6),
  };
  const undesirable = split.training.filter(({ label }) => !label).length;
  const base = await Model.load(device, modelFolder);
  const before = await validationLogProbs(base, split.validation);
  base.free();
  const outcome = await trainArm(device, {
    ...{ split, weighting: "auto", seed: 1, truth: split.validation, before },
    options: { per_device_train_batch_size: 8, max_steps: 2 },
  });
  expect(outcome.updates).toBe(2);
  expect(outcome.desirableWeight).toBeCloseTo((4 / 3) * (undesirable / (split.training.length - undesirable)), 10);
  for (const figureOf of Object.values(figures)) {
    expect(figureOf(outcome)).toBeGreaterThanOrEqual(0);
    expect(figureOf(outcome)).toBeLessThanOrEqual(1);
  }
  expect(outcome.evaluation.eval_loss).toBeGreaterThan(0);
});
