/** A run on one line, the display on a terminal's screen and without one, and what goes on beside it. */
import { afterEach, describe, expect, test, vi } from "vitest";
import { showingDownloads } from "../../../src/cli/terminal/downloads.ts";
import { formatDuration } from "../../../src/cli/terminal/numbers.ts";
import { Output } from "../../../src/cli/terminal/output.ts";
import { type RunProgress, renderProgress } from "../../../src/cli/terminal/progress.ts";
import { RunPart } from "../../../src/cli/terminal/run-part.ts";
import { startView } from "../../../src/cli/terminal/run-view.ts";
import { ToldWork, working } from "../../../src/cli/terminal/work.ts";
import { Screen } from "../../helpers/screen.ts";
import { CapturedStream } from "../../helpers/streams.ts";

const metrics = {
  loss: 0.48712,
  kl: 0.0312,
  "rewards/chosen": 0.3121,
  "rewards/rejected": -0.2009,
  "rewards/margins": 0.513,
  "rewards/accuracies": 0.784,
};
const progress: RunProgress = {
  ...{ method: "kto" as const, step: 12, totalSteps: 100, metrics },
  ...{ tokensPerSecond: 12_345, secondsLeft: 83 },
};

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
    const first = { method: "kto", step: 1, totalSteps: 6, metrics: {}, secondsLeft: 5 } as const;
    expect(renderProgress(first)).toBe("update 1/6  0:05 left");
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

/** An output whose clock the test turns; the display's timer runs with it. */
function outputOn(stderr: CapturedStream, options: { quiet?: boolean } = {}) {
  vi.useFakeTimers({ toFake: ["performance", "setInterval", "clearInterval"] });
  const stdout = new CapturedStream();
  const { KTO_SILENCE } = process.env;
  delete process.env.KTO_SILENCE;
  try {
    return { output: new Output({ stdout, stderr }, { json: false, log_level: "info", ...options }), stdout };
  } finally {
    process.env.KTO_SILENCE = KTO_SILENCE;
  }
}

function screenOf(stream: CapturedStream): string[] {
  const screen = new Screen(stream.columns);
  screen.write(stream.text);
  return screen.lines;
}

afterEach(() => {
  vi.useRealTimers();
});

/** A run of so many updates on the display. */
function showRun(output: Output, totalSteps: number) {
  const part = new RunPart(startView("kto", { step: 0, totalSteps }, output.display?.now() ?? 0));
  output.display?.add(part);
  return {
    update: (step: number, values?: typeof metrics) => {
      const now = output.display?.now() ?? 0;
      part.take({ kind: "step", step, at: now, ...(values ? { metrics: values } : {}) });
      output.display?.changed(part);
    },
    end: () => output.display?.remove(part),
  };
}

