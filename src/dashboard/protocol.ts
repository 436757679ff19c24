/** What the server of the dashboard and its page say to each other: types alone, which both import. */
import type { ExampleLine } from "../kto/run/example-line.ts";
import type { Series } from "./series.ts";

export type { ExampleLine, Series };

/** A run in the list. */
export interface RunSummary {
  /** Made by the server; a path is never asked for. */
  readonly id: string;
  readonly name: string;
  /** Whether a process has its folder. */
  readonly running: boolean;
  /** Lines of metrics.jsonl; another number means news. */
  readonly lines: number;
  /** Changes where the file was replaced, so that all of it is to be asked for again. */
  readonly generation: number;
  /** The last update that was logged. */
  readonly step: number;
  /** What is said of whether it learnt; undefined before there is anything to say. */
  readonly verdict?: { readonly outcome: "yes" | "no" | "open"; readonly text: string } | undefined;
}

/** The answer to /api/runs/ID/metrics. */
export interface MetricsAnswer {
  readonly lines: number;
  readonly generation: number;
  /** By metric, thinned. */
  readonly series: Readonly<Record<string, Series>>;
}

/** The answer to /api/runs/ID/samples: what the model said to the same prompts at the first and at the last update. */
export interface SamplesAnswer {
  readonly first: number;
  readonly last: number;
  readonly samples: readonly {
    readonly index: number;
    /** Of a chat its messages, one after another. */
    readonly prompt: string;
    readonly first: string;
    readonly last: string;
  }[];
}

/** The answer to /api/runs/ID/examples: the updates whose examples are logged. */
export interface ExamplesAnswer {
  readonly steps: readonly number[];
}
