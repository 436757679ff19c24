/**
 * metrics.jsonl of a run: the trainer's log, a line for each entry, written as the run goes. A disk that takes no line is
 * told once and does not end the run: at the end the file is written anew, whole.
 */
import { platform } from "../../engine/platform/index.ts";
import { errorMessage, FileError } from "../../errors.ts";
import type { LogLine } from "../../kto/run/state.ts";

export const METRICS_FILE = "metrics.jsonl";

export class MetricsFile {
  readonly #path: string;
  readonly #warn: (sentence: string) => void;
  #written = 0;
  #broken = false;

  constructor(folder: string, warn: (sentence: string) => void) {
    this.#path = platform.joinPath(folder, METRICS_FILE);
    this.#warn = warn;
  }

  /** Puts what is there, of an earlier run or beyond the checkpoint that a run goes on from, back to this log. */
  async start(log: readonly LogLine[]): Promise<void> {
    await platform.writeFileAtomic(this.#path, textOf(log));
    this.#written = log.length;
  }

  /** Adds the lines that the log has got since. */
  async update(log: readonly LogLine[]): Promise<void> {
    if (this.#broken || log.length === this.#written) return;
    try {
      await platform.appendText(this.#path, textOf(log.slice(this.#written)));
      this.#written = log.length;
    } catch (error) {
      if (!(error instanceof FileError)) throw error;
      this.#broken = true;
      this.#warn(`${errorMessage(error)} The training goes on; the lines are written at its end.`);
    }
  }

  /** Writes what could not be written before. */
  async finish(log: readonly LogLine[]): Promise<void> {
    if (!this.#broken) return;
    try {
      await this.start(log);
    } catch (error) {
      if (!(error instanceof FileError)) throw error;
      this.#warn(`${errorMessage(error)} The metrics stand in trainer_state.json, under log_history.`);
    }
  }
}

function textOf(log: readonly LogLine[]): string {
  return log.map((line) => `${JSON.stringify(line)}\n`).join("");
}
