/** The time that a run will take, as `--dry_run` prints it for people and as JSON. */
import { counted } from "../../errors.ts";
import type { RunTimes } from "../../kto/run/timing.ts";
import { formatDuration } from "./numbers.ts";

/** Seconds, under the names of the JSON output. */
export function timeFacts(times: RunTimes): Readonly<Record<string, number>> {
  return {
    steps_left: times.updates,
    seconds_per_update: times.secondsPerUpdate,
    evaluations: times.evaluations,
    seconds_per_evaluation: times.secondsPerEvaluation,
    seconds_of_reference: times.secondsOfReference,
    estimated_seconds: times.seconds,
  };
}

/** One line each. */
export function timeLines(times: RunTimes): string[] {
  const { done, updates, secondsPerUpdate, evaluations, secondsPerEvaluation, secondsOfReference, seconds } = times;
  const parts = [
    `${counted(updates, "update")}${done > 0 ? " left" : ""} ${formatDuration(updates * secondsPerUpdate)}`,
    ...(evaluations > 0
      ? [`${counted(evaluations, "evaluation")} ${formatDuration(evaluations * secondsPerEvaluation)}`]
      : []),
    ...(secondsOfReference > 0 ? [`the reference's log-probs before them ${formatDuration(secondsOfReference)}`] : []),
  ];
  return [
    `an update takes about ${Number(secondsPerUpdate.toPrecision(3))} s (one of mean size was timed)`,
    `the run takes about ${formatDuration(seconds)}: ${parts.join(", ")}; loading, compiling, samples, judges and saving come on top`,
  ];
}