describe("on a terminal", () => {
  test("a run is redrawn in place, at most ten times a second, and its last state stays", () => {
    const stderr = new CapturedStream({ columns: 80 });
    const { output } = outputOn(stderr);
    const run = showRun(output, 10);
    for (let step = 1; step <= 10; step++) {
      vi.advanceTimersByTime(30);
      run.update(step, metrics);
    }
    const drawings = stderr.text.split("\x1b[J").length;
    expect(drawings).toBeLessThan(8);
    run.end();
    const lines = screenOf(stderr);
    expect(lines[0]).toMatch(/^update 10\/10 {2}━+ 100% {2}0:00 left$/);
    expect(lines.at(-1)).toMatch(/so far$/);
    expect(lines).toHaveLength(5);
    expect(stderr.text.endsWith("\n")).toBe(true);
  });

  test("other lines go above it, those of stdout too", () => {
    const stderr = new CapturedStream({ columns: 80 });
    const { output } = outputOn(stderr);
    const run = showRun(output, 2);
    run.update(1, metrics);
    output.warning("the reference point is noisy.");
    output.info("evaluation at step 1: eval_loss 0.4");
    output.debug("not at this level");
    const lines = screenOf(stderr);
    expect(lines.slice(0, 3)).toEqual([
      "warning: the reference point is noisy.",
      "evaluation at step 1: eval_loss 0.4",
      expect.stringMatching(/^update 1\/2 /),
    ]);
    expect(lines).toHaveLength(7);
    run.end();
  });

  test("a terminal that was made narrower is cleaned as well", () => {
    const stderr = new CapturedStream({ columns: 100 });
    const { output } = outputOn(stderr);
    const run = showRun(output, 2);
    run.update(1, metrics);
    stderr.text = ""; // its lines now stand in two rows each
    stderr.columns = 60;
    output.display?.clear();
    expect(stderr.text.split("\x1b[A").length - 1).toBeGreaterThan(4);
    run.end();
  });

  test("work is shown once it lasts, below the run, with its clock, and leaves nothing behind", async () => {
    const stderr = new CapturedStream({ columns: 80 });
    const { output } = outputOn(stderr);
    await working(output, "loading ./model", async (tell) => {
      expect(stderr.text).toBe("");
      vi.advanceTimersByTime(1000);
      expect(screenOf(stderr)).toEqual([expect.stringMatching(/^\S loading \.\/model {2}0:01$/)]);
      tell(1, 4);
      vi.advanceTimersByTime(1000);
      expect(screenOf(stderr)).toEqual([expect.stringMatching(/^\S loading \.\/model {2}━{6}─{18} {2}25% {2}0:02$/)]);
      if (output.display) output.display.compiling = () => ({ done: 3, asked: 9 });
      vi.advanceTimersByTime(250);
      expect(screenOf(stderr)[0]).toContain("compiling kernels: 3 of 9");
    });
    expect(screenOf(stderr)).toEqual([]);
  });

  test("work that tells of itself begins and ends with its news", () => {
    const stderr = new CapturedStream({ columns: 80 });
    const { output } = outputOn(stderr);
    const told = new ToldWork(output);
    told.tell("evaluating", 1, 3);
    vi.advanceTimersByTime(500);
    told.tell("evaluating", 2, 3);
    expect(screenOf(stderr)[0]).toContain("evaluating");
    told.tell("evaluating", 3, 3);
    expect(screenOf(stderr)).toEqual([]);
  });

  test("an answer that comes piece by piece is not disturbed", async () => {
    const stderr = new CapturedStream({ columns: 80 });
    vi.useFakeTimers({ toFake: ["performance", "setInterval", "clearInterval"] });
    const output = new Output({ stdout: stderr, stderr }, { json: false, log_level: "info" });
    await working(output, "generating 1 text", async () => {
      vi.advanceTimersByTime(1000);
      output.piece("Once upon");
      vi.advanceTimersByTime(1000);
      output.piece(" a time");
    });
    output.result("");
    expect(screenOf(stderr)).toEqual(["Once upon a time"]);
  });

  test("a dumb terminal, which cannot move its cursor, has plain lines", () => {
    vi.stubEnv("TERM", "dumb");
    const stderr = new CapturedStream({ columns: 80 });
    const { output } = outputOn(stderr);
    vi.unstubAllEnvs();
    const run = showRun(output, 1);
    run.update(1, metrics);
    run.end();
    expect(stderr.text).toMatch(/^update 1\/1 {2}loss 0\.487 .*\n$/);
  });

  test.each([
    [{ NO_COLOR: "1" }, ""],
    [{ COLORFGBG: "15;0" }, "\x1b[36m"],
    [{ COLORFGBG: "0;15" }, "\x1b[34m"],
    [{ KTO_THEME: "light" }, "\x1b[34m"],
  ])("colours under %j", (variables, wanted) => {
    for (const name of ["NO_COLOR", "FORCE_COLOR", "COLORFGBG"]) vi.stubEnv(name, "");
    vi.stubEnv("TERM", "xterm-256color");
    for (const [name, value] of Object.entries(variables)) vi.stubEnv(name, value);
    const stderr = new CapturedStream({ columns: 80 });
    const { output } = outputOn(stderr);
    vi.unstubAllEnvs();
    const run = showRun(output, 2);
    run.update(1, metrics);
    run.end();
    // The movements of the cursor are no colours.
    const painted = stderr.text.replaceAll("\x1b[A", "").replaceAll("\x1b[J", "").replaceAll("\x1b[K", "");
    expect(painted.includes(wanted === "" ? "\x1b" : wanted)).toBe(wanted !== "");
  });

  test("a theme that there is not is refused", () => {
    vi.stubEnv("KTO_THEME", "blue");
    expect(() => outputOn(new CapturedStream())).toThrow('the variable KTO_THEME is "blue"; use light or dark.');
    vi.unstubAllEnvs();
  });
});

