/** Which evaluation is the best, when a run stops, when it is warned: on numbers made by hand. */
import { describe, expect, test } from "vitest";
import { ConfigError } from "../../../src/errors.ts";
import { Selection, type SelectionOptions } from "../../../src/kto/evaluation/selection.ts";

/** Feeds values of one metric; returns what each of them led to. */
function consider(options: SelectionOptions, values: readonly number[], metric = "eval_loss") {
  const selection = new Selection(options);
  return values.map((value, step) => selection.consider(step, { [metric]: value }, undefined));
}

const flags = (selected: readonly { readonly isBest: boolean }[]) => selected.map(({ isBest }) => isBest);

describe("the best evaluation", () => {
  test("of a loss the lowest, of anything else the highest, a tie being no improvement", () => {
    expect(flags(consider({}, [3, 2, 2, 4, 1]))).toEqual([true, true, false, false, true]);
    const margins = consider({ metric: "rewards/margins" }, [1, 3, 2, 4], "eval_rewards/margins");
    expect(flags(margins)).toEqual([true, true, false, true]);
    const kl = consider({ metric: "eval_kl", greaterIsBetter: false }, [1, 3, 0.5], "eval_kl");
    expect(flags(kl)).toEqual([true, false, true]);
  });

  test.each([
    ["loss", false],
    ["win_rate", true],
    ["win_rate/wins", true],
    ["win_rate/losses", false],
    ["win_rate/inconsistent", false],
  ])("of %s more is better: %s", (metric, more) => {
    expect(new Selection({ metric }).greaterIsBetter).toBe(more);
  });

  test("a value that is not a number is never the best", () => {
    expect(flags(consider({}, [Number.NaN, 2, Number.NaN, Number.NEGATIVE_INFINITY, 1]))).toEqual([
      false,
      true,
      false,
      false,
      true,
    ]);
  });

  test("a metric that the evaluation does not have is named with those that it has", () => {
    expect(() => consider({ metric: "accuracy" }, [1])).toThrow(ConfigError);
    expect(() => consider({ metric: "accuracy" }, [1])).toThrow(
      'metric_for_best_model is "eval_accuracy", which the evaluation of these rows does not have; give one that it has: eval_loss.',
    );
  });
});

describe("early stopping", () => {
  const stops = (options: SelectionOptions, values: readonly number[]) =>
    consider(options, values).findIndex(({ stop }) => stop !== undefined);

  test("after as many evaluations without an improvement as were allowed, an improvement starting the count again", () => {
    expect(stops({ patience: 2 }, [3, 4, 2, 3, 4, 1])).toBe(4);
    expect(stops({ patience: 1 }, [3, 2, 1])).toBe(-1);
    expect(stops({}, [1, 2, 3, 4, 5])).toBe(-1);
  });

  test("an improvement within the threshold is the best and yet does not count", () => {
    const selected = consider({ patience: 2, threshold: 0.5 }, [3, 2.75, 2.5]);
    expect(flags(selected)).toEqual([true, true, true]);
    expect(selected[2]?.stop).toBe(
      "eval_loss has not improved by more than 0.5 in 2 evaluations in a row: its best is 2.5 at step 2.",
    );
  });

  test("a value that could not be measured does not count, one that is no number does", () => {
    const selection = new Selection({ patience: 2 });
    const take = (step: number, value: number, measured: boolean) =>
      selection.consider(step, { eval_loss: value }, undefined, measured).stop;
    for (const step of [1, 2, 3, 4]) expect(take(step, Number.NaN, false)).toBeUndefined();
    expect(take(5, Number.NaN, true)).toBeUndefined();
    expect(take(6, Number.NaN, false)).toBeUndefined();
    expect(take(7, Number.NaN, true)).toBe(
      "eval_loss has not improved in 2 evaluations in a row: it was never a finite number.",
    );
  });

  test("goes on from a state that went through JSON", () => {
    const first = new Selection({ patience: 2 });
    first.consider(1, { eval_loss: 1 }, undefined);
    first.consider(2, { eval_loss: 2 }, undefined);
    const second = new Selection({ patience: 2 });
    expect(second.restore(JSON.parse(JSON.stringify(first.state)))).toBeUndefined();
    expect(second.consider(3, { eval_loss: 1.5 }, undefined)).toMatchObject({
      isBest: false,
      stop: "eval_loss has not improved in 2 evaluations in a row: its best is 1 at step 1.",
    });
  });
});

