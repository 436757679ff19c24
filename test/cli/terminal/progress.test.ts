/** The live line: what it says, how it shortens, when it is written. */
import { describe, expect, test } from "vitest";
import { Output } from "../../../src/cli/terminal/output.ts";
import { formatDuration, ProgressLine, renderProgress } from "../../../src/cli/terminal/progress.ts";
import { CapturedStream } from "../../helpers/streams.ts";

const metrics = {
  loss: 0.48712,
  kl: 0.0312,
  "rewards/chosen": 0.3121,
  "rewards/rejected": -0.2009,
  "rewards/margins": 0.513,
  "rewards/accuracies": 0.784,
};
const progress = { step: 12, totalSteps: 100, metrics, tokensPerSecond: 12_345, secondsLeft: 83 };

describe("renderProgress", () => {
  test("everything, by its full names, where there is room", () => {
    expect(renderProgress(progress)).toBe(
      "update  12/100  loss 0.487  kl 0.031  rewards/chosen +0.312  rewards/rejected -0.201  rewards/margins +0.513  rewards/accuracies 78%  12.3k tokens/s  1:23 left",
    );
  });

  test("short names in 127 columns", () => {
    expect(renderProgress(progress, 126)).toBe(
      "update  12/100  loss 0.487  kl 0.031  chosen +0.312  rejected -0.201  margin +0.513  accuracy 78%  12.3k tokens/s  1:23 left",
    );
  });

  test("never wider than the terminal; the step stays to the end", () => {
    for (let width = 1; width <= 200; width++) {
      const line = renderProgress(progress, width);
      expect(line.length).toBeLessThanOrEqual(width);
      if (width >= 7) expect(line).toMatch(/^(update )? 12\/100/);
      if (width >= 25) expect(line).toMatch(/^update /);
    }
  });

  test("before the first logging step there are no metrics, not a row of dashes", () => {
    expect(renderProgress({ step: 1, totalSteps: 6, metrics: {}, secondsLeft: 5 })).toBe("update 1/6  0:05 left");
  });

  test("a class without rows is a dash, not NaN", () => {
    const line = renderProgress({ ...progress, metrics: { ...metrics, "rewards/chosen": Number.NaN, kl: undefined } });
    expect(line).toContain("kl -  rewards/chosen -  rewards/rejected -0.201");
  });

  test.each([
    [7, "0:07"],
    [725.4, "12:05"],
    [59.6, "1:00"],
    [3723, "1:02:03"],
  ])("%d s is %s", (seconds, text) => {
    expect(formatDuration(seconds)).toBe(text);
  });
});

describe("ProgressLine", () => {
  test("on a terminal it redraws in place, at most ten times a second, and leaves the last step standing", () => {
    const stream = new CapturedStream({ columns: 80 });
    let now = 0;
    const line = new ProgressLine(stream, { now: () => now });
    for (let step = 1; step <= 10; step++) {
      now = step * 30;
      line.update({ step, totalSteps: 10, metrics });
    }
    line.finish();
    expect(stream.text.split("\r").length - 1).toBe(4);
    expect(stream.text).toMatch(/\rupdate 10\/10 {2}loss 0\.487[^\r\n]*\n$/);
    expect(stream.text.split("\n")).toHaveLength(2);
  });

  test("elsewhere it writes a plain line every few seconds, and the last one", () => {
    const stream = new CapturedStream();
    let now = 0;
    const line = new ProgressLine(stream, { now: () => now, plainIntervalMs: 5000 });
    for (let step = 1; step <= 12; step++) {
      now = step * 1000;
      line.update({ step, totalSteps: 12, metrics });
    }
    line.finish();
    expect(stream.text).not.toContain("\r");
    expect(stream.text).not.toContain("\x1b");
    expect(stream.text.match(/^update +\d+\/12/gm)).toEqual([
      "update  1/12",
      "update  6/12",
      "update 11/12",
      "update 12/12",
    ]);
  });

  test("a plain line does not repeat what an earlier one said of earlier updates", () => {
    const stream = new CapturedStream();
    const line = new ProgressLine(stream, { now: () => 0, plainIntervalMs: 0 });
    line.update({ step: 1, totalSteps: 3, metrics, tokensPerSecond: 100 });
    line.update({ step: 2, totalSteps: 3 });
    line.update({ step: 3, totalSteps: 3, metrics });
    expect(stream.text.match(/loss|tokens\/s|\d(?=\/3)/g)).toEqual(["1", "loss", "tokens/s", "2", "3", "loss"]);
  });

  test("the time left does not count the first update, which compiles", () => {
    const stream = new CapturedStream();
    let now = 60_000;
    const line = new ProgressLine(stream, { now: () => now, plainIntervalMs: 0 });
    line.update({ step: 1, totalSteps: 11 });
    now += 2000;
    line.update({ step: 2, totalSteps: 11 });
    expect(stream.text).toMatch(/^update {2}1\/11.*(?<!left)\nupdate {2}2\/11.*0:18 left\n$/);
  });

  test("a warning goes above the line, not into it", () => {
    const stderr = new CapturedStream({ columns: 80 });
    const output = new Output({ stdout: new CapturedStream(), stderr }, { json: false, log_level: "info" });
    const line = new ProgressLine(stderr);
    output.setLive(line);
    line.update({ step: 1, totalSteps: 2, metrics: { loss: 0.5 } });
    output.warning("the reference point is noisy.");
    output.debug("not at this level");
    expect(stderr.text.replaceAll("\x1b[K", "")).toMatch(
      /^\rupdate 1\/2 {2}loss 0\.500[^\r\n]*\r.*the reference point is noisy\.\n\rupdate 1\/2 [^\n]*$/,
    );
  });
});
