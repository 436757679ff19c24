/**
 * A run's metrics in the trackers that `report_to` names. It follows the run, gives each tracker the lines of its log
 * as they come, and keeps in trackers.json what a run that is resumed continues there. No failure of a tracker ends a
 * run.
 */
import * as z from "zod";
import { platform } from "../../engine/platform/index.ts";
import { errorMessage, KtoError } from "../../errors.ts";
import { type TrackerName, trackersOf } from "../options/report-to.ts";
import { Mlflow } from "../report/trackers/mlflow.ts";
import { defaultLoggingFolder, TensorBoard } from "../report/trackers/tensorboard.ts";
import { Delivery, type RunEnd, type Tracker, TrackerFault } from "../report/trackers/tracker.ts";
import { type TrainerCallbacks, type TrainingStep, warn } from "./callbacks.ts";
import type { Run } from "./run.ts";

/** In the folder of a run: which folder and which MLflow run hold its metrics. */
export const TRACKERS_FILE = "trackers.json";

const kept = z.object({
  logging_dir: z.string().optional(),
  mlflow: z.object({ address: z.string(), run_id: z.string() }).optional(),
});
type Kept = z.output<typeof kept>;

/** What is followed; a Run is one. */
export type FollowedRun = Pick<Run, "log" | "stepsDone" | "finished" | "interrupted"> & AsyncIterable<TrainingStep>;

/** The options have the names of transformers' TrainingArguments. */
export interface TrackingOptions extends Pick<TrainerCallbacks, "onWarning"> {
  /** "tensorboard", "mlflow", several of them, "all" or "none" (default). */
  readonly report_to?: string | readonly string[] | undefined;
  /** The folder of TensorBoard's event files; default: `<outputFolder>/runs/<date>_<host>`. */
  readonly logging_dir?: string | undefined;
  /** The name of the run in MLflow; default: `outputFolder`. */
  readonly run_name?: string | undefined;
  /** The folder of the run. */
  readonly outputFolder: string;
  /** Shown by the trackers as the configuration of the run; it leaves this machine with MLflow. */
  readonly config?: Readonly<Record<string, unknown>>;
}

export class Tracking {
  readonly #options: TrackingOptions;
  readonly #trackers: readonly TrackerName[];

  /** Warns of names that are no trackers. MLflow's server is that of the environment, MLFLOW_TRACKING_URI. */
  constructor(options: TrackingOptions) {
    const { trackers, warnings } = trackersOf(options.report_to);
    this.#options = options;
    this.#trackers = trackers;
    for (const sentence of warnings) warn(options, sentence);
  }

  /**
   * Iterates a run, as the run itself does, and tells the trackers. A run that was resumed is continued there.
   *
   * @throws what the run throws, and nothing of a tracker's
   */
  async *follow(run: FollowedRun): AsyncGenerator<TrainingStep> {
    if (this.#trackers.length === 0 || run.finished) {
      yield* run;
      return;
    }
    let told = run.log.length;
    const deliveries = await this.#open(run.stepsDone);
    for (const delivery of deliveries) delivery.start();
    let end: RunEnd = "failed";
    try {
      for await (const update of run) {
        for (const { step, ...values } of run.log.slice(told)) {
          const line = { time: Date.now(), step: step ?? update.step, values };
          for (const delivery of deliveries) delivery.add(line);
        }
        told = run.log.length;
        end = "stopped"; // where whoever iterates leaves
        yield update;
        end = "failed";
      }
      end = run.interrupted ? "stopped" : "finished";
    } finally {
      await Promise.all(deliveries.map((delivery) => delivery.end(end)));
    }
  }

  async #open(stepsDone: number): Promise<Delivery[]> {
    const { outputFolder, logging_dir, run_name = outputFolder, config = {} } = this.#options;
    const before = stepsDone > 0 ? await this.#read() : {};
    const folder = logging_dir ?? before.logging_dir ?? defaultLoggingFolder(outputFolder, new Date());
    // What another tracker of an earlier run continues is kept too.
    let keeps: Kept = { ...before, ...(this.#trackers.includes("tensorboard") ? { logging_dir: folder } : {}) };
    await this.#write(keeps);
    const open: Readonly<Record<TrackerName, () => Tracker>> = {
      tensorboard: () => new TensorBoard({ folder, config, resumedAfter: stepsDone > 0 ? stepsDone : undefined }),
      mlflow: () =>
        new Mlflow({
          runName: run_name,
          config,
          continued: before.mlflow,
          keep: async (mlflow) => {
            keeps = { ...keeps, mlflow };
            await this.#write(keeps);
          },
        }),
    };
    return this.#trackers.flatMap((name) => {
      try {
        return [new Delivery(open[name](), (sentence) => warn(this.#options, sentence))];
      } catch (error) {
        if (!(error instanceof TrackerFault)) throw error;
        warn(this.#options, `report_to has ${name}, to which nothing is sent: ${error.message}.`);
        return [];
      }
    });
  }

  get #file(): string {
    return platform.joinPath(this.#options.outputFolder, TRACKERS_FILE);
  }

  async #read(): Promise<Kept> {
    try {
      if ((await platform.exists(this.#file)) === undefined) return {};
      return kept.parse(JSON.parse(await platform.readText(this.#file)));
    } catch (error) {
      if (!(error instanceof KtoError || error instanceof SyntaxError || error instanceof z.ZodError)) throw error;
      warn(this.#options, `${this.#file} cannot be read, so the trackers begin a new run.`);
      return {};
    }
  }

  async #write(keeps: Kept): Promise<void> {
    try {
      await platform.makeFolder(this.#options.outputFolder);
      await platform.writeFileAtomic(this.#file, `${JSON.stringify(keeps)}\n`);
    } catch (error) {
      if (!(error instanceof KtoError)) throw error;
      warn(this.#options, `${errorMessage(error)} If this run is resumed, the trackers begin a new one.`);
    }
  }
}
