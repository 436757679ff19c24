/** The numbers of metrics.jsonl as series by name, and fewer points of them that look the same. */

/** A metric over the updates at which it was logged. */
export interface MetricSeries {
  readonly steps: readonly number[];
  readonly values: readonly number[];
}

/** Names of one file at most; metrics.jsonl has about fifty. */
const MOST_NAMES = 200;
/** Points of a series that are kept: beyond them half, but all of the last ones, by which a run is judged. */
const MOST_KEPT = 100_000;
const LAST_KEPT = 200;
/** Lines that are kept whole, for those who know all that was before them. */
const RECENT_LINES = 512;

export class SeriesTable {
  readonly #series = new Map<string, { readonly steps: number[]; readonly values: number[] }>();
  readonly #mostKept: number;
  /** The last lines, each as its metrics. */
  #recent: { readonly step: number; readonly metrics: readonly (readonly [string, number])[] }[] = [];
  #lines = 0;

  /** @param mostKept points of a series, more than twice those of its end that are always kept */
  constructor(mostKept = MOST_KEPT) {
    this.#mostKept = mostKept;
  }

  get lines(): number {
    return this.#lines;
  }

  get names(): readonly string[] {
    return [...this.#series.keys()];
  }

  /** Adds a line of metrics.jsonl; one that is damaged is passed over. @returns whether it was a line */
  add(text: string): boolean {
    const line = objectOf(text);
    const step = line?.step;
    if (line === undefined || typeof step !== "number" || !Number.isFinite(step)) return false;
    this.#lines++;
    const metrics: [string, number][] = [];
    for (const [name, value] of Object.entries(line)) {
      if (name === "step" || typeof value !== "number" || !Number.isFinite(value)) continue;
      let series = this.#series.get(name);
      if (series === undefined) {
        if (this.#series.size >= MOST_NAMES) continue;
        series = { steps: [], values: [] };
        this.#series.set(name, series);
      }
      if (series.values.length >= this.#mostKept) series = this.#halve(name, series);
      series.steps.push(step);
      series.values.push(value);
      metrics.push([name, value]);
    }
    this.#recent.push({ step, metrics });
    if (this.#recent.length > 2 * RECENT_LINES) this.#recent = this.#recent.slice(-RECENT_LINES);
    return true;
  }

  #halve(name: string, { steps, values }: MetricSeries) {
    const older = { steps: steps.slice(0, -LAST_KEPT), values: values.slice(0, -LAST_KEPT) };
    const kept = thinned(older, this.#mostKept / 2 - LAST_KEPT);
    const series = {
      steps: [...kept.steps, ...steps.slice(-LAST_KEPT)],
      values: [...kept.values, ...values.slice(-LAST_KEPT)],
    };
    this.#series.set(name, series);
    return series;
  }

  clear(): void {
    this.#series.clear();
    this.#recent = [];
    this.#lines = 0;
  }

  series(name: string): MetricSeries {
    return this.#series.get(name) ?? { steps: [], values: [] };
  }

  /** The series of the lines behind the first `lines`, every point of them; undefined where these are too many. */
  since(lines: number): ReadonlyMap<string, MetricSeries> | undefined {
    const count = this.#lines - lines;
    if (count < 0 || count > this.#recent.length) return undefined;
    const found = new Map<string, { readonly steps: number[]; readonly values: number[] }>();
    for (const { step, metrics } of count === 0 ? [] : this.#recent.slice(-count)) {
      for (const [name, value] of metrics) {
        const series = found.get(name) ?? { steps: [], values: [] };
        series.steps.push(step);
        series.values.push(value);
        found.set(name, series);
      }
    }
    return found;
  }
}

/**
 * At most `most` points (4 or more) of a series: the first, the last, and of each of equal ranges of steps between them
 * its lowest and highest point, so that no peak is lost.
 */
export function thinned({ steps, values }: MetricSeries, most: number): MetricSeries {
  const { length } = values;
  if (length <= most) return { steps, values };
  const kept = [0];
  const first = steps[0] ?? 0;
  const ranges = Math.floor((most - 2) / 2);
  const width = ((steps[length - 1] ?? 0) - first) / ranges || 1;
  for (let at = 1, range = 0; at < length - 1 && range < ranges; range++) {
    const end = range === ranges - 1 ? Number.POSITIVE_INFINITY : first + (range + 1) * width;
    if ((steps[at] ?? 0) >= end) continue;
    let [least, highest] = [at, at];
    for (; at < length - 1 && (steps[at] ?? 0) < end; at++) {
      if ((values[at] ?? 0) < (values[least] ?? 0)) least = at;
      if ((values[at] ?? 0) > (values[highest] ?? 0)) highest = at;
    }
    kept.push(...(least === highest ? [least] : [Math.min(least, highest), Math.max(least, highest)]));
  }
  kept.push(length - 1);
  return { steps: kept.map((at) => steps[at] ?? 0), values: kept.map((at) => values[at] ?? 0) };
}

function objectOf(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? (value as Readonly<Record<string, unknown>>)
      : undefined;
  } catch {
    return undefined;
  }
}
