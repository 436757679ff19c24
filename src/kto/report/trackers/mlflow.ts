/**
 * MLflow: a run on a tracking server, in the experiment of MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID, with the
 * configuration as its parameters and the metrics under the names of metrics.jsonl, as transformers sends them. A run
 * that goes on continues the same run there. What is sent twice after a failure has the same time and step, which the
 * server takes for one point.
 */
import * as z from "zod";
import { platform } from "../../../engine/platform/index.ts";
import { shortened } from "../../../errors.ts";
import { MlflowServer } from "./mlflow-server.ts";
import { type RunEnd, type TrackedLine, type Tracker, TrackerFault } from "./tracker.ts";

/** The limits of runs/log-batch, and of a value of a parameter in servers before 2.9. */
const METRICS_AT_ONCE = 1000;
const PARAMS_AT_ONCE = 100;
const LONGEST_VALUE = 500;

export interface MlflowOptions {
  readonly runName: string;
  /** Sent as the run's parameters. */
  readonly config: Readonly<Record<string, unknown>>;
  /** The run to continue, if this is its server; undefined for a new one. MLFLOW_RUN_ID goes before it. */
  readonly continued: MlflowRun | undefined;
  /** Keeps where the run is, to continue it later. */
  readonly keep: (run: MlflowRun) => Promise<void>;
}

/** A run on a server. */
export interface MlflowRun {
  readonly address: string;
  readonly run_id: string;
}

const nothing = z.looseObject({});
const experimentAnswer = z.object({
  experiment: z.object({ experiment_id: z.string(), lifecycle_stage: z.string().optional() }),
});
const experimentCreated = z.object({ experiment_id: z.string() });
const runAnswer = z.object({
  run: z.object({
    info: z.object({ run_id: z.string(), lifecycle_stage: z.string().optional() }),
    data: z.object({ params: z.array(z.object({ key: z.string() })).optional() }).optional(),
  }),
});

const STATUS = { finished: "FINISHED", stopped: "KILLED", failed: "FAILED" } as const satisfies Record<RunEnd, string>;

export class Mlflow implements Tracker {
  readonly name = "MLflow";
  readonly #server: MlflowServer;
  readonly #options: MlflowOptions;
  #runId: string | undefined;

  /** @throws TrackerFault where the environment names no server */
  constructor(options: MlflowOptions) {
    this.#server = new MlflowServer();
    this.#options = options;
  }

  /** @throws TrackerFault */
  async start(): Promise<void> {
    const { continued, config } = this.#options;
    const before = continued?.address === this.#server.address ? continued.run_id : undefined;
    const asked = platform.environment("MLFLOW_RUN_ID") ?? before;
    const known = asked === undefined ? new Set<string>() : await this.#continueRun(asked);
    this.#runId ??= await this.#createRun();
    // A parameter can be written once, and what a run was started with stays.
    const params = paramsOf(config).filter(({ key }) => !known.has(key));
    for (const part of parts(params, PARAMS_AT_ONCE)) await this.#logBatch({ params: part });
  }

  /** @throws TrackerFault */
  async write(lines: readonly TrackedLine[]): Promise<void> {
    const metrics = lines.flatMap(({ time, step, values }) =>
      Object.entries(values).flatMap(([key, value]) =>
        value === null ? [] : [{ key, value: jsonNumber(value), timestamp: time, step }],
      ),
    );
    for (const part of parts(metrics, METRICS_AT_ONCE)) await this.#logBatch({ metrics: part });
  }

  /** @throws TrackerFault */
  async end(end: RunEnd): Promise<void> {
    await this.#server.post("runs/update", { run_id: this.#runId, status: STATUS[end], end_time: Date.now() }, nothing);
  }

  async #logBatch(content: { readonly metrics: object[] } | { readonly params: object[] }): Promise<void> {
    await this.#server.post("runs/log-batch", { run_id: this.#runId, ...content }, nothing);
  }

  /** Opens a run again. Returns the names of the parameters that it has. */
  async #continueRun(runId: string): Promise<ReadonlySet<string>> {
    const { run } = await this.#server.get("runs/get", { run_id: runId }, runAnswer);
    if (run.info.lifecycle_stage === "deleted") {
      throw new TrackerFault(
        `the run ${runId} of ${this.#server.address}, which would go on, was deleted there`,
        false,
      );
    }
    await this.#server.post("runs/update", { run_id: runId, status: "RUNNING" }, nothing);
    this.#runId = runId;
    await this.#keep(runId);
    return new Set(run.data?.params?.map(({ key }) => key));
  }

  async #createRun(): Promise<string> {
    const { run } = await this.#server.post(
      "runs/create",
      {
        experiment_id: await this.#experiment(),
        run_name: this.#options.runName,
        start_time: Date.now(),
        tags: [
          { key: "mlflow.runName", value: this.#options.runName }, // for servers before 1.30
          { key: "mlflow.source.name", value: "kto-webgpu" },
        ],
      },
      runAnswer,
    );
    await this.#keep(run.info.run_id);
    return run.info.run_id;
  }

  async #keep(run_id: string): Promise<void> {
    await this.#options.keep({ address: this.#server.address, run_id });
  }

  /** The id of the experiment, which is created if there is none of its name. "0" is MLflow's Default. */
  async #experiment(): Promise<string> {
    const name = platform.environment("MLFLOW_EXPERIMENT_NAME");
    if (name === undefined) return platform.environment("MLFLOW_EXPERIMENT_ID") ?? "0";
    try {
      const { experiment } = await this.#server.get(
        "experiments/get-by-name",
        { experiment_name: name },
        experimentAnswer,
      );
      if (experiment.lifecycle_stage !== "deleted") return experiment.experiment_id;
    } catch (error) {
      if (!(error instanceof TrackerFault && error.code === "RESOURCE_DOES_NOT_EXIST")) throw error;
      return (await this.#server.post("experiments/create", { name }, experimentCreated)).experiment_id;
    }
    throw new TrackerFault(
      `the experiment "${name}" of ${this.#server.address} was deleted there; restore it, or set MLFLOW_EXPERIMENT_NAME to another`,
      false,
    );
  }
}

/** What is set of a configuration, as texts; passwords in addresses are left out. */
function paramsOf(config: Readonly<Record<string, unknown>>): { readonly key: string; readonly value: string }[] {
  return Object.entries(config).flatMap(([key, value]) => {
    if (value === undefined || value === null) return [];
    const text = typeof value === "string" ? value : JSON.stringify(value);
    return [{ key, value: shortened(text.replace(/\/\/[^/@\s]*@/g, "//"), LONGEST_VALUE) }];
  });
}

/** protobuf's JSON has words for what JSON cannot write. */
function jsonNumber(value: number): number | string {
  return Number.isFinite(value) ? value : String(value);
}

function parts<T>(all: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(all.length / size) }, (_, i) => all.slice(i * size, (i + 1) * size));
}
