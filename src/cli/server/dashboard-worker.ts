/**
 * The thread in which a run's dashboard is served: neither a request nor the reading of files holds up the training. It
 * is asked once, to begin; started by `run-dashboard.ts`.
 */
import { setPriority } from "node:os";
import { errorMessage } from "../../errors.ts";
import { DashboardServer } from "./dashboard-server.ts";
import { pageFiles } from "./page-files.ts";

export interface WorkerRequest {
  readonly folder: string;
  readonly port: number;
}

export type WorkerAnswer = { readonly address: string } | { readonly fault: string };

/** The training's threads go first. */
const NICENESS = 10;
/** The share of a core's time that the page may cost the training while it is open. */
const WORK_SHARE = 0.01;

async function begin({ folder, port }: WorkerRequest): Promise<WorkerAnswer> {
  try {
    // On Linux alone this is the thread's own priority, elsewhere the whole process's.
    if (process.platform === "linux") setPriority(NICENESS);
    const options = { folders: [folder], page: await pageFiles(), onWarning: () => undefined, workShare: WORK_SHARE };
    const server = await DashboardServer.start({ ...options, port }).catch((error: unknown) => {
      if (port === 0) throw error;
      return DashboardServer.start({ ...options, port: 0 });
    });
    return { address: server.address };
  } catch (error) {
    return { fault: errorMessage(error) };
  }
}

globalThis.onmessage = async ({ data }: MessageEvent<WorkerRequest>) => postMessage(await begin(data));
