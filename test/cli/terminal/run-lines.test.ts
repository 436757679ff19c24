/**
 * The picture of a training run and its summary, whole, as they stand in test/fixtures/terminal: at three widths, for
 * dark and light terminals, with escape sequences, so that `cat` shows them. `vitest -u` writes them anew.
 */
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { Room } from "../../../src/cli/terminal/display.ts";
import { runLines } from "../../../src/cli/terminal/run-lines.ts";
import { type RunView, startView, viewAfter } from "../../../src/cli/terminal/run-view.ts";
import { type Line, painted, span, type Theme, widthOf } from "../../../src/cli/terminal/styled.ts";
import { summaryLines } from "../../../src/cli/terminal/summary.ts";
import { type Work, workLines } from "../../../src/cli/terminal/work.ts";
import type { Metrics } from "../../../src/kto/method/metrics.ts";
import { type LoggedLine, runVerdict } from "../../../src/kto/report/verdict.ts";
import { fixtures } from "../../helpers/folders.ts";

/** A run that learns, with the noise of small batches. */
function metricsAt(step: number): Metrics {
  const noise = (at: number) => Math.sin(12.9898 * step + at) / 12;
  const chosen = -0.002 * step + 0.6 * noise(1);
  const rejected = -0.011 * step + noise(2);
  return {
    loss: 0.5 - 0.003 * step + 0.4 * noise(3),
    kl: Math.max(0, 0.05 * Math.sin(step / 9)),
    ...{ "rewards/chosen": chosen, "rewards/rejected": rejected, "rewards/margins": chosen - rejected },
    "rewards/accuracies": Math.min(0.95, 0.5 + 0.006 * step + 0.5 * noise(4)),
    ...{ tokens_per_second: 12_345, saturated: 0, skipped_steps: 0 },
    ...{ "bytes/weights": 120 * 2 ** 20, "bytes/optimizer": 92 * 2 ** 20 },
  };
}

const start = startView("kto", { step: 0, totalSteps: 60 }, 0);

/** The run after so many updates of 1.5 seconds. */
function after(steps: number, from: RunView = start): RunView {
  return Array.from({ length: steps }, (_, i) => i + 1).reduce(
    (view, step) => viewAfter(view, { kind: "step", step, at: 1500 * step, metrics: metricsAt(step) }),
    from,
  );
}

const dark: Theme = { background: "dark", colors: true, unicode: true };
const themes: readonly Theme[] = [dark, { ...dark, background: "light" }];

function room(columns: number, now: number, theme: Theme = { ...dark, colors: false }): Room {
  return { columns: columns - 1, rows: 24, theme, now };
}

function text(lines: readonly Line[], theme: Theme): string {
  return lines.map((line) => `${painted(line, theme)}\n`).join("");
}

const log: LoggedLine[] = Array.from({ length: 60 }, (_, i) => ({ step: i + 1, ...metricsAt(i + 1) }));
const margin = "eval_rewards/margins";
log.splice(30, 0, { step: 30, eval_loss: 0.472, [margin]: 0.101, [`${margin}/low`]: 0.032, [`${margin}/high`]: 0.17 });
log.push({
  ...{ step: 60, eval_loss: 0.441, [margin]: 0.236, [`${margin}/low`]: 0.117, [`${margin}/high`]: 0.355 },
  ...{ eval_win_rate: 0.729, "eval_win_rate/low": 0.671, "eval_win_rate/high": 0.779 },
});
const places = [
  { what: "model", path: "out/my-model" },
  { what: "metrics", path: "out/my-model/metrics.jsonl" },
  { what: "checkpoint", path: "out/my-model/checkpoint-60" },
];
const loading: Work = { what: "loading ./models/SmolLM2-135M", since: 0, done: 45, total: 100 };
const sampling: Work = { what: "continuing 32 prompts", since: 0, done: 1234, unit: "tokens" };

