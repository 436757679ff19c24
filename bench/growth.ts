/**
 * How the time and the memory of an update grow with tokens, parameters and vocabulary, each from 1 to 16 times, the
 * rest as it is. Time is compared with the straight line that fits it best; memory beside models, gradients and moments
 * is shown on its own, since a vocabulary should cost its weights alone.
 *
 *   npx tsx bench/growth.ts [--updates N] [--most FACTOR] [--out FILE]     writes FILE.json and FILE.svg
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { writeRandomModel } from "../src/bench/random-model.ts";
import { type StepRows, stories260K, timeStep } from "../src/bench/step.ts";
import { commit } from "../src/cli/commit.ts";
import { Device } from "../src/engine/device.ts";
import { parseModelConfig } from "../src/engine/model/config.ts";
import { parameterSpecs } from "../src/engine/model/parameters.ts";
import { elementCount } from "../src/engine/tensor.ts";
import { linePlots } from "../src/kto/report/svg.ts";

/** Large enough that a dispatch costs more than its launch. */
const config = { ...stories260K, hidden_size: 128, intermediate_size: 344, num_hidden_layers: 2, vocab_size: 1024 };
const batch: StepRows = { rows: 4, prompt: 32, completion: 32 };

type Axis = "tokens" | "parameters" | "vocabulary";

/** Tokens by rows, so that attention's share stays; parameters by layers; each by the factor. */
function scaled(axis: Axis, factor: number): { config: Record<string, unknown>; batch: StepRows } {
  if (axis === "tokens") return { config, batch: { ...batch, rows: batch.rows * factor } };
  if (axis === "parameters") return { config: { ...config, num_hidden_layers: 2 * factor }, batch };
  return { config: { ...config, vocab_size: config.vocab_size * factor }, batch };
}

interface Point {
  readonly factor: number;
  readonly x: number;
  readonly median_ms: number;
  readonly spread: number;
  /** Off the straight line that fits all points best, as a share of it. */
  readonly off_line: number;
  readonly device_bytes: number;
  /** Without models, gradients and moments. */
  readonly working_bytes: number;
}

async function measure(device: Device, folder: string, axis: Axis, factors: readonly number[], updates: number) {
  const points: Omit<Point, "off_line">[] = [];
  for (const factor of factors) {
    const { config, batch } = scaled(axis, factor);
    await writeRandomModel(folder, config, 1);
    const result = await timeStep(device, folder, { batch }, updates);
    const parameters = parameterSpecs(parseModelConfig(JSON.stringify(config), "config.json"))
      .flatMap(({ parts }) => parts)
      .reduce((sum, { shape }) => sum + elementCount(shape), 0);
    const x = {
      tokens: batch.rows * (batch.prompt + batch.completion),
      parameters,
      vocabulary: Number(config.vocab_size),
    }[axis];
    points.push({
      factor,
      x,
      median_ms: result.medianMs,
      spread: result.spread,
      device_bytes: result.deviceBytes,
      working_bytes: result.deviceBytes - result.parameterBytes,
    });
    const mebibytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
    console.log(
      `${axis} x${factor}: ${x}, ${result.medianMs.toFixed(1)} ms (spread ${(100 * result.spread).toFixed(0)}%), ${mebibytes(result.deviceBytes)}, of them ${mebibytes(result.deviceBytes - result.parameterBytes)} beside parameters`,
    );
  }
  return withLine(points);
}

/** Beside the line a + b x that is least off, in the sum of squares of its relative errors. */
function withLine(points: readonly Omit<Point, "off_line">[]): Point[] {
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
    updates: { type: "string", default: "8" },
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
