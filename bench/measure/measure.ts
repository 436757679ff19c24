/**
 * Times a recorded program: wall time of many replays in one wait over their number, repeated; median and spread. It
 * does not check results: the case has done so before.
 */
import type { Device } from "../../src/engine/gpu/device.ts";
import type { Program } from "../../src/engine/gpu/program.ts";

export interface Timing {
  readonly medianMs: number;
  /** Distance between the quartiles over the median. */
  readonly spread: number;
  readonly replays: number;
}

export interface TimingOptions {
  /** Wall time of one repetition at least, in milliseconds. */
  readonly leastMs: number;
  readonly repetitions: number;
}

/** Wall time and repetitions of a measurement; fewer of both where `quick`. */
export function timingOptions(quick: boolean): TimingOptions {
  return quick ? { leastMs: 50, repetitions: 7 } : { leastMs: 200, repetitions: 15 };
}

/** Runs the program until compilation and caches are behind it, then times it. */
export async function time(device: Device, program: Program, options: TimingOptions): Promise<Timing> {
  await program.prepare();
  const replay = async (count: number): Promise<number> => {
    const start = performance.now();
    for (let i = 0; i < count; i++) program.run();
    await device.idle();
    return performance.now() - start;
  };
  await replay(1);
  const once = await replay(1);
  const count = Math.max(1, Math.ceil(options.leastMs / Math.max(once, 0.01)));
  const times: number[] = [];
  for (let i = 0; i < options.repetitions; i++) times.push((await replay(count)) / count);
  return { ...summary(times), replays: count * options.repetitions };
}

/** Milliseconds of one replay by the device's own timestamps, pauses between dispatches left out; null without them. */
export async function deviceTime(device: Device, program: Program, repetitions = 5): Promise<number | null> {
  if (!device.gpu.features.has("timestamp-query")) return null;
  const times: number[] = [];
  for (let i = 0; i < repetitions; i++) {
    times.push((await program.profile()).reduce((sum, { ms }) => sum + ms, 0));
  }
  return summary(times).medianMs;
}

/** Median and relative distance between the quartiles. */
export function summary(times: readonly number[]): { medianMs: number; spread: number } {
  const sorted = [...times].sort((a, b) => a - b);
  const quantile = (share: number) => sorted[Math.round(share * (sorted.length - 1))] ?? Number.NaN;
  return { medianMs: quantile(0.5), spread: (quantile(0.75) - quantile(0.25)) / quantile(0.5) };
}
