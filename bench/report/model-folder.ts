/** Random models of the report, each written once for the parts and cases that need it, and what is measured of one. */
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Device } from "../../src/engine/gpu/device.ts";
import type { Peaks } from "../measure/peaks.ts";
import { writeLargeRandomModel } from "../random-model.ts";
import { attempt } from "./attempt.ts";
import type { Budget } from "./budget.ts";
import type { Finding, Json, PartContext } from "./finding.ts";

/** A part that is running. */
export interface RunningPart {
  readonly context: PartContext;
  readonly budget: Budget;
  readonly emit: (finding: Finding) => void;
}

interface Measurement {
  readonly name: string;
  readonly model: { readonly name: string; readonly shape: Readonly<Record<string, unknown>> };
  /** Estimated for the whole measurement. */
  readonly seconds: (peaks: Peaks, software: boolean) => number;
  readonly figures: (device: Device, folder: string, peaks: Peaks) => Promise<Readonly<Record<string, Json>>>;
}

/** Measures a model on a device that is opened for it, unless there is no time for that. */
export async function measureModel(one: Measurement, { context, budget, emit }: RunningPart): Promise<void> {
  const { name, model } = one;
  await attempt(name, emit, async () => {
    const { scratch, peaks } = context;
    if (peaks === undefined) throw new Error("the adapter's peaks were not measured, which estimates and shares need");
    const device = await Device.open();
    try {
      const leftOut = budget.leavesOut(name, one.seconds(peaks, device.isSoftware));
      if (leftOut !== undefined) return emit(leftOut);
      const folder = await randomModelFolder(scratch, model);
      emit({ kind: "result", name, figures: await one.figures(device, folder, peaks) });
    } finally {
      device.close();
    }
  });
}

/** The folder of a model's random weights, which is written at the first call. */
async function randomModelFolder(scratch: string, { name, shape }: Measurement["model"]): Promise<string> {
  const folder = join(scratch, name.replace(/\W+/g, "-"));
  // Comes last: a process that was ended while it wrote leaves a folder without it.
  const complete = join(folder, "complete");
  if (!existsSync(complete)) {
    await writeLargeRandomModel(folder, shape, 1);
    writeFileSync(complete, "");
  }
  return folder;
}
