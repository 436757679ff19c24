/**
 * Measures the time and device memory of an update against the length of its rows, from 256 tokens to 8,192, which
 * attention decides: its work for a token grows with the keys that the token sees, linearly, and its memory with the
 * rows alone, since no matrix of queries by keys exists. Lengths take turns update by update. On software adapters the
 * time is the processor's, which other work on the machine hardly changes.
 *
 *   npx tsx bench/experiments/row-length.ts [--updates N] [--most TOKENS] [--out FILE]     writes FILE.json and
 *                                                                                          FILE.svg
 *
 * Exits with 1 if bytes are more than 10% off a straight line or tokens of the longest rows cost more than 10% above
 * the line through the shorter ones.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Device } from "../../src/engine/gpu/device.ts";
import { commit } from "../../src/engine/platform/node-commit.ts";
import { linePlots } from "../../src/kto/report/svg.ts";
import { summary } from "../measure/measure.ts";
import { stories260K } from "../step.ts";
import { inTurns, lineThrough, prepareUpdates, type Subject } from "./updates.ts";

/** One layer and heads of 16, so that 8,192 tokens take seconds on a processor. */
const config = {
  ...stories260K,
  ...{ num_hidden_layers: 1, num_attention_heads: 4, num_key_value_heads: 2, max_position_embeddings: 8192 },
};
const LENGTHS = [256, 512, 1024, 2048, 4096, 8192];
/** Rows of an update: the fewest that have mismatched pairs. */
const ROWS = 2;
const WITHIN = 0.1;

interface Point {
  readonly tokens: number;
  readonly update_ms: number;
  /** Processor time of all threads; on software adapters the line is drawn by it. */
  readonly update_processor_ms: number;
  readonly spread: number;
  /** Milliseconds of an update over its tokens, the processor's on software adapters. */
  readonly token_ms: number;
  readonly device_bytes: number;
  readonly working_bytes: number;
}

const { values } = parseArgs({
  options: {
    updates: { type: "string", default: "3" },
    most: { type: "string", default: "8192" },
    out: { type: "string", default: join(import.meta.dirname, "..", "results", "row-length") },
  },
});
const lengths = LENGTHS.filter((length) => length <= Number(values.most));
const folder = mkdtempSync(join(tmpdir(), "kto-row-length-"));
const device = await Device.open();
const subjects: (Subject & { readonly tokens: number })[] = [];
try {
  console.log(`${device.description}${device.isSoftware ? " (software: these figures are not a GPU's)" : ""}`);
  for (const tokens of lengths) {
    const batch = { rows: ROWS, prompt: tokens / 2, completion: tokens / 2 };
    const subject = await prepareUpdates(device, folder, { config, batch }, 1 + Number(values.updates));
    subjects.push({ ...subject, tokens });
  }
  await inTurns(subjects, 1, Number(values.updates));
  const points = subjects.map(({ tokens, times, bytes, workingBytes }): Point => {
    const { medianMs } = summary(times.map(({ ms }) => ms));
    const { medianMs: processorMs } = summary(times.map((time) => time.processorMs));
    const { medianMs: counted, spread } = summary(
      times.map((time) => (device.isSoftware ? time.processorMs : time.ms)),
    );
    const token_ms = counted / (ROWS * tokens);
    console.log(
      `rows of ${tokens} tokens: ${medianMs.toFixed(0)} ms an update, ${processorMs.toFixed(0)} of the processor (spread ${(100 * spread).toFixed(0)}%), ${(1000 * token_ms).toFixed(1)} us a token, ${(bytes / 2 ** 20).toFixed(1)} MiB, of them ${(workingBytes / 2 ** 20).toFixed(1)} beside parameters`,
    );
    const memory = { device_bytes: bytes, working_bytes: workingBytes };
    return { tokens, update_ms: medianMs, update_processor_ms: processorMs, spread, token_ms, ...memory };
  });
  const offLine = (of: (point: Point) => number, line: (x: number) => number) =>
    points.map((point) => of(point) / line(point.tokens) - 1);
  const bytesOff = offLine(
    ({ working_bytes }) => working_bytes,
    lineThrough(points.map(({ tokens, working_bytes }) => [tokens, working_bytes])),
  );
  const timeOff = offLine(
    ({ token_ms }) => token_ms,
    lineThrough(points.slice(0, -1).map(({ tokens, token_ms }) => [tokens, token_ms])),
  );
  const worstBytes = Math.max(...bytesOff.map(Math.abs));
  const longest = timeOff.at(-1) ?? 0;
  const percent = (share: number) => `${(100 * share).toFixed(1)}%`;
  console.log(
    `bytes are within ${percent(worstBytes)} of a line; a token of the longest rows takes ${percent(longest)} more than the line through the shorter ones says`,
  );
  if (worstBytes > WITHIN || longest > WITHIN) process.exitCode = 1;
  const report = {
    ...{ adapter: device.description, commit: commit(), date: new Date().toISOString(), load: loadavg() },
    ...{ config, rows: ROWS, points, bytes_off_line: bytesOff, token_time_off_line: timeOff },
  };
  writeFileSync(`${values.out}.json`, `${JSON.stringify(report, null, 2)}\n`);
  const line = (of: (point: Point) => number) => points.map((point) => [point.tokens, of(point)] as const);
  const figure = linePlots({
    title: `An update of ${ROWS} rows on ${device.description}`,
    xLabel: "tokens of a row",
    panels: [
      {
        title: `microseconds a token${device.isSoftware ? " (of the processor)" : ""}`,
        series: [{ name: "update", points: line(({ token_ms }) => 1000 * token_ms) }],
        includeY: [0],
      },
      {
        title: "MiB beside parameters, gradients, moments",
        series: [{ name: "device memory", points: line(({ working_bytes }) => working_bytes / 2 ** 20) }],
        includeY: [0],
      },
    ],
  });
  writeFileSync(`${values.out}.svg`, figure);
  console.log(`written to ${values.out}.json and ${values.out}.svg`);
} finally {
  for (const { free } of subjects) free();
  device.close();
  rmSync(folder, { recursive: true });
}
