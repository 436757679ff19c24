/** Timers of one length that run out when a test says so; all others run as ever. No test waits for the clock then. */
import { vi } from "vitest";

export class HeldTimers {
  /** Timers of the length that were started so far. */
  started = 0;
  readonly #running = new Map<unknown, () => void>();
  readonly #spies;

  /** @param ms the length; long enough that none of them runs out by itself */
  constructor(ms: number) {
    const { setTimeout, clearTimeout } = globalThis;
    const start = (callback: () => void, given?: number) => {
      const timer = setTimeout(callback, given);
      if (given === ms) {
        this.started++;
        this.#running.set(timer, callback);
      }
      return timer;
    };
    const clear = (timer: ReturnType<typeof setTimeout>) => {
      this.#running.delete(timer);
      clearTimeout(timer);
    };
    this.#spies = [
      vi.spyOn(globalThis, "setTimeout").mockImplementation(start as typeof setTimeout),
      vi.spyOn(globalThis, "clearTimeout").mockImplementation(clear as typeof clearTimeout),
    ];
  }

  /** Lets those that run now run out. */
  runOut(): void {
    for (const callback of [...this.#running.values()]) callback();
  }

  restore(): void {
    for (const spy of this.#spies) spy.mockRestore();
  }
}
