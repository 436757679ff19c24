/** The time of a part of the report: what has passed, what is left, and what is left out for want of it. */
import type { Finding } from "./finding.ts";

export class Budget {
  readonly seconds: number;
  readonly #now: () => number;
  readonly #start: number;

  /** @param now milliseconds, of a clock that never goes back */
  constructor(seconds: number, now: () => number = () => performance.now()) {
    this.seconds = seconds;
    this.#now = now;
    this.#start = now();
  }

  get passed(): number {
    return (this.#now() - this.#start) / 1000;
  }

  get left(): number {
    return this.seconds - this.passed;
  }

  /**
   * The items that there is time for, where each is thought to take as long as those before; the others are told of.
   */
  *each<T>(items: readonly T[], nameOf: (item: T) => string, emit: (finding: Finding) => void): Generator<T> {
    for (const [done, item] of items.entries()) {
      const leftOut = this.leavesOut(nameOf(item), done === 0 ? 0 : this.passed / done);
      if (leftOut === undefined) yield item;
      else emit(leftOut);
    }
  }

  /** Undefined for work that fits what is left, else the finding that it is left out. */
  leavesOut(name: string, estimatedSeconds: number): Finding | undefined {
    const left = Math.max(0, this.left);
    if (estimatedSeconds <= left) return undefined;
    return {
      kind: "left out",
      name,
      reason: `it would take about ${seconds(estimatedSeconds)} on this adapter, and ${seconds(left)} were left`,
      estimatedSeconds,
    };
  }
}

/** "3.4 s", "120 s", "15 min", "2.5 h". */
export function seconds(value: number): string {
  if (value >= 2 * 3600) return `${(value / 3600).toFixed(1)} h`;
  if (value >= 300) return `${Math.round(value / 60)} min`;
  return value >= 10 ? `${Math.round(value)} s` : `${value.toFixed(1)} s`;
}
