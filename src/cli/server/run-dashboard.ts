/**
 * The dashboard of a run that goes on (`--dashboard`): served by a thread of its own, for this run's folder alone, until
 * the run ends. Whatever happens to it is told in a sentence and is no matter of the run's.
 */
import { type NodeThread, startThread } from "../../engine/platform/node-thread.ts";
import { asPhrase, errorMessage } from "../../errors.ts";
import type { RunConfig } from "../../kto/options/run.ts";
import type { Output } from "../terminal/output.ts";
import { working } from "../terminal/work.ts";
import type { WorkerAnswer, WorkerRequest } from "./dashboard-worker.ts";

/** What the thread may have: many times what a run of 100,000 logged updates takes. */
const HEAP_BYTES = 2 ** 29;
/** Processor time to begin in. */
const START_MS = 20_000;

type DashboardOfRun = Pick<RunConfig, "output_dir" | "dashboard" | "dashboard_port" | "dry_run">;

/** Serves the run's page while `body` runs, where the options ask for it. */
export async function withRunDashboard(
  { output_dir: folder, dashboard, dashboard_port: port, dry_run }: DashboardOfRun,
  output: Output,
  body: () => Promise<void>,
): Promise<void> {
  const onWarning = (sentence: string) => output.warning(sentence);
  const start = () => RunDashboard.start({ folder, port, onWarning });
  const served = dashboard && !dry_run ? await working(output, "starting the dashboard", start) : undefined;
  if (served === undefined) return await body();
  // Where it is can be known beforehand, but not where another port had to be taken: then --quiet hides it not.
  if (output.tells("info") || port === served.port) output.info(`dashboard: ${served.address}`);
  else
    output.warning(
      `the dashboard is at ${served.address}, since port ${port} ${port === 0 ? "means any that is free" : "is taken"}.`,
    );
  try {
    await body();
  } finally {
    await served.close();
    output.info(`the dashboard has ended with the run; kto dashboard ${folder} shows it again`);
  }
}

export interface RunDashboardOptions {
  /** The output folder of the run. */
  readonly folder: string;
  /** Another one is taken where this is not free; 0 for any. */
  readonly port: number;
  readonly onWarning: (sentence: string) => void;
}

export class RunDashboard {
  readonly address: string;
  readonly #thread: NodeThread;
  #closed = false;

  /** @returns undefined, after a warning, where it cannot begin */
  static async start(options: RunDashboardOptions): Promise<RunDashboard | undefined> {
    const { folder, port, onWarning } = options;
    let thread: NodeThread | undefined;
    try {
      thread = await startThread({ address: new URL("./dashboard-worker.js", import.meta.url) }, HEAP_BYTES);
      const request: WorkerRequest = { folder, port };
      const answer = (await thread.ask(request, START_MS)) as WorkerAnswer;
      if ("address" in answer) return new RunDashboard(thread, answer.address, options);
      onWarning(`${answer.fault} The training goes on without its dashboard.`);
    } catch (error) {
      onWarning(`The dashboard cannot be started: ${asPhrase(errorMessage(error))}. The training goes on without it.`);
    }
    await thread?.end();
    return undefined;
  }

  private constructor(thread: NodeThread, address: string, { folder, onWarning }: RunDashboardOptions) {
    this.#thread = thread;
    this.address = address;
    void thread.ended.then((error) => {
      if (this.#closed) return;
      onWarning(
        `The dashboard has ended: ${asPhrase(errorMessage(error))}. The training goes on; kto dashboard ${folder} shows it again.`,
      );
    });
  }

  get port(): number {
    return Number(new URL(this.address).port);
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#thread.end();
  }
}
