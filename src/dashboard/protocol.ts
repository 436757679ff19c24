/** What the server of the dashboard and its page say to each other: types alone, which both import. */
import type { EventLine } from "../kto/run/event-line.ts";
import type { ExampleLine } from "../kto/run/example-line.ts";
import type { RunFacts } from "../kto/run/run-facts.ts";
import type { MetricSeries } from "./series.ts";

export type { EventLine, ExampleLine, MetricSeries, RunFacts };

/** A run in the list. */
export interface RunSummary {
  /** Made by the server; a path is never asked for. */
  readonly id: string;
  readonly name: string;
  /** Whether a process has its folder. */
  readonly running: boolean;
  /** Lines of metrics.jsonl; another number means news. */
  readonly lines: number;
  /** Changes where the file was replaced, or another server reads it, so that all is to be asked for again. */
  readonly generation: number;
  /** The last update that was logged. */
  readonly step: number;
  /** Lines of events.jsonl, and how many of them are warnings or errors. */
  readonly events?: number;
  readonly warnings?: number;
  /** Updates whose examples are logged, and lines of samples.jsonl. */
  readonly examples?: number;
  readonly samples?: number;
  /** What is said of whether it learnt; undefined before there is anything to say. */
  readonly verdict?: { readonly outcome: "yes" | "no" | "open"; readonly text: string } | undefined;
  /** Why one of its files cannot be read. */
  readonly fault?: string;
}

/** The answer to /api/runs/ID/metrics, or to /api/runs/ID/metrics?from=LINES&generation=GENERATION. */
export interface MetricsAnswer {
  readonly lines: number;
  readonly generation: number;
  /** Lines that are left out, because the page has them: as many as it asked from, or 0. */
  readonly from: number;
  /** By metric: all lines, thinned, or every point of those behind `from`. */
  readonly series: Readonly<Record<string, MetricSeries>>;
}

/** The answer to /api/runs/ID/samples: what the model said to the same prompts at the first and at the last update. */
export interface SamplesAnswer {
  readonly first: number;
  readonly last: number;
  readonly samples: readonly {
    readonly index: number;
    /** The prompt's text; of a chat the texts of its messages, one after another. */
    readonly prompt: string;
    readonly first: string;
    readonly last: string;
  }[];
}

/** The answer to /api/runs/ID/examples: the updates whose examples are logged. */
export interface ExamplesAnswer {
  readonly steps: readonly number[];
}

/** The answer to /api/runs/ID/rewards: how the rewards of each class were spread over the run. */
export interface RewardsAnswer {
  /** The range of rewards, which bins divide equally. */
  readonly low: number;
  readonly high: number;
  /** The first and the last update of each column. */
  readonly from: readonly number[];
  readonly to: readonly number[];
  /** By column, by bin from below: examples. */
  readonly up: readonly (readonly number[])[];
  readonly down: readonly (readonly number[])[];
  /** By column; null without an example of the class. */
  readonly upMedian: readonly (number | null)[];
  readonly downMedian: readonly (number | null)[];
}

/** A row of the feedback among those that stand out. */
export interface StandingRow {
  readonly index: number;
  readonly label: boolean;
  /** Its rewards in the logged updates that had it, thinned; the last one is what it is sorted by. */
  readonly rewards: MetricSeries;
  /** Cut; undefined where the run wrote no text of it. */
  readonly text?: { readonly prompt: string; readonly completion: string } | undefined;
}

/** The answer to /api/runs/ID/rows: by the last reward that was logged of each row. */
export interface RowsAnswer {
  /** Rows that were logged at all. */
  readonly rows: number;
  readonly groups: readonly {
    readonly kind: "highest" | "lowest" | "moved";
    /** Thumbs up or down; undefined for both. */
    readonly label?: boolean;
    readonly rows: readonly StandingRow[];
  }[];
}

/** The answer to /api/runs/ID/events: the last ones, the newest first, and all warnings and errors that are kept. */
export interface EventsAnswer {
  readonly count: number;
  readonly events: readonly EventLine[];
}

/** The answer to /api/runs/ID/facts. */
export interface FactsAnswer {
  readonly facts?: RunFacts | undefined;
}
