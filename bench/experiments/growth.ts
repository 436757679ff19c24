/**
 * Measures the growth of an update's time and memory with tokens, parameters and vocabulary, each from 1 to 16 times
 * while the others stay. The sizes of an axis take turns update by update, so that a slow phase of the machine affects
 * all of them. Time is compared with the best-fitting straight line; memory beyond models, gradients and moments is
 * shown separately, since a larger vocabulary should cost its weights alone.
 *
 *   npx tsx bench/experiments/growth.ts [--updates N] [--most FACTOR] [--out FILE]     writes FILE.json and FILE.svg
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Device } from "../../src/engine/gpu/device.ts";
import { commit } from "../../src/engine/platform/node-commit.ts";
import { mebibytes } from "../../src/errors.ts";
import { linePlots } from "../../src/kto/report/svg.ts";
import { summary } from "../measure/measure.ts";
import type { StepRows } from "../measure/peer-work.ts";
import { stories260K } from "../step.ts";
import { inTurns, lineThrough, prepareUpdates, type Subject } from "./updates.ts";

/** Large enough that a dispatch costs more than its launch. */
const config = { ...stories260K, hidden_size: 128, intermediate_size: 344, num_hidden_layers: 2, vocab_size: 1024 };
const batch: StepRows = { rows: 4, prompt: 32, completion: 32 };

/** Updates of each size before those that are timed. */
const WARM_UP = 2;

type Axis = "tokens" | "parameters" | "vocabulary";

/** Tokens by rows, so that attention's share stays; parameters by layers; each by the factor. */
function scaled(axis: Axis, factor: number): { config: Record<string, unknown>; batch: StepRows } {
  if (axis === "tokens") return { config, batch: { ...batch, rows: batch.rows * factor } };
  if (axis === "parameters") return { config: { ...config, num_hidden_layers: 2 * factor }, batch };
  return { config: { ...config, vocab_size: config.vocab_size * factor }, batch };
}

type Point = Awaited<ReturnType<typeof measure>>[number];

async function measure(device: Device, folder: string, axis: Axis, factors: readonly number[], updates: number) {
  const subjects: (Subject & { readonly factor: number; readonly x: number })[] = [];
  try {
    for (const factor of factors) {
      const size = scaled(axis, factor);
      const subject = await prepareUpdates(device, folder, size, WARM_UP + updates);
      const tokens = size.batch.rows * (size.batch.prompt + size.batch.completion);
      const x = { tokens, parameters: subject.parameters, vocabulary: Number(size.config.vocab_size) }[axis];
      subjects.push({ ...subject, factor, x });
    }
    await inTurns(subjects, WARM_UP, updates);
  } finally {
    for (const { free } of subjects) free();
  }
  const points = subjects.map((subject) => {
    const { factor, x, bytes, workingBytes } = subject;
    const { medianMs, spread } = summary(subject.times.map(({ ms }) => ms));
    console.log(
      `${axis} x${factor}: ${x}, ${medianMs.toFixed(1)} ms (spread ${(100 * spread).toFixed(0)}%), ${mebibytes(bytes)}, of them ${mebibytes(workingBytes)} beside parameters`,
    );
    return { factor, x, median_ms: medianMs, spread, device_bytes: bytes, working_bytes: workingBytes };
  });
  return withLine(points);
}

/** How far points are off the line that fits them best, as a share of it. */
function withLine<T extends { readonly x: number; readonly median_ms: number }>(points: readonly T[]) {
  const line = lineThrough(points.map(({ x, median_ms }) => [x, median_ms]));
  return points.map((point) => ({ ...point, off_line: point.median_ms / line(point.x) - 1 }));
}

const { values } = parseArgs({
  options: {
    updates: { type: "string", default: "24" },
    most: { type: "string", default: "16" },
    out: { type: "string", default: join(import.meta.dirname, "results", "growth") },
  },
});
const factors = [1, 2, 4, 8, 16].filter((factor) => factor <= Number(values.most));
const folder = mkdtempSync(join(tmpdir(), "kto-growth-"));
const device = await Device.open();
try {
  console.log(`${device.description}${device.isSoftware ? " (software: these figures are not a GPU's)" : ""}`);
  const axes = {} as Record<Axis, Point[]>;
  for (const axis of ["tokens", "parameters", "vocabulary"] as const) {
    axes[axis] = await measure(device, folder, axis, factors, Number(values.updates));
    const worst = Math.max(...axes[axis].map(({ off_line }) => Math.abs(off_line)));
    console.log(`  time is within ${(100 * worst).toFixed(0)}% of a line`);
  }
  const report = { adapter: device.description, commit: commit(), date: new Date().toISOString(), config, batch, axes };
  writeFileSync(`${values.out}.json`, `${JSON.stringify(report, null, 2)}\n`);
  const line = (axis: Axis, of: (point: Point) => number) =>
    axes[axis].map((point) => [point.factor, of(point)] as const);
  const figure = linePlots({
    title: `An update on ${device.description}`,
    xLabel: "times the smallest",
    panels: [
      {
        title: "milliseconds",
        series: (["tokens", "parameters", "vocabulary"] as const).map((name) => ({
          name,
          points: line(name, ({ median_ms }) => median_ms),
        })),
        includeY: [0],
      },
      {
        title: "MiB beside parameters, gradients, moments",
        series: (["tokens", "vocabulary"] as const).map((name) => ({
          name,
          points: line(name, ({ working_bytes }) => working_bytes / 2 ** 20),
        })),
        includeY: [0],
      },
    ],
  });
  writeFileSync(`${values.out}.svg`, figure);
  console.log(`written to ${values.out}.json and ${values.out}.svg`);
} finally {
  device.close();
  rmSync(folder, { recursive: true });
}
