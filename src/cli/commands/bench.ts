/**
 * `kto bench`: measures kernels and whole updates on this adapter, as a table and as JSON. The benchmarks are in
 * bench/.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { timingOptions } from "../../../bench/measure/measure.ts";
import { measurePeaks, peaksText } from "../../../bench/measure/peaks.ts";
import type { PeerResult } from "../../../bench/measure/peer-work.ts";
import { peerRunner, peerVersions } from "../../../bench/peers/run.ts";
import { type BenchmarkResult, chooseBenchmarks, fittingBenchmarks, runBenchmarks } from "../../../bench/run.ts";
import { Device } from "../../engine/gpu/device.ts";
import { platform } from "../../engine/platform/index.ts";
import { commit } from "../../engine/platform/node-commit.ts";
import { installedVersions } from "../../engine/platform/node-versions.ts";
import { mebibytes } from "../../errors.ts";
import { type BenchOptions, benchDescription } from "../descriptions/bench.ts";
import { command } from "../options/command.ts";
import { checkOutputFile } from "../terminal/files.ts";
import type { Output } from "../terminal/output.ts";
import { working } from "../terminal/work.ts";

export default command(benchDescription, runBench);

async function runBench(options: BenchOptions, output: Output): Promise<void> {
  const asked = chooseBenchmarks(options.quick, options.filter);
  if (options.jsonFile) await checkOutputFile(options.jsonFile);
  const say = (line: string) => {
    if (!output.json) output.result(line);
  };
  const scratch = mkdtempSync(join(tmpdir(), "kto-bench-"));
  const device = await Device.open(options.adapter === undefined ? {} : { adapter: options.adapter });
  try {
    const chosen = fittingBenchmarks(device, asked);
    const peaks = await working(output, "measuring the adapter's peaks", () =>
      measurePeaks(device, timingOptions(options.quick)),
    );
    say(
      `${device.description}${device.isSoftware ? " (software: these figures are not a GPU's)" : ""}, subgroups of ${device.facts.subgroupSize || "no fixed size"}`,
    );
    say(`peaks: ${peaksText(peaks)}`);
    say(row("", "", "median ms", "device ms", "spread", "GFLOP/s", "GB/s", "of peak"));
    const withPeers = options.peers ?? !options.quick;
    const results: BenchmarkResult[] = [];
    const runPeers = withPeers ? peerRunner(options.adapter, (text) => output.debug(text)) : async () => ({});
    const running = runBenchmarks(device, peaks, chosen, { quick: options.quick, scratch, runPeers });
    const count = chosen.kernels.length + chosen.generations.length + chosen.steps.length;
    while (true) {
      const what = `benchmark ${results.length + 1} of ${count}`;
      const { value: result } = await working(output, what, () => running.next());
      if (!result) break;
      results.push(result);
      for (const line of tableLines(result)) say(line);
    }
    const report = {
      adapter: device.description,
      versions: { ...installedVersions(), ...(withPeers ? peerVersions() : {}) },
      node: process.version,
      commit: commit(),
      date: new Date().toISOString(),
      peaks,
      results,
    };
    if (output.json) output.jsonLine(report);
    if (options.jsonFile) {
      await platform.writeFileAtomic(options.jsonFile, `${JSON.stringify(report, null, 2)}\n`);
      output.info(`written to ${options.jsonFile}`);
    }
  } finally {
    device.close();
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** A result as lines of the table: its own, one for each peer, and the parts of a whole update. */
export function tableLines(result: BenchmarkResult): string[] {
  const { name, shape, peers, generation, step } = result;
  const lines = [
    row(
      name,
      shape,
      result.median_ms.toFixed(3),
      result.device_ms?.toFixed(3) ?? "",
      percent(result.spread),
      result.gflops.toFixed(1),
      result.gbps.toFixed(1),
      percent(result.share_of_peak),
    ),
    ...Object.entries(peers).map(([peer, theirs]) => peerLine(peer, theirs, result.median_ms)),
  ];
  if (generation !== undefined) {
    const { tokens_per_second: tokens, share_of_copy: share } = generation;
    lines.push(`  ${tokens.toFixed(1)} tokens/s, weights read at ${percent(share)} of the copy`);
  }
  if (step === undefined) return lines;
  lines.push(
    `  ${Math.round(step.tokens_per_second)} tokens/s, first update ${(step.first_ms / 1000).toFixed(1)} s, ${mebibytes(step.device_bytes)}, host ${percent(step.host_share)}${step.adamw_share_of_copy === null ? "" : `, AdamW at ${percent(step.adamw_share_of_copy)} of the copy`}`,
  );
  for (const { name, dispatches, ms, flops, bytes } of step.kernels.slice(0, 12)) {
    const rates = [(flops / ms / 1e6).toFixed(1), (bytes / ms / 1e6).toFixed(1)];
    lines.push(row(`  ${name}`, `${dispatches} dispatches`, "", ms.toFixed(2), "", ...rates));
  }
  return lines;
}

function peerLine(peer: string, theirs: PeerResult, ours: number): string {
  if ("error" in theirs) return `  ${peer}: not timed: ${theirs.error}`;
  const times = `${(theirs.median_ms / ours).toFixed(2)} times ours`;
  return row(`  ${peer}`, times, theirs.median_ms.toFixed(3), "", percent(theirs.spread));
}

function row(name: string, shape: string, ...numbers: string[]): string {
  return `${name.padEnd(38)} ${shape.padEnd(32)}${numbers.map((text) => text.padStart(10)).join("")}`.trimEnd();
}

function percent(share: number): string {
  return `${(100 * share).toFixed(share < 0.1 ? 1 : 0)}%`;
}
