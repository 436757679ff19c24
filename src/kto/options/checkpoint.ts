/** The options of checkpoints, under transformers' names, and when a checkpoint is due. */
import * as z from "zod";
import { optionGroup } from "./option.ts";
import { STEPS_OR_SHARE, stepsBetween, stepsOrShare } from "./steps.ts";

const { trainerOption } = optionGroup("Checkpoints");
const count = z.number().int();

export const checkpointOptions = {
  save_strategy: trainerOption(z.enum(["no", "steps", "epoch"]).default("steps"), {
    description: "when to save a checkpoint: every save_steps updates or every epoch, and at the end; no for none",
  }),
  save_steps: trainerOption(stepsOrShare.clone().default(500), {
    description: "updates between checkpoints; below 1 a share of the run",
    expects: STEPS_OR_SHARE,
    placeholder: "number",
  }),
  save_total_limit: trainerOption(count.min(1).optional(), {
    description: "how many checkpoints are kept, the latest; neither the last good one nor the best is ever removed",
    placeholder: "number",
  }),
  save_only_model: trainerOption(z.boolean().default(false), {
    description: "leave the optimizer out of checkpoints: smaller, but a run cannot be resumed from them",
  }),
  resume_from_checkpoint: trainerOption(z.union([z.boolean(), z.string().min(1)]).default(false), {
    description: "go on from the last good checkpoint in output_dir (true), or from a checkpoint's folder",
    expects: "true, false or the folder of a checkpoint",
    placeholder: "path",
    nullMeans: false,
  }),
};

/**
 * The most checkpoints that are on the disk at the same time in a run that nothing stops: `save_total_limit`, one that
 * is being written, and the best one beside the latest.
 */
export function mostCheckpoints(
  options: Parameters<typeof checkpointDue>[0] & { readonly save_total_limit?: number | undefined },
  run: { readonly totalSteps: number; readonly stepsPerEpoch: number; readonly evaluates: boolean },
): number {
  const { totalSteps, stepsPerEpoch, evaluates } = run;
  const due = Array.from({ length: totalSteps }, (_, i) => i + 1).filter((step) =>
    checkpointDue(options, { step, stepsPerEpoch, totalSteps, ends: step === totalSteps }),
  ).length;
  const { save_total_limit: limit = Number.POSITIVE_INFINITY } = options;
  return Math.min(due, Math.max(limit, evaluates ? 2 : 1) + 1);
}

/** Whether a checkpoint is due after this many updates. */
export function checkpointDue(
  options: { readonly save_strategy: "no" | "steps" | "epoch"; readonly save_steps: number },
  run: {
    readonly step: number;
    readonly stepsPerEpoch: number;
    readonly totalSteps: number;
    readonly ends: boolean;
  },
): boolean {
  if (options.save_strategy === "no") return false;
  const every =
    options.save_strategy === "steps" ? stepsBetween(options.save_steps, run.totalSteps) : run.stepsPerEpoch;
  return run.ends || run.step % every === 0;
}
