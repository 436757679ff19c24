/** report_to on the command line: what a training, one that goes on and a fine-tuning leave in the trackers. */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import { shareDeviceWithCommands } from "../../helpers/commands.ts";
import { fixtures, freshPath, temporaryFolder } from "../../helpers/folders.ts";
import { mlflowServer } from "../../helpers/mlflow-server.ts";
import { kto } from "../../helpers/streams.ts";

shareDeviceWithCommands();
const folder = temporaryFolder();
afterEach(() => {
  vi.unstubAllEnvs();
});

const words = (command: "train" | "sft", output: string, ...more: string[]) => [
  ...[command, "--model_name_or_path", `${fixtures}/llama/policy`, "--dataset_name", `${fixtures}/llama/data.jsonl`],
  ...["--output_dir", output, "--per_device_train_batch_size", "2", "--logging_steps", "1", ...more],
];

const lines = (output: string) =>
  readFileSync(join(output, "metrics.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, number>);

test("kto train: what metrics.jsonl has, also of a run that goes on; what is no tracker is told", async () => {
  const server = await mlflowServer();
  vi.stubEnv("MLFLOW_TRACKING_URI", server.address);
  vi.stubEnv("MLFLOW_RUN_ID", "");
  const output = freshPath(folder, "run");
  // A run that ended before its first checkpoint has left its files.
  mkdirSync(join(output, "runs"), { recursive: true });
  writeFileSync(join(output, "trackers.json"), "{}");
  const report = ["--report_to", "tensorboard", "mlflow", "wandb", "--run_name", "thumbs"];
  const data = ["--eval_dataset_name", `${fixtures}/llama/data.jsonl`, "--lr_scheduler_type", "constant"];
  const first = await kto(...words("train", output, "--max_steps", "2", ...data, ...report));
  expect(first.code, first.stderr).toBe(0);
  expect(first.stderr.match(/no maintained SDK for JavaScript/g)).toHaveLength(1);
  const more = ["--max_steps", "3", "--resume_from_checkpoint"];
  const second = await kto(...words("train", output, ...more, ...data, ...report));
  expect(second.code, second.stderr).toBe(0);
  await server.close();
  const [run, ...others] = server.runs;
  expect(others).toEqual([]);
  expect(run).toMatchObject({ name: "thumbs", status: "FINISHED" });
  expect(run?.params).toMatchObject({ beta: "0.1", max_steps: "2", run_name: "thumbs" });
  const logged = lines(output).flatMap(({ step, ...values }) =>
    Object.entries(values).map(([key, value]) => ({ key, step, value })),
  );
  expect(logged.filter(({ key }) => key === "eval_loss")).toHaveLength(3);
  // What an update and its evaluation both tell, its epoch, is one point where both come within a millisecond.
  const told = (points: readonly { key: string; step: unknown; value: unknown }[] = []) => [
    ...new Set(points.map(({ key, step, value }) => JSON.stringify([key, step, value]))),
  ];
  expect(told(run?.metrics)).toEqual(told(logged));
  const [logs = ""] = readdirSync(join(output, "runs"));
  expect(readdirSync(join(output, "runs", logs))).toHaveLength(2);
});

test("kto sft: a logging_dir of one's own; a server that is away changes nothing of the run", async () => {
  const server = await mlflowServer();
  await server.close();
  vi.stubEnv("MLFLOW_TRACKING_URI", server.address);
  const output = freshPath(folder, "run");
  const logging = join(output, "logs");
  const report = ["report_to=mlflow,tensorboard", `logging_dir=${logging}`];
  const { code, stderr } = await kto(...words("sft", output, "--max_steps", "2", ...report));
  expect(code, stderr).toBe(0);
  expect(stderr.match(/MLflow does not take the metrics: .*the connection was refused/g)).toHaveLength(1);
  expect(stderr).toContain("MLflow lacks 2 of 2 lines of metrics");
  const [file = ""] = readdirSync(logging);
  expect(readFileSync(join(logging, file), "latin1").match(/train\/loss/g)).toHaveLength(2);
});
