/**
 * Learning-rate schedules under Hugging Face's names: a linear warm-up from 0, then constant, linear or cosine decay
 * to 0 at the last step. Formulas as in transformers' optimization module.
 */
export type ScheduleType = "constant" | "linear" | "cosine";

export interface ScheduleOptions {
  readonly type: ScheduleType;
  readonly learningRate: number;
  readonly warmupSteps: number;
  readonly totalSteps: number;
}

/** The rate of update number `step`, counted from 0. */
export function learningRateAt(step: number, { type, learningRate, warmupSteps, totalSteps }: ScheduleOptions): number {
  if (step < warmupSteps) return learningRate * (step / Math.max(1, warmupSteps));
  const progress = (step - warmupSteps) / Math.max(1, totalSteps - warmupSteps);
  if (type === "linear") return learningRate * Math.max(0, 1 - progress);
  if (type === "cosine") return learningRate * Math.max(0, 0.5 * (1 + Math.cos(Math.PI * progress)));
  return learningRate;
}
