/**
 * `npm run bench [-- --quick] [--json FILE]`: this adapter's peaks, every kernel benchmark as a share of them, whole
 * updates with their kernels. A software adapter's figures say nothing about a GPU's.
 */
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { Device } from "../src/engine/device.ts";
import { Program } from "../src/engine/program.ts";
import { KtoError } from "../src/errors.ts";
import { type BenchmarkCase, BenchmarkMemory } from "./case.ts";
import { adamwCases } from "./kernels/adamw.ts";
import { headCases } from "./kernels/head.ts";
import { matmulCases } from "./kernels/matmul.ts";
import { type TimingOptions, time } from "./measure.ts";
import { measurePeaks, type Peaks } from "./peaks.ts";
import { type StepResult, stepCases, timeStep } from "./step.ts";

const cases: readonly BenchmarkCase[] = [...matmulCases, ...headCases, ...adamwCases];

interface KernelResult {
  readonly name: string;
  readonly shape: string;
  readonly median_ms: number;
  readonly spread: number;
  readonly gflops: number;
  readonly gbps: number;
  /** The larger of the shares of the two peaks. */
  readonly share_of_peak: number;
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { quick: { type: "boolean", default: false }, json: { type: "string" } } });
  const device = await Device.open();
  const say = (line: string): void => void process.stdout.write(`${line}\n`);
  try {
    const options: TimingOptions = values.quick ? { leastMs: 50, repetitions: 7 } : { leastMs: 200, repetitions: 15 };
    say(
      `${device.description}${device.isSoftware ? " (software: these figures are not a GPU's)" : ""}, subgroups of ${device.facts.subgroupSize || "no fixed size"}`,
    );
    const peaks = await measurePeaks(device, options);
    say(`peaks: ${peaks.gflops.toFixed(1)} GFLOP/s (fused multiply-add), ${peaks.gbps.toFixed(1)} GB/s (copy)\n`);
    say(row("kernel", "shape", "median ms", "spread", "GFLOP/s", "GB/s", "of peak"));
    const results: KernelResult[] = [];
    for (const one of cases.filter(({ quick }) => quick || !values.quick)) {
      const result = await runCase(device, one, peaks, options);
      results.push(result);
      say(
        row(
          result.name,
          result.shape,
          result.median_ms.toFixed(3),
          percent(result.spread),
          result.gflops.toFixed(1),
          result.gbps.toFixed(1),
          percent(result.share_of_peak),
        ),
      );
    }
    const steps: (StepResult & { name: string })[] = [];
    for (const one of stepCases.filter(({ quick }) => quick || !values.quick)) {
      const result = { name: one.name, ...(await timeStep(device, one, values.quick ? 8 : 16)) };
      steps.push(result);
      say(
        `\n${result.name}, ${result.shape}: ${result.medianMs.toFixed(1)} ms (spread ${percent(result.spread)}), ${Math.round(result.tokensPerSecond)} tokens/s, first update ${(result.firstMs / 1000).toFixed(1)} s, ${(result.deviceBytes / 2 ** 20).toFixed(1)} MiB`,
      );
      for (const { name, dispatches, ms, flops, bytes } of result.kernels.slice(0, 12)) {
        say(
          row(
            `  ${name}`,
            `${dispatches} dispatches`,
            ms.toFixed(2),
            "",
            (flops / ms / 1e6).toFixed(1),
            (bytes / ms / 1e6).toFixed(1),
            "",
          ),
        );
      }
    }
    if (values.json !== undefined) {
      const report = {
        adapter: device.description,
        commit: commit(),
        date: new Date().toISOString(),
        node: process.version,
        peaks,
        results,
        steps,
      };
      writeFileSync(values.json, `${JSON.stringify(report, null, 2)}\n`);
      say(`\nwritten to ${values.json}`);
    }
  } finally {
    device.close();
  }
}

async function runCase(
  device: Device,
  one: BenchmarkCase,
  peaks: Peaks,
  options: TimingOptions,
): Promise<KernelResult> {
  const memory = new BenchmarkMemory(device);
  const program = new Program(device, one.name);
  try {
    const check = one.record(memory, program);
    await program.prepare();
    program.run();
    await check();
    const { medianMs, spread } = await time(device, program, options);
    const gflops = program.cost.flops / medianMs / 1e6;
    const gbps = program.cost.bytes / medianMs / 1e6;
    return {
      name: one.name,
      shape: one.shape,
      median_ms: medianMs,
      spread,
      gflops,
      gbps,
      share_of_peak: Math.max(gflops / peaks.gflops, gbps / peaks.gbps),
    };
  } finally {
    program.dispose();
    memory.free();
  }
}

function row(name: string, shape: string, ...numbers: string[]): string {
  return `${name.padEnd(38)} ${shape.padEnd(28)}${numbers.map((text) => text.padStart(10)).join("")}`.trimEnd();
}

function percent(share: number): string {
  return `${(100 * share).toFixed(0)}%`;
}

/** The commit that was measured, marked where files differ from it. */
function commit(): string {
  const git = (...args: string[]) => execFileSync("git", args, { cwd: import.meta.dirname, encoding: "utf8" }).trim();
  try {
    return git("rev-parse", "--short", "HEAD") + (git("status", "--porcelain") === "" ? "" : " with changes");
  } catch {
    return "unknown";
  }
}

try {
  await main();
} catch (error) {
  if (!(error instanceof KtoError)) throw error;
  process.stderr.write(`error: ${error.message}\n`);
  process.exitCode = error.exitCode;
}
