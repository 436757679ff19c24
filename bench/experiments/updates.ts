/** Updates of runs of several sizes, which take turns, so that a slow phase of the machine affects all of them. */
import type { Device } from "../../src/engine/gpu/device.ts";
import { Model } from "../../src/engine/model/model.ts";
import { KtoTrainer } from "../../src/kto/trainer.ts";
import type { StepRows } from "../measure/peer-work.ts";
import { writeRandomModel } from "../random-model.ts";
import { stepExamples, stepOptions } from "../step.ts";
import { now, since, type Timed } from "./timed.ts";

/** Categories of device memory that depend on the model alone. */
const PARAMETER_CATEGORIES: ReadonlySet<string> = new Set(["weights", "reference weights", "gradients", "optimizer"]);

/** A run of one size. */
export interface Subject {
  readonly parameters: number;
  /** Device bytes of the run, and of these what is no model, gradient or moment. */
  readonly bytes: number;
  readonly workingBytes: number;
  /** The times of the updates, in their order. */
  readonly times: Timed[];
  /** Makes an update. */
  readonly update: () => Promise<void>;
  readonly free: () => void;
}

/** A run on random weights and rows of up to `updates` updates. @param folder for the model's files */
export async function prepareUpdates(
  device: Device,
  folder: string,
  { config, batch }: { readonly config: Readonly<Record<string, unknown>>; readonly batch: StepRows },
  updates: number,
): Promise<Subject> {
  const before = device.memory();
  await writeRandomModel(folder, config, 1);
  const policy = await Model.load(device, folder);
  const trainer = await KtoTrainer.create({
    policy,
    examples: stepExamples(batch, policy.config.vocabSize),
    options: stepOptions(batch, updates),
  });
  const steps = trainer[Symbol.asyncIterator]();
  const after = Object.entries(device.memory());
  const added = (categories: typeof after) =>
    categories.reduce((sum, [category, bytes]) => sum + bytes - (before[category] ?? 0), 0);
  return {
    parameters: policy.layout.parameterCount,
    bytes: added(after),
    workingBytes: added(after.filter(([category]) => !PARAMETER_CATEGORIES.has(category))),
    times: [],
    update: async () => {
      await steps.next();
      await device.idle();
    },
    free: () => {
      trainer.free();
      policy.free();
    },
  };
}

/** Makes the updates of all subjects in turns and times those behind the first ones. */
export async function inTurns(subjects: readonly Subject[], warmUp: number, updates: number): Promise<void> {
  for (let round = 0; round < warmUp + updates; round++) {
    for (const { update, times } of subjects) {
      const start = now();
      await update();
      if (round >= warmUp) times.push(since(start));
    }
  }
}

/** The line through the points with the least sum of squared relative errors, at x. */
export function lineThrough(points: readonly (readonly [x: number, y: number])[]): (x: number) => number {
  let [s00, s01, s11, s0, s1] = [0, 0, 0, 0, 0];
  for (const [x, y] of points) {
    s00 += 1 / y ** 2;
    s01 += x / y ** 2;
    s11 += (x / y) ** 2;
    s0 += 1 / y;
    s1 += x / y;
  }
  const determinant = s00 * s11 - s01 * s01;
  const [a, b] = [(s0 * s11 - s1 * s01) / determinant, (s00 * s1 - s01 * s0) / determinant];
  return (x) => a + b * x;
}
