/** A training run on the display: it takes the run's events and has `run-lines.ts` draw what they come to. */
import type { TrainingStep } from "../../kto/run/callbacks.ts";
import { breaksSilence, type Compiling, everyFewSeconds, type Part, type PlainTimes, type Room } from "./display.ts";
import { formatDuration } from "./numbers.ts";
import type { Output } from "./output.ts";
import { plainProgress } from "./progress.ts";
import { runLines } from "./run-lines.ts";
import { type RunEvent, type RunView, startView, viewAfter } from "./run-view.ts";
import type { Line } from "./styled.ts";
import { compilingText } from "./work.ts";

export class RunPart implements Part {
  readonly stays = true;
  #view: RunView;
  /** An update was done since the last plain line. */
  #hasNews = false;

  constructor(view: RunView) {
    this.#view = view;
  }

  /** Shown by the display when it is told that the part has changed. */
  take(event: RunEvent): void {
    this.#view = viewAfter(this.#view, event);
    if (event.kind === "step") this.#hasNews = true;
  }

  lines(room: Room): readonly Line[] {
    return runLines(this.#view, room);
  }

  /** Every few seconds; also where an update takes long, above all the first one, whose kernels are compiled. */
  plainDue(times: PlainTimes): boolean {
    return everyFewSeconds(times) || (!times.news && breaksSilence(times));
  }

  plain(now: number, compiling?: Compiling): string {
    const { stepAt, step, totalSteps } = this.#view;
    const waited = formatDuration((now - stepAt) / 1000);
    if (this.#hasNews) return plainProgress(this.#view);
    return `update ${step + 1} of ${totalSteps} goes on${compilingText(compiling)}, ${waited} so far`;
  }

  /** Lines stay: the same numbers again beside a later step would be taken for that step's. */
  plainWritten(): void {
    this.#view = { ...this.#view, metrics: {} };
    this.#hasNews = false;
  }
}

/** What is shown of a run; a trainer is one. */
export interface RunOnTerminal {
  readonly stepsDone: number;
  readonly totalSteps: number;
  /** The lines of the metrics so far. */
  readonly log: readonly Readonly<Record<string, number | null | undefined>>[];
}

/**
 * Shows a run while `body` iterates it.
 *
 * @param body is given a function that takes each update as it comes
 */
export async function showingRun<T>(
  { display }: Pick<Output, "display">,
  { method, trainer }: { readonly method: RunView["method"]; readonly trainer: RunOnTerminal },
  body: (show: (update: Pick<TrainingStep, "step" | "metrics">) => void) => Promise<T>,
): Promise<T> {
  if (display === undefined) return await body(() => undefined);
  const { stepsDone: step, totalSteps } = trainer;
  const part = new RunPart(startView(method, { step, totalSteps }, display.now()));
  for (const metrics of trainer.log) part.take({ kind: "logged before", metrics });
  display.add(part);
  try {
    return await body(({ step, metrics }) => {
      part.take({ kind: "step", step, at: display.now(), metrics });
      display.changed(part);
    });
  } finally {
    display.remove(part);
  }
}
