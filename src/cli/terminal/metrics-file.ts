/**
 * metrics.jsonl: the trainer's log, one line for each entry, written during the run. When a line cannot be written, the
 * user is warned once and the run goes on; at its end the whole file is written again.
 */
import { platform } from "../../engine/platform/index.ts";
import { errorMessage, FileError } from "../../errors.ts";
import { METRICS_FILE } from "../../kto/run/run-files.ts";
import type { LogLine } from "../../kto/run/state.ts";

export class MetricsFile {
  readonly #path: string;
  readonly #warn: (sentence: string) => void;
  #written = 0;
  #broken = false;

  constructor(folder: string, warn: (sentence: string) => void) {
    this.#path = platform.joinPath(folder, METRICS_FILE);
    this.#warn = warn;
  }

  /**
   * Replaces the file by this log: an earlier run may have left one, or one that goes beyond the checkpoint resumed.
   */
  async start(log: readonly LogLine[]): Promise<void> {
    await platform.writeFileAtomic(this.#path, textOf(log));
    this.#written = log.length;
  }

  /** Appends the entries that are new since the last call. */
  async update(log: readonly LogLine[]): Promise<void> {
    if (this.#broken || log.length === this.#written) return;
    try {
      await platform.append(this.#path, textOf(log.slice(this.#written)));
      this.#written = log.length;
    } catch (error) {
      if (!(error instanceof FileError)) throw error;
      this.#broken = true;
      this.#warn(`${errorMessage(error)} The training goes on; the lines are written at its end.`);
    }
  }

  /** At the end of the run: writes the whole file if a line could not be written. */
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
