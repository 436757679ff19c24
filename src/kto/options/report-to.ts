/** Which trackers `report_to` asks for. A name that is not known is a sentence to warn with, never an error. */
import { platform } from "../../engine/platform/index.ts";
import { shown } from "../../errors.ts";
import { nearest, normalName } from "./names.ts";

export const trackerNames = ["tensorboard", "mlflow"] as const;
export type TrackerName = (typeof trackerNames)[number];

/**
 * The trackers that `report_to` names, read as transformers reads it: one name or several, "all" or "none". "all" has
 * MLflow only where a server is set.
 */
export function trackersOf(reportTo: string | readonly string[] | undefined): {
  readonly trackers: readonly TrackerName[];
  readonly warnings: readonly string[];
} {
  const written = [reportTo ?? []].flat().flatMap((names) => names.split(","));
  const names = [...new Set(written.map(normalName))].filter((name) => !["", "none"].includes(name));
  const trackers = trackerNames.filter((name) => {
    if (names.includes(name)) return true;
    return names.includes("all") && (name !== "mlflow" || platform.environment("MLFLOW_TRACKING_URI") !== undefined);
  });
  const known: readonly string[] = [...trackerNames, "all"];
  const warnings = names.filter((name) => !known.includes(name)).map(warningOf);
  return { trackers, warnings };
}

function warningOf(name: string): string {
  if (name === "wandb") {
    return "report_to has wandb, to which nothing is sent, since Weights & Biases has no maintained SDK for JavaScript: use tensorboard or mlflow; metrics.jsonl has the metrics in any case.";
  }
  const near = nearest(name, trackerNames);
  const remedy = near === undefined ? "the trackers are tensorboard and mlflow" : `did you mean "${near}"?`;
  return `report_to has ${shown(name)}, which is not a tracker here: ${remedy}${near === undefined ? "." : ""} Nothing is sent there; metrics.jsonl has the metrics in any case.`;
}