describe.each([60, 80, 120])("at %d columns", (columns) => {
  test.each(themes)("on a $background terminal", async (theme) => {
    const wide = { ...room(columns, 52_400, theme), compiling: undefined };
    const compiling = { ...room(columns, 3200, theme), compiling: { done: 12, asked: 34 } };
    const blocks: [string, readonly Line[]][] = [
      ["loading", workLines(loading, room(columns, 3200, theme))],
      ["sampling", workLines(sampling, room(columns, 4700, theme))],
      ["before the first update", runLines(start, compiling)],
      ["after 34 of 60 updates", runLines(after(34), wide)],
      ["the summary", summaryLines(runVerdict(log, "kto"), places, columns - 1)],
    ];
    for (const line of blocks.flatMap(([, lines]) => lines)) expect(widthOf(line)).toBeLessThan(columns);
    const whole = blocks.map(
      ([title, lines]) => `${text([[span(`# ${title}`, "faint")]], theme)}${text(lines, theme)}`,
    );
    const golden = join(fixtures, "terminal", `${columns}-${theme.background}.txt`);
    await expect(whole.join("\n")).toMatchFileSnapshot(join(process.cwd(), golden));
  });
});

test("without colours and block characters it is plain ASCII", () => {
  const plain = { background: "dark", colors: false, unicode: false } as const;
  const lines = [...runLines(after(34), room(80, 52_400, plain)), ...workLines(loading, room(80, 3200, plain))];
  expect(text(lines, plain)).toMatch(/^[\x20-\x7e\n]*$/);
  expect(text(lines, plain)).toContain("update 34/60  ======================");
});

test("never wider than the terminal, however narrow; the step stays", () => {
  for (let columns = 9; columns <= 200; columns++) {
    const lines = [
      ...runLines(after(34), room(columns, 52_400)),
      ...workLines(loading, room(Math.max(60, columns), 900)),
    ];
    for (const line of runLines(after(34), room(columns, 52_400))) expect(widthOf(line)).toBeLessThan(columns);
    expect(text(lines, { ...dark, colors: false })).toMatch(/^(update )?34\/60/);
  }
});

test("a terminal of few lines has one line", () => {
  expect(runLines(after(34), { ...room(80, 52_400), rows: 5 })).toHaveLength(1);
});

test("an update that takes long has a clock, and so have skipped updates and saturation their words", () => {
  const last = viewAfter(after(33), {
    kind: "step",
    ...{ step: 34, at: 51_000, metrics: { ...metricsAt(34), skipped_steps: 2, saturated: 0.75 } },
  });
  const foot = (now: number) => text(runLines(last, room(120, now)).slice(-1), { ...dark, colors: false });
  expect(foot(51_500)).toBe("2 skipped   75% saturated   12.3k tokens/s   device 212.0 MiB   0:52 so far\n");
  expect(foot(58_000)).toContain("update 35 since 0:07");
});

test("supervised fine-tuning shows its own metrics", () => {
  const sft = startView("sft", { step: 0, totalSteps: 2 }, 0);
  const metrics = { loss: 1.25, mean_token_accuracy: 0.61, entropy: 2.5 };
  const lines = runLines(viewAfter(sft, { kind: "step", step: 1, at: 10, metrics }), room(80, 100));
  expect(text(lines, { ...dark, colors: false })).toMatch(/loss +1\.250 ▁ +accuracy +61% ▁\s+entropy +2\.500 ▁/);
});

test("a run that is resumed begins with the curves of the run before", () => {
  const resumed = Array.from({ length: 20 }, (_, i) => metricsAt(i + 1)).reduce(
    (view, metrics) => viewAfter(view, { kind: "logged before", metrics }),
    startView("kto", { step: 20, totalSteps: 60 }, 0),
  );
  const next = viewAfter(resumed, { kind: "step", step: 21, at: 1500, metrics: metricsAt(21) });
  expect(next.curves).toEqual(after(21).curves);
});
