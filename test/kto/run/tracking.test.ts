/** A run that is followed: what report_to means, what the trackers get, how a run that is resumed continues there. */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, test, vi } from "vitest";
import { platform } from "../../../src/engine/platform/index.ts";
import { FileError } from "../../../src/errors.ts";
import { trackersOf } from "../../../src/kto/options/report-to.ts";
import { type FollowedRun, TRACKERS_FILE, Tracking, type TrackingOptions } from "../../../src/kto/run/tracking.ts";
import { freshPath, temporaryFolder } from "../../helpers/folders.ts";
import { mlflowServer } from "../../helpers/mlflow-server.ts";

const folder = temporaryFolder();
afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
});

/** Steps `from` + 1 to `to`, each with a line of the log; it throws after the last one if it is to. */
function steps(from: number, to: number, fault?: Error): FollowedRun {
  const log = Array.from({ length: from }, (_, i) => ({ step: i + 1, loss: 1 / (i + 1) }));
  return {
    log,
    stepsDone: from,
    finished: from === to,
    interrupted: false,
    async *[Symbol.asyncIterator]() {
      for (let step = from + 1; step <= to; step++) {
        log.push({ step, loss: 1 / step });
        yield { step, totalSteps: to, epoch: step, learningRate: 0 };
      }
      if (fault) throw fault;
    },
  };
}

async function follow(run: FollowedRun, options: TrackingOptions, leaveAfter = Number.POSITIVE_INFINITY) {
  const warnings: string[] = [];
  const seen: number[] = [];
  const tracking = new Tracking({ ...options, onWarning: (sentence) => warnings.push(sentence) });
  for await (const { step } of tracking.follow(run)) {
    seen.push(step);
    if (step === leaveAfter) break;
  }
  return { warnings, seen };
}

describe("report_to", () => {
  test.each([
    [undefined, []],
    [[], []],
    ["none", []],
    [["None"], []],
    ["tensorboard", ["tensorboard"]],
    [
      ["mlflow", "TensorBoard"],
      ["tensorboard", "mlflow"],
    ],
    ["tensorboard,mlflow", ["tensorboard", "mlflow"]],
    ["all", ["tensorboard"]],
  ])("%j is %j", (written, trackers) => {
    vi.stubEnv("MLFLOW_TRACKING_URI", "");
    expect(trackersOf(written)).toEqual({ trackers, warnings: [] });
  });

  test("all has MLflow where the environment names a server", () => {
    vi.stubEnv("MLFLOW_TRACKING_URI", "http://localhost:5000");
    expect(trackersOf(["all"]).trackers).toEqual(["tensorboard", "mlflow"]);
  });

  test("what is no tracker is told, and the others are used", () => {
    const { trackers, warnings } = trackersOf(["wandb", "tensorbord", "comet_ml", "mlflow"]);
    expect(trackers).toEqual(["mlflow"]);
    expect(warnings).toEqual([
      expect.stringContaining("no maintained SDK for JavaScript: use tensorboard or mlflow"),
      expect.stringContaining('report_to has "tensorbord", which is not a tracker here: did you mean "tensorboard"?'),
      expect.stringContaining(
        'report_to has "comet_ml", which is not a tracker here: the trackers are tensorboard and',
      ),
    ]);
  });
});

