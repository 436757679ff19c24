/**
 * Learning-rate schedules under Hugging Face's names: what each update's rate is of the highest one. Formulas as in
 * transformers' optimization module (5.18). Not here: which values a user may give (`kto/options/schedule.ts`).
 */

/** What shapes a schedule beside its warm-up, under transformers' names; each schedule reads its own. */
export interface ScheduleParameters {
  /** Waves of the cosine, default 0.5: one way down. For cosine_with_restarts the ways down, default 1. */
  readonly num_cycles?: number | undefined;
  /** polynomial: exponent of the share of updates that is left; default 1. */
  readonly power?: number | undefined;
  /** polynomial: the rate after the last update; default 1e-7. */
  readonly lr_end?: number | undefined;
  /**
   * inverse_sqrt: updates after which, counted from the start, the rate is the highest; default: those of the warm-up.
   */
  readonly timescale?: number | undefined;
  /** cosine_with_min_lr, cosine_warmup_with_min_lr: the lowest rate; give this or `min_lr_rate`. */
  readonly min_lr?: number | undefined;
  /**
   * cosine_with_min_lr, cosine_warmup_with_min_lr: the lowest rate as a share of the highest; give this or `min_lr`.
   */
  readonly min_lr_rate?: number | undefined;
  /** cosine_warmup_with_min_lr: where the warm-up begins, as a share; default 1 / updates of the warm-up. */
  readonly warmup_lr_rate?: number | undefined;
  /** warmup_stable_decay: updates of the decay. */
  readonly num_decay_steps?: number | undefined;
  /** warmup_stable_decay: updates at the highest rate; default: those that warm-up and decay leave. */
  readonly num_stable_steps?: number | undefined;
  /** warmup_stable_decay: how the rate rises; default linear. */
  readonly warmup_type?: RampType | undefined;
  /** warmup_stable_decay: how it falls; default cosine. */
  readonly decay_type?: RampType | undefined;
  /** warmup_stable_decay: where the warm-up begins and the decay ends, as a share of the highest rate; default 0. */
  readonly min_lr_ratio?: number | undefined;
}

export const RAMPS = ["linear", "cosine", "1-sqrt"] as const;
export type RampType = (typeof RAMPS)[number];

export interface Schedule {
  readonly type: ScheduleType;
  /** The highest rate. */
  readonly learningRate: number;
  /** Updates in which the rate rises. */
  readonly warmupSteps: number;
  readonly totalSteps: number;
  readonly parameters?: ScheduleParameters;
}

export type ScheduleType = keyof typeof factors;

/** The rate of update number `step`, counted from 0. */
export function learningRateAt(step: number, schedule: Schedule): number {
  const { type, parameters = {}, ...run } = schedule;
  return run.learningRate * factors[type](step, run, parameters);
}

type Run = Omit<Schedule, "type" | "parameters">;

/** The share of the highest rate that update `step` has, by schedule. */
const factors = {
  constant: () => 1,
  constant_with_warmup: afterWarmup(() => 1),
  linear: afterWarmup((step, run) => Math.max(0, 1 - progressOf(step, run))),
  cosine: afterWarmup((step, run, { num_cycles = 0.5 }) => Math.max(0, cosine(progressOf(step, run), num_cycles))),
  cosine_with_restarts: afterWarmup((step, run, { num_cycles = 1 }) => {
    const progress = progressOf(step, run);
    return progress >= 1 ? 0 : Math.max(0, cosine((num_cycles * progress) % 1, 0.5));
  }),
  polynomial: afterWarmup((step, run, { power = 1, lr_end = 1e-7 }) => {
    const end = lr_end / run.learningRate;
    return end + (1 - end) * Math.max(0, 1 - progressOf(step, run)) ** power;
  }),
  inverse_sqrt: afterWarmup((step, { warmupSteps }, { timescale = warmupSteps || 10_000 }) =>
    Math.sqrt(timescale / (step + timescale - warmupSteps)),
  ),
  cosine_with_min_lr: afterWarmup((step, run, parameters) =>
    Math.max(0, above(lowest(run, parameters), cosine(progressOf(step, run), parameters.num_cycles ?? 0.5))),
  ),
  /** Counts from 1: the first update has a rate, and the last one the lowest. */
  cosine_warmup_with_min_lr: (step, run, parameters) => {
    const { num_cycles = 0.5, warmup_lr_rate: start } = parameters;
    const { warmupSteps } = run;
    if (step >= warmupSteps) {
      return Math.max(0, above(lowest(run, parameters), cosine(progressOf(step + 1, run), num_cycles)));
    }
    return start === undefined ? (step + 1) / warmupSteps : above(start, step / Math.max(1, warmupSteps - 1));
  },
  warmup_stable_decay: (step, { warmupSteps, totalSteps }, parameters) => {
    const { num_decay_steps: decay = 0, warmup_type = "linear", decay_type = "cosine", min_lr_ratio = 0 } = parameters;
    const { num_stable_steps: stable = totalSteps - warmupSteps - decay, num_cycles = 0.5 } = parameters;
    if (step < warmupSteps) return Math.max(0, above(min_lr_ratio, rise(warmup_type, step / warmupSteps)));
    if (step < warmupSteps + stable) return 1;
    if (step >= warmupSteps + stable + decay) return min_lr_ratio;
    const progress = (step - warmupSteps - stable) / Math.max(1, decay);
    return Math.max(0, above(min_lr_ratio, fall(decay_type, progress, num_cycles)));
  },
} as const satisfies Readonly<Record<string, Factor>>;

type Factor = (step: number, run: Run, parameters: ScheduleParameters) => number;

/** A linear warm-up from 0, then `factor`. */
function afterWarmup(factor: Factor): Factor {
  return (step, run, parameters) => (step < run.warmupSteps ? step / run.warmupSteps : factor(step, run, parameters));
}

/** The share of the updates after the warm-up that are done. */
function progressOf(step: number, { warmupSteps, totalSteps }: Run): number {
  return (step - warmupSteps) / Math.max(1, totalSteps - warmupSteps);
}

/** A factor that goes from 1 down to 0 and up again, `cycles` times. */
function cosine(progress: number, cycles: number): number {
  return 0.5 * (1 + Math.cos(Math.PI * cycles * 2 * progress));
}

/** A share from `floor` to 1. */
function above(floor: number, share: number): number {
  return share * (1 - floor) + floor;
}

function lowest(
  { learningRate }: Run,
  { min_lr = 0, min_lr_rate = min_lr / learningRate }: ScheduleParameters,
): number {
  return min_lr_rate;
}

/** The factor of a warm-up, from 0 to 1. */
function rise(type: RampType, progress: number): number {
  if (type === "linear") return progress;
  return type === "cosine" ? 0.5 * (1 - Math.cos(Math.PI * progress)) : 1 - Math.sqrt(1 - progress);
}

/** The factor of a decay, from 1 to 0. */
function fall(type: RampType, progress: number, cycles: number): number {
  if (type === "linear") return 1 - progress;
  return type === "cosine" ? cosine(progress, cycles) : 1 - Math.sqrt(progress);
}
