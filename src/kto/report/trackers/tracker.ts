/**
 * What a tracker is, and the delivery of a run's metrics to one: in the background, tried again after a failure, never
 * an error of the run. The first failure is a warning; what a tracker lacks is counted and told at the end.
 */
import { asPhrase, counted, errorMessage } from "../../../errors.ts";

/** One line of a run's metrics. */
export interface TrackedLine {
  /** Unix time in milliseconds. */
  readonly time: number;
  /** Updates done. */
  readonly step: number;
  /** By the names of metrics.jsonl; null for a number that is none and was read back from a checkpoint. */
  readonly values: Readonly<Record<string, number | null>>;
}

/** How a run ended: it came to its end, was asked to stop, or threw. */
export type RunEnd = "finished" | "stopped" | "failed";

/**
 * Every method may throw. It is then called again later with the same lines, unless the error is a TrackerFault that
 * cannot pass.
 */
export interface Tracker {
  /** For messages. */
  readonly name: string;
  start(): Promise<void>;
  write(lines: readonly TrackedLine[]): Promise<void>;
  end(end: RunEnd): Promise<void>;
}

/** Why a tracker does not take something. The message is a phrase without a full stop. */
export class TrackerFault extends Error {
  /** Whether another attempt may succeed. */
  readonly mayPass: boolean;
  /** The server's name of the error, if it gave one. */
  readonly code: string | undefined;

  constructor(reason: string, mayPass: boolean, code?: string) {
    super(reason);
    this.mayPass = mayPass;
    this.code = code;
  }
}

/** Lines that are sent together. */
const LINES_AT_ONCE = 25;
/** Lines that wait for a tracker that cannot be reached; with more, the oldest are lost. */
const MOST_WAITING = 20_000;
const LONGEST_PAUSE_MS = 60_000;

export class Delivery {
  readonly #tracker: Tracker;
  readonly #warn: (sentence: string) => void;
  readonly #firstPauseMs: number;
  #waiting: TrackedLine[] = [];
  #added = 0;
  #lost = 0;
  #started = false;
  #sending: Promise<void> | undefined;
  #fault: string | undefined;
  #givenUp = false;
  #pauseMs: number;
  #notBefore = 0;

  /** @param firstPauseMs without a further attempt after a failure, doubled after each further one */
  constructor(tracker: Tracker, warn: (sentence: string) => void, firstPauseMs = 1000) {
    this.#tracker = tracker;
    this.#warn = warn;
    this.#firstPauseMs = firstPauseMs;
    this.#pauseMs = firstPauseMs;
  }

  /** Starts the tracker in the background. */
  start(): void {
    this.#send();
  }

  /** Takes a line, to be sent in the background. */
  add(line: TrackedLine): void {
    this.#added++;
    if (this.#givenUp || this.#waiting.length >= MOST_WAITING) this.#lost++;
    if (this.#givenUp) return;
    if (this.#waiting.length >= MOST_WAITING) this.#waiting.shift();
    this.#waiting.push(line);
    this.#send();
  }

  /** Sends what waits and ends the tracker; tells how many lines it lacks. */
  async end(end: RunEnd): Promise<void> {
    await this.#sending;
    if (!this.#givenUp && (await this.#attempt())) await this.#guarded(() => this.#tracker.end(end));
    const lacking = this.#lost + this.#waiting.length;
    if (lacking === 0) return;
    const reason = this.#fault ?? "it takes them too slowly";
    this.#warn(`${this.#tracker.name} lacks ${lacking} of ${counted(this.#added, "line")} of metrics: ${reason}.`);
  }

  #send(): void {
    if (this.#sending !== undefined || this.#givenUp || Date.now() < this.#notBefore) return;
    this.#sending = this.#attempt().then(() => {
      this.#sending = undefined;
    });
  }

  /** Returns whether everything that waited was taken. */
  async #attempt(): Promise<boolean> {
    return await this.#guarded(async () => {
      if (!this.#started) await this.#tracker.start();
      this.#started = true;
      while (this.#waiting.length > 0) {
        const lines = this.#waiting.splice(0, LINES_AT_ONCE);
        try {
          await this.#tracker.write(lines);
        } catch (error) {
          this.#waiting.unshift(...lines);
          throw error;
        }
      }
      this.#pauseMs = this.#firstPauseMs;
    });
  }

  async #guarded(work: () => Promise<void>): Promise<boolean> {
    try {
      await work();
      return true;
    } catch (error) {
      this.#failed(error);
      return false;
    }
  }

  #failed(error: unknown): void {
    const isFirst = this.#fault === undefined;
    this.#fault = asPhrase(errorMessage(error));
    this.#notBefore = Date.now() + this.#pauseMs;
    this.#pauseMs = Math.min(LONGEST_PAUSE_MS, 2 * this.#pauseMs);
    if (error instanceof TrackerFault && !error.mayPass) {
      this.#givenUp = true;
      this.#lost += this.#waiting.length;
      this.#waiting = [];
    }
    if (!isFirst) return;
    const then = this.#givenUp ? "without it" : "and tries again";
    this.#warn(`${this.#tracker.name} does not take the metrics: ${this.#fault}. The training goes on ${then}.`);
  }
}
