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
import { commit } from "../../src/cli/terminal/versions.ts";
import { Device } from "../../src/engine/gpu/device.ts";
import { elementCount } from "../../src/engine/gpu/tensor.ts";
import { parseModelConfig } from "../../src/engine/model/config/config.ts";
import { Model } from "../../src/engine/model/model.ts";
import { parameterSpecs } from "../../src/engine/model/weights/parameters.ts";
import { mebibytes } from "../../src/errors.ts";
import { linePlots } from "../../src/kto/report/svg.ts";
import { KtoTrainer } from "../../src/kto/trainer.ts";
import { summary } from "../measure/measure.ts";
import type { StepRows } from "../measure/peer-work.ts";
import { writeRandomModel } from "../random-model.ts";
import { stepExamples, stepOptions, stories260K } from "../step.ts";

/** Large enough that a dispatch costs more than its launch. */
const config = { ...stories260K, hidden_size: 128, intermediate_size: 344, num_hidden_layers: 2, vocab_size: 1024 };
const batch: StepRows = { rows: 4, prompt: 32, completion: 32 };

/** Categories of device memory that depend on the model alone. */
const PARAMETER_CATEGORIES: ReadonlySet<string> = new Set(["weights", "reference weights", "gradients", "optimizer"]);

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
type Subject = Awaited<ReturnType<typeof prepare>>;

/** A run of one size, which makes an update for each call. Working bytes are those beside models, gradients and moments. */
async function prepare(device: Device, folder: string, axis: Axis, factor: number, updates: number) {
  const { config, batch } = scaled(axis, factor);
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
  const parameters = parameterSpecs(parseModelConfig(JSON.stringify(config), "config.json"))
    .flatMap(({ parts }) => parts)
    .reduce((sum, { shape }) => sum + elementCount(shape), 0);
  const tokens = batch.rows * (batch.prompt + batch.completion);
  return {
    factor,
    x: { tokens, parameters, vocabulary: Number(config.vocab_size) }[axis],
    bytes: added(after),
    workingBytes: added(after.filter(([category]) => !PARAMETER_CATEGORIES.has(category))),
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

async function measure(device: Device, folder: string, axis: Axis, factors: readonly number[], updates: number) {
  const subjects: Subject[] = [];
  const times = new Map<Subject, number[]>();
  try {
    for (const factor of factors) subjects.push(await prepare(device, folder, axis, factor, WARM_UP + updates));
    for (let round = 0; round < WARM_UP + updates; round++) {
      for (const subject of subjects) {
        const start = performance.now();
        await subject.update();
        if (round >= WARM_UP) times.set(subject, [...(times.get(subject) ?? []), performance.now() - start]);
      }
    }
  } finally {
    for (const { free } of subjects) free();
  }
  const points = subjects.map((subject) => {
    const { factor, x, bytes, workingBytes } = subject;
    const { medianMs, spread } = summary(times.get(subject) ?? []);
    console.log(
      `${axis} x${factor}: ${x}, ${medianMs.toFixed(1)} ms (spread ${(100 * spread).toFixed(0)}%), ${mebibytes(bytes)}, of them ${mebibytes(workingBytes)} beside parameters`,
    );
    return { factor, x, median_ms: medianMs, spread, device_bytes: bytes, working_bytes: workingBytes };
  });
  return withLine(points);
}

/** How far points are off the line a + b x with the least sum of squared relative errors, as a share of it. */
function withLine<T extends { readonly x: number; readonly median_ms: number }>(points: readonly T[]) {
  let [s00, s01, s11, s0, s1] = [0, 0, 0, 0, 0];
  for (const { x, median_ms: y } of points) {
    s00 += 1 / y ** 2;
    s01 += x / y ** 2;
    s11 += (x / y) ** 2;
    s0 += 1 / y;
    s1 += x / y;
  }
  const determinant = s00 * s11 - s01 * s01;
  const [a, b] = [(s0 * s11 - s1 * s01) / determinant, (s00 * s1 - s01 * s0) / determinant];
  return points.map((point) => ({ ...point, off_line: point.median_ms / (a + b * point.x) - 1 }));
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
