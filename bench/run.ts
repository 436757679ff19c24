/**
 * Runs the benchmarks one after another: each kernel, checked and timed as a share of this adapter's peaks, generation,
 * then whole updates, and the same work by other engines where the caller can run them.
 */
import { writeSafetensors } from "../src/engine/files/safetensors.ts";
import type { Device } from "../src/engine/gpu/device.ts";
import { type KernelTime, Program } from "../src/engine/gpu/program.ts";
import { platform } from "../src/engine/platform/index.ts";
import { ConfigError } from "../src/errors.ts";
import { type GenerationCase, generationCases, timeGeneration } from "./generation.ts";
import { activationCases } from "./kernels/activation.ts";
import { adamwCases } from "./kernels/adamw.ts";
import { attentionCases } from "./kernels/attention.ts";
import { dropoutCases } from "./kernels/dropout.ts";
import { embeddingCases } from "./kernels/embedding.ts";
import { gatedDeltaCases } from "./kernels/gated-delta.ts";
import { headNormCases } from "./kernels/head-norm.ts";
import { ktoObjectiveCases } from "./kernels/kto-objective.ts";
import { logSoftmaxGatherCases } from "./kernels/log-softmax-gather.ts";
import { matmulCases } from "./kernels/matmul.ts";
import { mixCases } from "./kernels/mix.ts";
import { normCases } from "./kernels/norm.ts";
import { outputGateCases } from "./kernels/output-gate.ts";
import { reduceCases } from "./kernels/reduce.ts";
import { ropeCases } from "./kernels/rope.ts";
import { scaleCases } from "./kernels/scale.ts";
import { shortConvolutionCases } from "./kernels/short-convolution.ts";
import { type BenchmarkCase, BenchmarkMemory } from "./measure/case.ts";
import { deviceTime, time, timingOptions } from "./measure/measure.ts";
import type { Peaks } from "./measure/peaks.ts";
import type { PeerResult, PeerWork } from "./measure/peer-work.ts";
import { writeLargeRandomModel, writeRandomModel } from "./random-model.ts";
import { type StepCase, stepCases, stepTruth, timeStep } from "./step.ts";

const kernelCases: readonly BenchmarkCase[] = [
  ...matmulCases,
  ...logSoftmaxGatherCases,
  ...attentionCases,
  ...normCases,
  ...headNormCases,
  ...gatedDeltaCases,
  ...activationCases,
  ...ropeCases,
  ...scaleCases,
  ...shortConvolutionCases,
  ...embeddingCases,
  ...dropoutCases,
  ...ktoObjectiveCases,
  ...outputGateCases,
  ...reduceCases,
  ...adamwCases,
  ...mixCases,
];

/**
 * One line of the report. Times are milliseconds of wall clock, except `device_ms`, which the device's timestamps give.
 */
export interface BenchmarkResult {
  readonly name: string;
  readonly shape: string;
  readonly median_ms: number;
  /** Distance between the quartiles over the median. */
  readonly spread: number;
  /** null where the adapter has no timestamps. */
  readonly device_ms: number | null;
  readonly gflops: number;
  readonly gbps: number;
  /** The larger of the shares of two peaks: the copy, and f32 or, of products with operands in f16, matrices. */
  readonly share_of_peak: number;
  readonly peers: Readonly<Record<string, PeerResult>>;
  /** Only of generation, whose bytes are the weights, which each pass reads once. */
  readonly generation?: { readonly tokens_per_second: number; readonly share_of_copy: number };
  /** Only of whole updates. */
  readonly step?: {
    /** Compiling kernels included. */
    readonly first_ms: number;
    readonly tokens_per_second: number;
    readonly device_bytes: number;
    readonly host_pack_ms: number;
    readonly host_submit_ms: number;
    /** Share of an update's time in which the host packs, uploads, encodes and submits. */
    readonly host_share: number;
    /** Bandwidth of AdamW over the memory peak; null where kernels cannot be timed. */
    readonly adamw_share_of_copy: number | null;
    readonly kernels: readonly KernelTime[];
  };
}

export interface BenchmarkOptions {
  readonly quick: boolean;
  /** An existing folder for models, which the caller removes. */
  readonly scratch: string;
  readonly runPeers: (work: PeerWork) => Promise<Record<string, PeerResult>>;
}

/** The benchmarks that options choose. */
export interface ChosenBenchmarks {
  readonly kernels: readonly BenchmarkCase[];
  readonly generations: readonly GenerationCase[];
  readonly steps: readonly StepCase[];
}

/**
 * @param filter part of a name, in any case; default all
 * @throws ConfigError where the filter leaves nothing
 */
export function chooseBenchmarks(quick: boolean, filter = ""): ChosenBenchmarks {
  const chosen = <T extends { name: string; quick: boolean }>(cases: readonly T[]) =>
    cases.filter((one) => (one.quick || !quick) && one.name.toLowerCase().includes(filter.toLowerCase()));
  const kernels = chosen(kernelCases);
  const generations = chosen(generationCases);
  const steps = chosen(stepCases);
  if (kernels.length + generations.length + steps.length === 0) {
    const there = [...kernelCases, ...generationCases, ...stepCases].filter((one) => one.quick || !quick);
    const names = new Set(there.map(({ name }) => name));
    throw new ConfigError(
      `no benchmark${quick ? " of the quick ones" : ""} has "${filter}" in its name: there are ${[...names].join(", ")}.`,
    );
  }
  return { kernels, generations, steps };
}