describe("a run that is followed", () => {
  test("goes on in the same folder of TensorBoard and the same run of MLflow", async () => {
    const server = await mlflowServer();
    vi.stubEnv("MLFLOW_TRACKING_URI", server.address);
    vi.stubEnv("MLFLOW_RUN_ID", "");
    const outputFolder = freshPath(folder, "run");
    const options = { outputFolder, report_to: "all", run_name: "first", config: { max_steps: 3 } };
    expect(await follow(steps(0, 3), options, 2)).toEqual({ warnings: [], seen: [1, 2] });
    expect(server.runs).toMatchObject([{ name: "first", status: "KILLED", params: { max_steps: "3" } }]);
    expect(await follow(steps(2, 3), options)).toEqual({ warnings: [], seen: [3] });
    await server.close();
    expect(server.runs).toHaveLength(1);
    expect(server.runs[0]?.status).toBe("FINISHED");
    expect(server.runs[0]?.metrics.map(({ key, step, value }) => [key, step, value])).toEqual([
      ...[
        ["loss", 1, 1],
        ["loss", 2, 1 / 2],
        ["loss", 3, 1 / 3],
      ],
    ]);
    const [logs = "", ...others] = readdirSync(join(outputFolder, "runs"));
    expect(others).toEqual([]);
    const files = readdirSync(join(outputFolder, "runs", logs)).sort();
    const losses = files.map((name) =>
      readFileSync(join(outputFolder, "runs", logs, name), "latin1").match(/train\/loss/g),
    );
    expect(losses.map((found) => found?.length)).toEqual([2, 1]);
    // Nothing is left to do: nothing is begun.
    await follow(steps(3, 3), options);
    expect(readdirSync(join(outputFolder, "runs", logs))).toHaveLength(2);
  });

  test("is killed in MLflow's words where it was asked to stop", async () => {
    const server = await mlflowServer();
    vi.stubEnv("MLFLOW_TRACKING_URI", server.address);
    vi.stubEnv("MLFLOW_RUN_ID", "");
    await follow(
      { ...steps(0, 2), interrupted: true },
      { outputFolder: freshPath(folder, "run"), report_to: "mlflow" },
    );
    await server.close();
    expect(server.runs).toMatchObject([{ status: "KILLED" }]);
  });

  test("throws what the run throws, after the trackers were ended", async () => {
    const server = await mlflowServer();
    vi.stubEnv("MLFLOW_TRACKING_URI", server.address);
    vi.stubEnv("MLFLOW_RUN_ID", "");
    const options = { outputFolder: freshPath(folder, "run"), report_to: ["mlflow"] };
    await expect(follow(steps(0, 2, new Error("the model diverged")), options)).rejects.toThrow("the model diverged");
    await server.close();
    expect(server.runs).toMatchObject([{ name: options.outputFolder, status: "FAILED" }]);
    expect(server.runs[0]?.metrics).toHaveLength(2);
  });

  test("is not touched by a disk that takes nothing: one warning, then the count", async () => {
    const outputFolder = freshPath(folder, "run");
    vi.spyOn(platform, "append").mockRejectedValue(new FileError("Cannot write events: no space is left."));
    const { warnings, seen } = await follow(steps(0, 3), { outputFolder, report_to: "tensorboard" });
    expect(seen).toEqual([1, 2, 3]);
    expect(warnings).toEqual([
      "TensorBoard does not take the metrics: Cannot write events: no space is left. The training goes on and tries again.",
      "TensorBoard lacks 3 of 3 lines of metrics: Cannot write events: no space is left.",
    ]);
  });

  test("without a server for MLflow is told of it once and goes on", async () => {
    vi.stubEnv("MLFLOW_TRACKING_URI", "");
    const { warnings, seen } = await follow(steps(0, 2), {
      outputFolder: freshPath(folder, "run"),
      report_to: "mlflow",
    });
    expect(seen).toEqual([1, 2]);
    expect(warnings).toEqual([
      expect.stringMatching(/^report_to has mlflow, to which nothing is sent: set MLFLOW_TRACKING_URI/),
    ]);
  });

  test("a trackers.json that cannot be read is told of, and a new folder begun", async () => {
    const outputFolder = freshPath(folder, "run");
    const options = { outputFolder, report_to: "tensorboard", logging_dir: join(outputFolder, "logs") };
    await follow(steps(0, 1), options);
    writeFileSync(join(outputFolder, TRACKERS_FILE), "{");
    const { warnings } = await follow(steps(1, 2), { ...options, logging_dir: undefined });
    expect(warnings).toEqual([`${join(outputFolder, TRACKERS_FILE)} cannot be read, so the trackers begin a new run.`]);
    expect(readdirSync(outputFolder)).toEqual(["logs", "runs", TRACKERS_FILE]);
  });
});