describe("without a terminal", () => {
  test("there is a plain line every few seconds, and the last one", () => {
    const stderr = new CapturedStream();
    const { output } = outputOn(stderr);
    const run = showRun(output, 12);
    for (let step = 1; step <= 12; step++) {
      vi.advanceTimersByTime(1000);
      run.update(step, metrics);
    }
    run.end();
    for (const moving of ["\r", "\x1b"]) expect(stderr.text).not.toContain(moving);
    expect(stderr.text.match(/^update +\d+\/12/gm)).toEqual([
      "update  1/12",
      "update  5/12",
      "update 10/12",
      "update 12/12",
    ]);
  });

  test("a plain line does not repeat what an earlier one said of earlier updates", () => {
    const stderr = new CapturedStream();
    const { output } = outputOn(stderr);
    const run = showRun(output, 3);
    for (const [step, values] of [metrics, undefined, metrics].entries()) {
      run.update(step + 1, values);
      vi.advanceTimersByTime(5000);
    }
    run.end();
    expect(stderr.text.match(/loss|\d(?=\/3)/g)).toEqual(["1", "loss", "2", "3", "loss"]);
  });

  test("the time left does not count the first update, which compiles", () => {
    const stderr = new CapturedStream();
    const { output } = outputOn(stderr);
    const run = showRun(output, 11);
    vi.advanceTimersByTime(60_000);
    run.update(1);
    vi.advanceTimersByTime(5000);
    run.update(2);
    run.end();
    expect(stderr.text).toMatch(
      /^(update 1 of 11 goes on, \d:\d\d so far\n)+update {2}1\/11\nupdate 2 of 11 goes on, 0:05 so far\nupdate {2}2\/11 {2}0:45 left\n$/,
    );
  });

  test("work is told of before two seconds of silence, ever more seldom", async () => {
    const stderr = new CapturedStream();
    const { output } = outputOn(stderr);
    await working(output, "loading ./model", async (tell) => {
      tell(1, 4);
      vi.advanceTimersByTime(1250);
      expect(stderr.text).toBe("");
      vi.advanceTimersByTime(10_000);
      if (output.display) output.display.compiling = () => ({ done: 3, asked: 9 });
      vi.advanceTimersByTime(60_000);
    });
    expect(stderr.text.split("\n")).toEqual([
      "loading ./model: 1 of 4, 0:02 so far",
      "loading ./model: 1 of 4, 0:05 so far",
      "loading ./model: 1 of 4, 0:11 so far",
      "loading ./model: 1 of 4, compiling kernels: 3 of 9, 0:23 so far",
      "loading ./model: 1 of 4, compiling kernels: 3 of 9, 0:47 so far",
      "",
    ]);
  });

  test("work with news is told of every five seconds, and not where other lines come", async () => {
    const stderr = new CapturedStream();
    const { output } = outputOn(stderr);
    await working(output, "evaluating", async (tell) => {
      for (let second = 1; second <= 20; second++) {
        vi.advanceTimersByTime(1000);
        tell(second, 40);
      }
      for (let second = 21; second <= 40; second++) {
        output.info("a line of the run");
        vi.advanceTimersByTime(1000);
        tell(second, 40);
      }
    });
    const told = stderr.text.split("\n").filter((line) => line.startsWith("evaluating"));
    expect(told).toEqual(
      [2, 5, 10, 15, 20].map((at) =>
        expect.stringMatching(new RegExp(`^evaluating: ${at - 1} of 40|^evaluating: ${at} of 40`)),
      ),
    );
  });

  test("a first update that compiles is told of", () => {
    const stderr = new CapturedStream();
    const { output } = outputOn(stderr);
    if (output.display) output.display.compiling = () => ({ done: 5, asked: 30 });
    const run = showRun(output, 2);
    vi.advanceTimersByTime(5000);
    run.update(1, metrics);
    run.end();
    expect(stderr.text).toMatch(
      /^update 1 of 2 goes on, compiling kernels: 5 of 30, 0:02 so far\nupdate 1 of 2 goes on, compiling kernels: 5 of 30, 0:05 so far\nupdate 1\/2 {2}loss [^\n]*\n$/,
    );
  });

  test("how long a command may be silent can be said", async () => {
    vi.stubEnv("KTO_SILENCE", "20");
    const stderr = new CapturedStream();
    vi.useFakeTimers({ toFake: ["performance", "setInterval", "clearInterval"] });
    const output = new Output({ stdout: stderr, stderr }, { json: false, log_level: "info" });
    vi.stubEnv("KTO_SILENCE", "soon");
    expect(() => new Output({ stdout: stderr, stderr }, { json: false, log_level: "info" })).toThrow(
      'the variable KTO_SILENCE is "soon"; use a number of seconds above 0.',
    );
    vi.unstubAllEnvs();
    await working(output, "loading ./model", async () => void vi.advanceTimersByTime(21_000));
    expect(stderr.text).toBe("loading ./model, 0:20 so far\n");
  });

  test("a download has its first line at once, then one every few seconds, and the last", async () => {
    const stderr = new CapturedStream();
    const { output } = outputOn(stderr);
    await showingDownloads(output, async ({ onProgress }) => {
      for (const part of [1, 2, 3, 4]) {
        onProgress?.({ file: "model.safetensors", bytes: part * 2 ** 20, totalBytes: 10 * 2 ** 20 });
        vi.advanceTimersByTime(3000);
      }
    });
    expect(stderr.text.match(/\d\.\d of 10\.0/g)).toEqual(["1.0 of 10.0", "2.0 of 10.0", "4.0 of 10.0"]);
  });

  test("--quiet shows no progress and no messages, but warnings", async () => {
    const stderr = new CapturedStream();
    const { output, stdout } = outputOn(stderr, { quiet: true });
    const run = showRun(output, 1);
    run.update(1, metrics);
    run.end();
    await working(output, "loading ./model", async () => vi.advanceTimersByTime(60_000));
    output.info("nobody reads this");
    output.warning("the reference point is noisy.");
    output.result("trained");
    expect([stderr.text, stdout.text]).toEqual(["warning: the reference point is noisy.\n", "trained\n"]);
  });
});
