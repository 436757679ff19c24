/**
 * The updates of a run as a person follows them: the display, the lines of evaluations, metrics.jsonl, and the stop by a
 * signal.
 */
import { counted, InterruptedError } from "../../errors.ts";
import type { Evaluation } from "../../kto/evaluation/run-evaluation.ts";
import type { Metrics } from "../../kto/method/metrics.ts";
import { useOf } from "../../kto/run/checkpoints.ts";
import type { Run } from "../../kto/run/run.ts";
import type { Tracking } from "../../kto/run/tracking.ts";
import type { MetricsFile } from "../terminal/metrics-file.ts";
import type { Output } from "../terminal/output.ts";
import { showingRun } from "../terminal/run-part.ts";
import type { RunView } from "../terminal/run-view.ts";
import { type EndSignal, withSignals } from "../terminal/signals.ts";

/**
 * Runs the remaining updates and prints progress.
 *
 * @param onStop is called when a signal asks the run to stop
 * @returns the metrics of the last logging window and of the last evaluation
 * @throws InterruptedError after a signal, once the update in progress is done and saved
 */
export async function runUpdates(
  { trainer, method }: { readonly trainer: Run; readonly method: RunView["method"] },
  { tracking, metricsFile }: { readonly tracking: Tracking; readonly metricsFile: MetricsFile | undefined },
  output: Output,
  onStop: () => void,
): Promise<{ last: Metrics; lastEvaluation: Metrics }> {
  const lastLine = (name: string) => (trainer.log.findLast((line) => name in line) ?? {}) as Metrics;
  const tell = (signal: EndSignal) => {
    trainer.stop();
    onStop();
    output.warning(
      `${signal}: stopping after this update, with a checkpoint (an evaluation is broken off, and made when the run goes on); once more to stop at once.`,
    );
  };
  return await withSignals(tell, async (signalled) => {
    await showingRun(output, { method, trainer }, async (show) => {
      const { stepsDone: before } = trainer;
      for await (const update of tracking.follow(trainer)) {
        const { step, evaluation } = update;
        await metricsFile?.update(trainer.log);
        if (evaluation) {
          output.info(evaluationLine(step, evaluation));
          if (evaluation.warning) output.warning(evaluation.warning);
        }
        if (step > before) show(update); // else an evaluation before the first update
      }
    });
    await metricsFile?.finish(trainer.log);
    const signal = signalled();
    // Without a signal here, another rank was asked to stop.
    if (trainer.interrupted) throw interruption(trainer, signal ?? "SIGTERM");
    const { step: _, ...last } = lastLine("loss");
    const { step: __, epoch: ___, ...lastEvaluation } = lastLine("eval_loss");
    return { last, lastEvaluation };
  });
}

function interruption(trainer: Run, signal: EndSignal): InterruptedError {
  const { lastCheckpoint: saved, stepsDone, totalSteps } = trainer;
  const where = saved ? `${saved.path} ${useOf(saved)}` : "no checkpoint was due yet; start the run again";
  return new InterruptedError(`${signal} after ${stepsDone} of ${counted(totalSteps, "update")}: ${where}.`, signal);
}

/** An evaluation on one line. */
function evaluationLine(step: number, { metrics, isBest }: Evaluation): string {
  const shown = [
    "eval_loss",
    "eval_mean_token_accuracy",
    "eval_kl",
    "eval_rewards/margins",
    "eval_rewards/accuracies",
    "eval_win_rate",
  ].flatMap((name) => {
    const value = metrics[name];
    return value === undefined ? [] : [`${name} ${value.toFixed(4)}`];
  });
  return `evaluation at step ${step}: ${shown.join("  ")}${isBest ? "  (the best so far)" : ""}`;
}
