/** `kto bench`: measures kernels and whole updates on this adapter, as a table and as JSON. The benchmarks are in bench/. */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as z from "zod";
import { timingOptions } from "../../../bench/measure/measure.ts";
import { measurePeaks } from "../../../bench/measure/peaks.ts";
import type { PeerResult } from "../../../bench/measure/peer-work.ts";
import { type BenchmarkResult, chooseBenchmarks, runBenchmarks } from "../../../bench/run.ts";
import { Device } from "../../engine/gpu/device.ts";
import { platform } from "../../engine/platform/index.ts";
import { option } from "../../kto/options/option.ts";
import { parseOptions } from "../../kto/options/parse.ts";
import { command } from "../options/command.ts";
import { commonOptions } from "../options/shared.ts";
import { peerRunner, peerVersions } from "../session/bench-peers.ts";
import { checkOutputFile } from "../terminal/files.ts";
import type { Output } from "../terminal/output.ts";
import { commit, installedVersions } from "../terminal/versions.ts";

const group = "Benchmarks";
const { json: _, ...otherOptions } = commonOptions;

const schema = z.strictObject({
  quick: option(z.boolean().default(false), {
    group,
    description: "fewer of them and less often, in under two minutes",
  }),
  filter: option(z.string().min(1).optional(), {
    group,
    description: "only those with this in their name, e.g. matmul",
    expects: "a part of a name",
  }),
  peers: option(z.boolean().optional(), {
    group,
    description: "time other engines on the same work; they are there in a checkout only (default: unless --quick)",
  }),
  json: option(z.string().min(1).optional(), {
    group,
    description: 'write the results into this file; "-" writes them to stdout instead of the table',
    expects: 'the name of a file, or "-"',
    placeholder: "file",
  }),
  ...otherOptions,
});

type BenchOptions = Omit<z.output<typeof schema>, "json"> & {
  readonly json: boolean;
  readonly jsonFile: string | undefined;
};

export const benchCommand = command({
  examples: ["kto bench --quick", "kto bench --json results.json", "kto bench --filter matmul --adapter lavapipe"],
  schema,
  parse: ({ values, where }): BenchOptions => {
    const { json, ...options } = parseOptions(schema, values, { where });
    return { ...options, json: json === "-", jsonFile: json === "-" ? undefined : json };
  },
  run: runBench,
});

async function runBench(options: BenchOptions, output: Output): Promise<void> {
  const chosen = chooseBenchmarks(options.quick, options.filter);
  if (options.jsonFile) await checkOutputFile(options.jsonFile);
  const say = (line: string) => {
    if (!output.json) output.result(line);
  };
  const scratch = mkdtempSync(join(tmpdir(), "kto-bench-"));
  const device = await Device.open(options.adapter === undefined ? {} : { adapter: options.adapter });
  try {
    const peaks = await measurePeaks(device, timingOptions(options.quick));
    say(
      `${device.description}${device.isSoftware ? " (software: these figures are not a GPU's)" : ""}, subgroups of ${device.facts.subgroupSize || "no fixed size"}`,
    );
    say(`peaks: ${peaks.gflops.toFixed(1)} GFLOP/s (fused multiply-add), ${peaks.gbps.toFixed(1)} GB/s (copy)`);
    say(row("", "", "median ms", "device ms", "spread", "GFLOP/s", "GB/s", "of peak"));
    const withPeers = options.peers ?? !options.quick;
    const results: BenchmarkResult[] = [];
    const runPeers = withPeers ? peerRunner(options.adapter, (text) => output.debug(text)) : async () => ({});
    for await (const result of runBenchmarks(device, peaks, chosen, { quick: options.quick, scratch, runPeers })) {
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
  const { name, shape, peers, step } = result;
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
  if (step === undefined) return lines;
  lines.push(
    `  ${Math.round(step.tokens_per_second)} tokens/s, first update ${(step.first_ms / 1000).toFixed(1)} s, ${(step.device_bytes / 2 ** 20).toFixed(1)} MiB, host ${percent(step.host_share)}${step.adamw_share_of_copy === null ? "" : `, AdamW at ${percent(step.adamw_share_of_copy)} of the copy`}`,
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
