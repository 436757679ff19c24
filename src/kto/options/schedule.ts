/**
 * The options of the learning rate, under transformers' names: the highest rate, its warm-up, the schedule and what
 * shapes it. The formulas stand in `engine/schedule.ts`.
 */
import * as z from "zod";
import { RAMPS, type Schedule, type ScheduleParameters, type ScheduleType } from "../../engine/schedule.ts";
import { ConfigError, shown } from "../../errors.ts";
import { type OptionsOf, option, optionGroup } from "./option.ts";
import { parseOptions } from "./parse.ts";

const { trainerOption } = optionGroup("Optimizer (AdamW)");
const count = z.number().int();
const share = z.number().min(0).max(1);

const parameter = <S extends z.ZodType>(schema: S) => option(schema, { group: "Schedule", description: "" });

/** Every parameter of a schedule; `ScheduleParameters` says what each does. */
export const scheduleParameterShape = {
  num_cycles: parameter(z.number().positive().optional()),
  power: parameter(z.number().positive().optional()),
  lr_end: parameter(z.number().min(0).optional()),
  timescale: parameter(count.min(1).optional()),
  min_lr: parameter(z.number().min(0).optional()),
  min_lr_rate: parameter(share.optional()),
  warmup_lr_rate: parameter(share.optional()),
  num_decay_steps: parameter(count.min(0).optional()),
  num_stable_steps: parameter(count.min(0).optional()),
  warmup_type: parameter(z.enum(RAMPS).optional()),
  decay_type: parameter(z.enum(RAMPS).optional()),
  min_lr_ratio: parameter(share.optional()),
};

/** The parameters that each schedule takes. */
const taken: Readonly<Record<ScheduleType, readonly (keyof ScheduleParameters)[]>> = {
  linear: [],
  cosine: ["num_cycles"],
  cosine_with_restarts: ["num_cycles"],
  polynomial: ["power", "lr_end"],
  constant: [],
  constant_with_warmup: [],
  inverse_sqrt: ["timescale"],
  cosine_with_min_lr: ["min_lr", "min_lr_rate", "num_cycles"],
  cosine_warmup_with_min_lr: ["min_lr", "min_lr_rate", "warmup_lr_rate", "num_cycles"],
  warmup_stable_decay: [
    "num_decay_steps",
    "num_stable_steps",
    "warmup_type",
    "decay_type",
    "min_lr_ratio",
    "num_cycles",
  ],
};

export const scheduleTypes = Object.keys(taken) as ScheduleType[];

const NEEDS_METRICS =
  'follows the evaluations, and here a run\'s rates are known before it: choose another, such as "cosine"';

export const scheduleOptions = {
  learning_rate: trainerOption(z.number().min(0).default(5e-6), {
    description: "the highest rate of the schedule",
    float32: true,
  }),
  lr_scheduler_type: trainerOption(z.enum(scheduleTypes).default("linear"), {
    description: "how the rate goes on after the warm-up; constant has no warm-up",
    refused: { reduce_lr_on_plateau: NEEDS_METRICS, greedy: NEEDS_METRICS },
  }),
  lr_scheduler_kwargs: trainerOption(z.record(z.string(), z.unknown()).default({}), {
    description: 'parameters of the schedule, such as {"num_cycles": 3} or {"min_lr_rate": 0.1}',
    expects: 'a JSON object or a mapping, such as {"num_cycles": 3}',
    nullMeans: {},
  }),
  warmup_steps: trainerOption(z.union([count.min(0), z.number().gt(0).lt(1)]).default(0), {
    description: "updates in which the rate rises from 0; below 1 a share of all updates; goes before warmup_ratio",
    expects: "a whole number of at least 0, or a share of all updates below 1",
  }),
  warmup_ratio: trainerOption(share.default(0), { description: "the warm-up as a share of all updates" }),
};

export type ScheduleOptions = OptionsOf<typeof scheduleOptions>;

/**
 * The parameters of the schedule, in its own order.
 *
 * @throws ConfigError for one that the schedule does not take, that it needs, or that is out of range
 */
export function scheduleParameters(
  options: ScheduleOptions,
  where: (name: string) => string = () => "",
): ScheduleParameters {
  const { learning_rate: rate, lr_scheduler_type: type, lr_scheduler_kwargs: given } = options;
  const known: readonly string[] = taken[type];
  const refuse = (what: string): never => {
    throw new ConfigError(`option "lr_scheduler_kwargs"${where("lr_scheduler_kwargs")} ${what}`);
  };
  const stranger = Object.keys(given).find((name) => !known.includes(name));
  if (stranger !== undefined) {
    refuse(`has ${shown(stranger)}, but lr_scheduler_type "${type}" takes ${known.join(", ") || "none"}.`);
  }
  const parsed = parseOptions(z.strictObject(scheduleParameterShape), given, {
    where: () => ` of lr_scheduler_kwargs${where("lr_scheduler_kwargs")}`,
  });
  if (known.includes("min_lr") && (parsed.min_lr === undefined) === (parsed.min_lr_rate === undefined)) {
    refuse(`needs min_lr or min_lr_rate, one of them, for lr_scheduler_type "${type}".`);
  }
  if (known.includes("num_decay_steps") && parsed.num_decay_steps === undefined) {
    refuse(`needs num_decay_steps, the updates of the decay, for lr_scheduler_type "${type}".`);
  }
  const { lr_end = type === "polynomial" ? 1e-7 : undefined, min_lr } = parsed;
  for (const [name, value] of Object.entries({ lr_end, min_lr })) {
    if (value !== undefined && value >= rate) {
      refuse(`needs ${name} below learning_rate, but they are ${value} and ${rate}.`);
    }
  }
  return parsed;
}

/** The schedule of a run of so many updates, from options that were checked. */
export function scheduleOf(options: ScheduleOptions, totalSteps: number): Schedule {
  const { warmup_steps: given, warmup_ratio } = options;
  return {
    type: options.lr_scheduler_type,
    learningRate: options.learning_rate,
    warmupSteps: given >= 1 ? given : Math.ceil((given || warmup_ratio) * totalSteps),
    totalSteps,
    parameters: options.lr_scheduler_kwargs,
  };
}
