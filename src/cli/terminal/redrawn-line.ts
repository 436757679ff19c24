/**
 * A line on stderr that shows how work goes on: redrawn in place on a terminal, written as a plain line every few
 * seconds elsewhere. What it says is the subclass's.
 */
import type { LiveLine, TextSink } from "./output.ts";

/** Least time between two drawings on a terminal. */
const REDRAW_MS = 100;

export interface RedrawnLineOptions {
  /** Milliseconds, monotone; for tests. */
  readonly now?: () => number;
  /** Between plain lines where stderr is not a terminal. */
  readonly plainIntervalMs?: number;
}

export abstract class RedrawnLine<State extends object> implements LiveLine {
  protected readonly now: () => number;
  readonly #stream: TextSink;
  readonly #isTerminal: boolean;
  readonly #intervalMs: number;
  #latest: State | undefined;
  #written: State | undefined;
  #writtenAt = Number.NEGATIVE_INFINITY;

  constructor(stream: TextSink, options: RedrawnLineOptions = {}) {
    const { now = () => performance.now(), plainIntervalMs = 5000 } = options;
    this.now = now;
    this.#stream = stream;
    this.#isTerminal = stream.isTTY === true;
    this.#intervalMs = this.#isTerminal ? REDRAW_MS : plainIntervalMs;
  }

  /** @param width characters that there is room for; default any number */
  protected abstract text(state: State, width?: number): string;

  /** After a plain line, which stays. */
  protected wrotePlain(): void {}

  protected show(state: State): void {
    this.#latest = state;
    if (this.now() - this.#writtenAt >= this.#intervalMs) this.#draw(state);
  }

  /**
   * Leaves the last state on the screen and starts a new line. Belongs in a `finally`, since errors are printed after
   * it.
   */
  finish(): void {
    if (this.#latest !== undefined && this.#written !== this.#latest) this.#draw(this.#latest);
    if (this.#isTerminal && this.#written !== undefined) this.#stream.write("\n");
    this.#latest = undefined;
  }

  clear(): void {
    if (this.#isTerminal && this.#latest !== undefined) this.#stream.write("\r\x1b[K");
  }

  redraw(): void {
    if (this.#isTerminal && this.#latest !== undefined) this.#draw(this.#latest);
  }

  #draw(state: State): void {
    this.#writtenAt = this.now();
    this.#written = state;
    if (this.#isTerminal) {
      // One column stays free: a full line would wrap, and \r would then go back to its second half only.
      this.#stream.write(`\r${this.text(state, (this.#stream.columns ?? 80) - 1)}\x1b[K`);
    } else {
      this.#stream.write(`${this.text(state)}\n`);
      this.wrotePlain();
    }
  }
}