/**
 * Those of the benchmarks that this device can run, or has the speed for.
 *
 * @throws ConfigError where there is none
 */
export function fittingBenchmarks(device: Device, { kernels, generations, steps }: ChosenBenchmarks): ChosenBenchmarks {
  const fitting = {
    kernels: kernels.filter(({ hardwareOnly }) => !hardwareOnly || !device.isSoftware),
    generations,
    steps: steps.filter(({ options }) => !options?.fp16 || device.gpu.features.has("shader-f16")),
  };
  if (fitting.kernels.length + generations.length + fitting.steps.length > 0) return fitting;
  const left = [...kernels, ...steps].map(({ name }) => name).join(", ");
  throw new ConfigError(`"${device.description}" cannot be measured by ${left}: a GPU, or one with shader-f16, can.`);
}

/** Runs what was chosen among those that fit the device. */
export async function* runBenchmarks(
  device: Device,
  peaks: Peaks,
  { kernels, generations, steps }: ChosenBenchmarks,
  options: BenchmarkOptions,
): AsyncGenerator<BenchmarkResult> {
  for (const one of kernels) yield await runKernel(device, one, peaks, options);
  for (const one of generations) yield await runGeneration(device, one, peaks, options);
  for (const one of steps) yield await runStep(device, one, peaks, options);
}

async function runKernel(
  device: Device,
  one: BenchmarkCase,
  peaks: Peaks,
  { quick, runPeers }: BenchmarkOptions,
): Promise<BenchmarkResult> {
  const memory = new BenchmarkMemory(device);
  const program = new Program(device, one.name, one.products);
  let timing: { medianMs: number; spread: number };
  let deviceMs: number | null;
  try {
    const check = one.record(memory, program);
    await program.prepare();
    program.run();
    await check();
    timing = await time(device, program, timingOptions(quick));
    deviceMs = await deviceTime(device, program);
  } finally {
    program.dispose();
    memory.free();
  }
  return {
    name: one.name,
    shape: one.shape,
    ...rates(program.cost, timing, peaksOf(one, peaks)),
    device_ms: deviceMs,
    peers: one.peerWork ? await runPeers(one.peerWork) : {},
  };
}

async function runGeneration(
  device: Device,
  one: GenerationCase,
  peaks: Peaks,
  { quick, scratch }: BenchmarkOptions,
): Promise<BenchmarkResult> {
  const folder = platform.joinPath(scratch, `model-${one.name.replace(/\W+/g, "-")}`);
  await writeLargeRandomModel(folder, one.config, 1);
  const result = await timeGeneration(device, folder, one, quick ? 8 : 24);
  await platform.removeFolder(folder);
  return {
    name: one.name,
    shape: one.shape,
    ...rates(result, result, peaks),
    device_ms: null,
    peers: {},
    generation: {
      tokens_per_second: result.tokensPerSecond,
      share_of_copy: result.bytes / result.medianMs / 1e6 / peaks.gbps,
    },
  };
}

async function runStep(
  device: Device,
  one: StepCase,
  peaks: Peaks,
  { quick, scratch, runPeers }: BenchmarkOptions,
): Promise<BenchmarkResult> {
  const { rows, prompt, completion } = one.batch;
  const folder = platform.joinPath(scratch, `model-${one.name.replace(/\W+/g, "-")}`);
  await writeRandomModel(folder, one.config, 1);
  const result = await timeStep(device, folder, one, quick ? 8 : 16);
  const adamw = result.kernels.find(({ name }) => name === "adamw");
  let peers: Record<string, PeerResult> = {};
  if (one.peers) {
    const truth = await stepTruth(device, folder, one.batch);
    const gradients = platform.joinPath(folder, "gradients.safetensors");
    await writeSafetensors(gradients, truth.gradients);
    peers = await runPeers({ kind: "step", folder, losses: truth.losses, gradients, batch: one.batch });
  }
  await platform.removeFolder(folder);
  return {
    name: one.name,
    shape: `${rows} rows of ${prompt} + ${completion} tokens`,
    ...rates(result, result, peaks),
    device_ms: result.kernels.length > 0 ? result.kernels.reduce((sum, { ms }) => sum + ms, 0) : null,
    peers,
    step: {
      first_ms: result.firstMs,
      tokens_per_second: result.tokensPerSecond,
      device_bytes: result.deviceBytes,
      host_pack_ms: result.host.packMs,
      host_submit_ms: result.host.submitMs,
      host_share: (result.host.packMs + result.host.submitMs) / result.medianMs,
      adamw_share_of_copy: adamw ? adamw.bytes / adamw.ms / 1e6 / peaks.gbps : null,
      kernels: result.kernels,
    },
  };
}

/** What a case is measured by: matrices' peak where it may multiply by them. */
function peaksOf({ products = "f32" }: BenchmarkCase, peaks: Peaks): Peaks {
  return products === "f32" ? peaks : { ...peaks, gflops: peaks.matrixGflops ?? peaks.gflops };
}

function rates(
  { flops, bytes }: { readonly flops: number; readonly bytes: number },
  { medianMs, spread }: { readonly medianMs: number; readonly spread: number },
  peaks: Peaks,
) {
  const gflops = flops / medianMs / 1e6;
  const gbps = bytes / medianMs / 1e6;
  const share = Math.max(gflops / peaks.gflops, gbps / peaks.gbps);
  return { median_ms: medianMs, spread, gflops, gbps, share_of_peak: share };
}
