/**
 * `kto doctor`: reports the machine, its adapters, which of them is chosen and why, and what would be faster. It opens
 * no device and changes nothing.
 */
import { availableParallelism, totalmem } from "node:os";
import { matrixConfigs } from "../../engine/gpu/matrices.ts";
import { platform } from "../../engine/platform/index.ts";
import { installedVersions } from "../../engine/platform/node-versions.ts";
import type { AdapterKind, FoundAdapter, Platform } from "../../engine/platform/platform.ts";
import { AdapterError, KtoError } from "../../errors.ts";
import { type DoctorOptions, doctorDescription } from "../descriptions/doctor.ts";
import { command } from "../options/command.ts";
import type { Output } from "../terminal/output.ts";

export default command(doctorDescription, (options, output) => doctor(platform, options, output));

/** The limits that decide what can run and how fast. */
const shownLimits = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "minStorageBufferOffsetAlignment",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupsPerDimension",
] as const;

/** The features that kernels use where present; the JSON report lists all features of the adapter. */
const usedFeatures = ["shader-f16", "subgroups", "timestamp-query"];

export type DoctorReport = Awaited<ReturnType<typeof examine>>["report"];

/**
 * Prints the report.
 *
 * @throws AdapterError after printing, when there is no adapter or none that `options.adapter` names
 */
export async function doctor(platform: Platform, options: DoctorOptions, output: Output): Promise<void> {
  const selector = options.adapter ?? process.env.KTO_ADAPTER ?? "auto";
  const { report, failure } = await examine(platform, selector);
  if (options.json) output.jsonLine(report);
  else output.result(renderReport(report, selector));
  if (failure !== undefined) throw failure;
}

async function examine(platform: Platform, selector: string) {
  let found: FoundAdapter[] = [];
  let chosen: FoundAdapter | undefined;
  let failure: KtoError | undefined;
  try {
    found = await platform.listAdapters();
    chosen = await platform.requestAdapter(selector);
  } catch (error) {
    failure = error instanceof KtoError ? error : new AdapterError(String(error), { cause: error });
  }
  const chosenIndex = found.findIndex(
    (candidate) => candidate.kind === chosen?.kind && candidate.description === chosen.description,
  );
  const report = {
    node: process.version,
    os: `${process.platform} ${process.arch}`,
    cpus: availableParallelism(),
    memory_bytes: totalmem(),
    /** This package first; null for one that is not installed. */
    packages: installedVersions(),
    adapters: found.map((candidate, index) => reportAdapter(candidate, index, index === chosenIndex)),
    /** Why this adapter was chosen; null if none was. */
    reason: chosen === undefined ? null : reasonFor(chosen.kind, selector, found.length),
    /** What would be faster; null for a GPU. */
    faster: chosen === undefined ? null : (fasterThan(chosen.kind) ?? null),
    /** Why there is no adapter, with the remedy. */
    error: failure?.message ?? null,
  };
  return { report, failure };
}

function reportAdapter({ adapter, kind, description }: FoundAdapter, index: number, chosen: boolean) {
  const limits = Object.fromEntries(shownLimits.map((name) => [name, adapter.limits[name]]));
  const { subgroupMinSize, subgroupMaxSize } = adapter.info;
  const features = [...adapter.features].map(String).sort();
  /** Fewest and most threads of a subgroup; absent if the adapter does not tell. */
  const subgroups = subgroupMinSize > 0 ? { subgroup_sizes: [subgroupMinSize, subgroupMaxSize] as const } : {};
  const shapes = matrixConfigs(adapter.info).map(
    ({ componentType, resultComponentType, M, N, K }) =>
      `${componentType} x ${componentType} + ${resultComponentType}, ${M} x ${N} x ${K}`,
  );
  /** Shapes of subgroup matrices, as "f16 x f16 + f32, 16 x 16 x 16"; absent where there are none. */
  const matrices = shapes.length > 0 ? { subgroup_matrices: shapes } : {};
  return { index, kind, description, chosen, features, limits, ...subgroups, ...matrices };
}

function reasonFor(kind: AdapterKind, selector: string, count: number): string {
  if (selector !== "auto") return `adapter "${selector}" was asked for`;
  if (count === 1) return "it is the only one";
  if (kind === "hardware") return "a GPU comes first";
  return `no GPU was found, and of the software adapters ${kind === "software" ? "it" : kind} comes first`;
}

/** What would be faster than an adapter of this kind, as a sentence; undefined for a GPU. */
export function fasterThan(kind: AdapterKind, os: string = process.platform): string | undefined {
  if (kind === "hardware") return undefined;
  const gpu = "this is a software adapter: a GPU with its Vulkan, Metal or Direct3D 12 driver is far faster";
  if (kind === "lavapipe" || os !== "linux") return `${gpu}.`;
  return `${gpu}, and lavapipe several times as fast (Debian and Ubuntu, as root: scripts/install-lavapipe.sh).`;
}

/** The report for people. */
export function renderReport(report: DoctorReport, selector: string): string {
  const packages = Object.entries(report.packages).map(([name, version]) => `${name} ${version ?? "not installed"}`);
  const lines = [
    `Node ${report.node}, ${report.os}, ${report.cpus} processors, ${formatBytes(report.memory_bytes)} of memory`,
    packages.join(", "),
    "",
  ];
  if (report.adapters.length === 0) lines.push("No adapter found.");
  for (const adapter of report.adapters) {
    lines.push(
      `${adapter.chosen ? "*" : " "} ${adapter.index}  ${adapter.kind}: ${adapter.description}`,
      ...(adapter.chosen ? [`     chosen: ${report.reason}`] : []),
      `     features: ${usedFeatures.map((name) => `${adapter.features.includes(name) ? "" : "no "}${name}`).join(", ")}`,
      ...(adapter.subgroup_sizes ? [`     subgroups: ${rangeText(adapter.subgroup_sizes)} threads`] : []),
      ...(adapter.subgroup_matrices ?? []).map((shape) => `     subgroup matrices: ${shape}`),
      ...Object.entries(adapter.limits).map(([name, value]) => `     ${name}: ${formatLimit(name, value)}`),
    );
  }
  if (report.faster !== null) lines.push("", `Faster: ${report.faster}`);
  if (report.adapters.length > 1 && selector === "auto") {
    lines.push("", "Another adapter is chosen by --adapter with its number, its kind or a part of its name.");
  }
  return lines.join("\n");
}

function rangeText([low, high]: readonly [number, number]): string {
  return low === high ? String(low) : `${low} to ${high}`;
}

function formatLimit(name: string, value: number): string {
  return name.endsWith("Size") ? formatBytes(value) : String(value);
}

/** Binary units, as GPU limits are powers of two. */
function formatBytes(bytes: number): string {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  const power = bytes < 1 ? 0 : Math.min(Math.floor(Math.log2(bytes) / 10), units.length - 1);
  return `${Number((bytes / 1024 ** power).toPrecision(3))} ${units[power]}`;
}
