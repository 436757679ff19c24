/**
 * What the display of a training run knows: a state made from the run's events alone, so that the same events always
 * give the same picture. Drawn by `run-lines.ts`.
 */
import type { Metrics } from "../../kto/method/metrics.ts";
import { type Curve, NO_CURVE, withValue } from "./bars.ts";

/** The metrics that are shown, in the columns in which they are read. */
export const SHOWN_METRICS: Readonly<Record<RunView["method"], readonly (readonly ShownMetric[])[]>> = {
  kto: [
    [
      { metric: "loss", short: "loss" },
      { metric: "rewards/margins", short: "margin" },
    ],
    [
      { metric: "rewards/chosen", short: "chosen" },
      { metric: "rewards/rejected", short: "rejected" },
    ],
    [
      { metric: "kl", short: "kl" },
      { metric: "rewards/accuracies", short: "accuracy" },
    ],
  ],
  sft: [
    [{ metric: "loss", short: "loss" }],
    [{ metric: "mean_token_accuracy", short: "accuracy" }],
    [{ metric: "entropy", short: "entropy" }],
  ],
};

export interface ShownMetric {
  readonly metric: string;
  readonly short: string;
}

export interface RunView {
  readonly method: "kto" | "sft";
  /** Updates done. */
  readonly step: number;
  readonly totalSteps: number;
  /** When this run, or its continuation, began, and when the last update ended; milliseconds. */
  readonly since: number;
  readonly stepAt: number;
  /** The first update that was seen; it compiles, so the time left is measured from its end. */
  readonly first: { readonly step: number; readonly at: number } | undefined;
  /** The metrics of the last logging window, by TRL's names; empty before the first one. */
  readonly metrics: Metrics;
  readonly curves: Readonly<Record<string, Curve>>;
}

/** What happens in a run. */
export type RunEvent =
  /** A logging window of an earlier run, that this one goes on from. */
  | { readonly kind: "logged before"; readonly metrics: Readonly<Record<string, number | null | undefined>> }
  /** An update is done; its metrics where it ends a logging window. */
  | { readonly kind: "step"; readonly step: number; readonly at: number; readonly metrics?: Metrics | undefined };

export function startView(
  method: RunView["method"],
  { step, totalSteps }: { readonly step: number; readonly totalSteps: number },
  at: number,
): RunView {
  return { method, step, totalSteps, since: at, stepAt: at, first: undefined, metrics: {}, curves: {} };
}

export function viewAfter(view: RunView, event: RunEvent): RunView {
  if (event.kind === "logged before") return { ...view, curves: extended(view, event.metrics) };
  const { step, at, metrics } = event;
  const next = { ...view, step, stepAt: at, first: view.first ?? { step, at } };
  return metrics === undefined ? next : { ...next, metrics, curves: extended(view, metrics) };
}

function extended(
  { method, curves }: RunView,
  metrics: Readonly<Record<string, number | null | undefined>>,
): RunView["curves"] {
  const longer = SHOWN_METRICS[method].flat().map(({ metric }): [string, Curve] => {
    return [metric, withValue(curves[metric] ?? NO_CURVE, metrics[metric] ?? Number.NaN)];
  });
  return Object.fromEntries(longer);
}

/** Undefined before the second update that was seen. */
export function secondsLeft({ first, step, stepAt, totalSteps }: RunView): number | undefined {
  if (first === undefined || step <= first.step) return undefined;
  return ((stepAt - first.at) / 1000 / (step - first.step)) * (totalSteps - step);
}

/** Bytes on the device as the last logging window had them; undefined before. */
export function deviceBytes({ metrics }: RunView): number | undefined {
  const parts = Object.entries(metrics).filter(([name]) => name.startsWith("bytes/"));
  return parts.length === 0 ? undefined : parts.reduce((sum, [, bytes]) => sum + bytes, 0);
}
