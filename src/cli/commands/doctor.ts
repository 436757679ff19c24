/**
 * `kto doctor`: reports the machine, its adapters, which of them is chosen and why, and what would be faster; for a
 * model, also what the chosen adapter could train with it. It changes nothing, and opens a device for a model only.
 */
import { availableParallelism, totalmem } from "node:os";
import { matrixConfigs } from "../../engine/gpu/matrices.ts";
import { resolveModelHeaders } from "../../engine/hub/resolve.ts";
import { platform } from "../../engine/platform/index.ts";
import { mpiFacts } from "../../engine/platform/node-mpi-library.ts";
import { installedVersions } from "../../engine/platform/node-versions.ts";
import type { AdapterKind, FoundAdapter, Platform } from "../../engine/platform/platform.ts";
import { AdapterError, KtoError } from "../../errors.ts";
import { type DoctorOptions, doctorDescription } from "../descriptions/doctor.ts";
import { command } from "../options/command.ts";
import {
  MICROBATCHES,
  type PossibleRuns,
  possibleRuns,
  ROW_TOKENS,
  rowTokensOf,
  TRAININGS,
  type Training,
} from "../session/possible-runs.ts";
import { withDevice } from "../session/rows.ts";
import { columns } from "../terminal/columns.ts";
import { showingDownloads } from "../terminal/downloads.ts";
import type { Output } from "../terminal/output.ts";

export default command(doctorDescription, (options, output) => doctor(platform, options, output, runsOf));

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

/** What an adapter could train with the model that the options name. */
async function runsOf(options: DoctorOptions, name: string, output: Output): Promise<PossibleRuns> {
  const revision = options.model_revision;
  const headers = await showingDownloads(output, (hub) => resolveModelHeaders(name, { ...hub, revision }));
  return await withDevice(options, output, (device) => possibleRuns(device, name, headers, output));
}

/**
 * Prints the report.
 *
 * @param train finds out what could be trained with a model
 * @throws AdapterError after printing, when there is no adapter or none that `options.adapter` names; what is wrong
 * with the model
 */
export async function doctor(
  platform: Platform,
  options: DoctorOptions,
  output: Output,
  train: typeof runsOf = runsOf,
): Promise<void> {
  const selector = options.adapter ?? process.env.KTO_ADAPTER ?? "auto";
  const { report, failure } = await examine(platform, selector);
  const name = options.model_name_or_path;
  const isPlanned = name !== undefined && failure === undefined;
  if (!options.json) output.result(renderReport(report, selector));
  let model: PossibleRuns | undefined;
  try {
    if (isPlanned) model = await train(options, name, output);
  } finally {
    // The machine's part stands on its own, whatever is wrong with the model.
    if (options.json) output.jsonLine({ ...report, ...(model ? { model } : {}) });
  }
  if (model !== undefined && !options.json) output.result(renderRuns(model, report));
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
    /** What runs of several ranks need (docs/scale.md). */
    mpi: await mpiFacts(),
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

/** What could be trained, for people: a line for each length of rows, a column for each microbatch. */
export function renderRuns(model: PossibleRuns, { adapters }: Pick<DoctorReport, "adapters">): string {
  const { model_name_or_path: name, parameters, context_length: context, runs } = model;
  const isGpu = adapters.some(({ chosen, kind }) => chosen && kind === "hardware");
  const head = ["", "rows of", ...MICROBATCHES.map((rows) => `microbatch of ${rows}`)];
  const rows = (Object.keys(TRAININGS) as Training[]).flatMap((training) =>
    rowTokensOf(context).map((tokens) => {
      const own = runs.filter((run) => run.training === training && run.row_tokens === tokens);
      const cells = own.map((run) => {
        const size = run.device_bytes === null ? "" : `${formatBytes(run.device_bytes)}, `;
        return `${size}${run.fits ? "fits" : "does not fit"}`;
      });
      return [training, `${tokens} tokens`, ...cells];
    }),
  );
  const lines = columns([head, ...rows]);
  const reasons = [...new Set(runs.map(({ reason }) => reason).filter((reason) => reason !== null))];
  return [
    "",
    `What it could train with ${name} (${parameters} parameters), in device memory as kto train --dry_run plans it:`,
    ...lines.map((line) => `  ${line}`),
    ...reasons.map((reason) => `  does not fit: ${reason}`),
    ...(context < Math.max(...ROW_TOKENS) ? [`  Longer rows than ${context} tokens the model cannot read.`] : []),
    ...(isGpu
      ? ["  WebGPU does not tell how much memory a GPU has: what fits here has no buffer that is too large for it."]
      : []),
    "  Half of each row is the answer; updates have 8 rows; options are those of kto train otherwise.",
  ].join("\n");
}

/** The report for people. */
export function renderReport(report: DoctorReport, selector: string): string {
  const packages = Object.entries(report.packages).map(([name, version]) => `${name} ${version ?? "not installed"}`);
  const lines = [
    `Node ${report.node}, ${report.os}, ${report.cpus} processors, ${formatBytes(report.memory_bytes)} of memory`,
    packages.join(", "),
    mpiLine(report.mpi),
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

/** Whether several ranks could share a run, on one line. */
function mpiLine({ library, mpirun, missing }: DoctorReport["mpi"]): string {
  return missing === null ? `MPI: ${library}, ${mpirun}` : `MPI, for runs of several GPUs: no. ${missing}`;
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