describe("a state of another metric", () => {
  const before = new Selection({ metric: "rewards/margins" });
  before.consider(1, { "eval_rewards/margins": 9 }, undefined);
  before.consider(2, { "eval_rewards/margins": 8 }, undefined);

  test.each<[string, SelectionOptions, string]>([
    ["metric", {}, "and is now that by eval_loss (less is better)"],
    [
      "direction",
      { metric: "rewards/margins", greaterIsBetter: false },
      "and is now that by eval_rewards/margins (less is better)",
    ],
  ])("another %s: the search for the best begins again, and that is said", (_, options, now) => {
    const after = new Selection({ ...options, patience: 1 });
    expect(after.restore(before.state)).toBe(
      `The best model was that by eval_rewards/margins (more is better) ${now}: the search for it begins again with the next evaluation.`,
    );
    expect(after.stop).toBeUndefined();
    // No improvement of the value before, but that tells of something else.
    expect(after.consider(3, { [after.metric]: 10 }, undefined)).toMatchObject({ isBest: true });
    expect(after.state).toMatchObject({
      metric: after.metric,
      best: { step: 3, value: 10 },
      evaluationsWithoutImprovement: 0,
    });
  });
});

describe("the warning that rows are learnt by heart", () => {
  const warnings = (margins: readonly (readonly [training: number, validation: number])[]) => {
    const selection = new Selection();
    return margins.map(([training, validation], step) => {
      const evaluation = { eval_loss: 1, "eval_rewards/margins": validation };
      return selection.consider(step, evaluation, { "rewards/margins": training }).warning !== undefined;
    });
  };

  test("comes once, with the fourth evaluation of a fall in a row while training rises from first to last", () => {
    // The training margin dips in between: its windows are noisy.
    const margins = [
      [1, 5],
      [3, 4],
      [2, 3],
      [4, 2],
      [5, 1],
    ] as const;
    expect(warnings(margins)).toEqual([false, false, false, true, false]);
  });

  test.each([
    [
      "validation rises once",
      [
        [1, 5],
        [2, 4],
        [3, 4.5],
        [4, 3],
      ],
    ],
    [
      "training falls too",
      [
        [4, 5],
        [3, 4],
        [2, 3],
        [1, 2],
      ],
    ],
    [
      "both rise",
      [
        [1, 1],
        [2, 2],
        [3, 3],
        [4, 4],
      ],
    ],
  ] as const)("not where %s", (_, margins) => {
    expect(warnings(margins)).toEqual([false, false, false, false]);
  });

  test("names both margins", () => {
    const selection = new Selection();
    const [warning] = [1, 2, 3, 4].flatMap((step) => {
      const evaluation = { eval_loss: 1, "eval_rewards/margins": 1 / step };
      return selection.consider(step, evaluation, { "rewards/margins": step }).warning ?? [];
    });
    expect(warning).toMatch(
      /^since step 1 the reward margin of the training rows rose from 1\.00 to 4\.00 while that of the validation rows fell from 1\.00 to 0\.250 in 3 evaluations in a row/,
    );
  });

  test("margins that are no numbers are left out of what a checkpoint holds", () => {
    const selection = new Selection();
    for (const margin of [Number.NaN, Number.POSITIVE_INFINITY, 1]) {
      selection.consider(1, { eval_loss: 1, "eval_rewards/margins": margin }, { "rewards/margins": 2 });
      selection.consider(1, { eval_loss: 1, "eval_rewards/margins": 2 }, { "rewards/margins": margin });
    }
    expect(selection.state.margins).toEqual([
      { step: 1, training: 2, validation: 1 },
      { step: 1, training: 1, validation: 2 },
    ]);
  });
});
