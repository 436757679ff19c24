/** A run that the page shows, and its colour. */
import type { MetricsAnswer, RunSummary } from "../protocol.ts";

/** A run that is shown, with what is known of it by now. */
export interface ShownRun {
  readonly run: RunSummary;
  readonly metrics: MetricsAnswer | undefined;
  readonly exampleSteps: readonly number[];
  /** One of the page's series of colours. */
  readonly color: number;
}

export const COLORS = 6;

/** Characters of a run's name in a legend, where its colour tells it too. */
const MOST_CHARACTERS = 24;

/** A name that is long without its middle. */
export function shortName(name: string): string {
  if (name.length <= MOST_CHARACTERS) return name;
  const kept = (MOST_CHARACTERS - 1) / 2;
  return `${name.slice(0, Math.ceil(kept))}…${name.slice(-Math.floor(kept))}`;
}

/** A run keeps its colour, whichever others are shown. */
export function colorOf(id: string): number {
  return (Number(id.slice(1)) || 0) % COLORS;
}
