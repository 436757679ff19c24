/** A report as one page of plain text. What it leaves out stands in the JSON, which it says. */
import { type Peaks, peaksText } from "../measure/peaks.ts";
import { seconds } from "./budget.ts";
import { exitCodeOf, type Finding, type Json, type Report, resultsOf } from "./finding.ts";

type Figures = Readonly<Record<string, Json>>;

/** Lines of a table that may grow, and of the lists of what was left out and what failed. */
const MOST_BENCHMARKS = 24;
const MOST_LISTED = 8;
const LONGEST_LINE = 150;

/**
 * The page: at most 80 lines.
 *
 * @param send where the JSON goes, as the last lines
 */
export function renderPage(report: Report, send: { readonly file: string; readonly issues: string | null }): string {
  const lines = [
    ...heading(report),
    ...adapterLines(report),
    "",
    ...correctness(report),
    "",
    ...training(report),
    ...generation(report),
    "",
    ...benchmarks(report),
    ...tuning(report),
    ...listed(report, "left out", "Left out", (found) => (found.kind === "left out" ? found.reason : "")),
    ...listed(report, "failed", "FAILED", (found) => (found.kind === "failed" ? found.message : "")),
    "",
    ...closing(report, send),
  ];
  // A part that found nothing leaves no gap.
  const shown = lines.filter((line, index) => line !== "" || lines[index - 1] !== "");
  return `${shown.map((line) => (line.includes(send.file) ? line : cut(line, LONGEST_LINE).trimEnd())).join("\n")}\n`;
}

function heading(report: Report): string[] {
  const { machine, versions, commit } = report;
  const dawn = versions.webgpu ?? "unknown";
  return [
    `kto-webgpu on ${report.adapter ?? "no adapter"}${report.quick ? " (quick)" : ""}`,
    ...(report.software
      ? ["SOFTWARE ADAPTER: a processor does a GPU's work here. These figures are not a GPU's."]
      : []),
    `${report.date}, commit ${commit ?? "unknown"}, kto-webgpu ${versions["kto-webgpu"] ?? "unknown"}, Dawn (npm webgpu) ${dawn}`,
    `Node ${text(machine.node)}, ${text(machine.os)}, ${text(machine.processor)} (${text(machine.cpus)}), ${gibibytes(machine.memory_bytes)} of memory`,
  ];
}

function adapterLines(report: Report): string[] {
  const found = resultsOf(report, "adapter");
  const adapter = found.get("adapter");
  const peaks = found.get("peaks");
  const lines: string[] = [];
  if (adapter) {
    const limits = (adapter.limits ?? {}) as Figures;
    const used = ["subgroups", "subgroup-size-control", "shader-f16", "timestamp-query", "subgroup-matrix"];
    const features = Array.isArray(adapter.features) ? adapter.features.map(String) : [];
    const has = used.map((name) => (features.some((feature) => feature.endsWith(name)) ? name : `no ${name}`));
    lines.push(
      `Driver      ${[adapter.vendor, adapter.architecture, adapter.device, adapter.driver].filter((part) => part !== "").join(", ")}`,
      `Features    ${has.join(", ")}`,
      `Subgroups   ${[adapter.subgroup_sizes].flat().join(" to ")} lanes; kernels use ${text(adapter.subgroup_size_used)}`,
      `Limits      buffer ${gibibytes(limits.maxBufferSize)}, binding ${gibibytes(limits.maxStorageBufferBindingSize)}, workgroup memory ${number(limits.maxComputeWorkgroupStorageSize) / 1024} KiB`,
    );
  }
  if (peaks) {
    lines.push(`Peaks       ${peaksText(peaks as unknown as Peaks, round)}`);
  }
  return lines;
}

function correctness(report: Report): string[] {
  const files = [...resultsOf(report, "kernel-tests").values()];
  const sum = (key: string) => files.reduce((total, figures) => total + number(figures[key]), 0);
  const gradients = [...resultsOf(report, "gradients")];
  const lines: string[] = [];
  if (files.length > 0) {
    const skipped = sum("skipped") > 0 ? `, ${sum("skipped")} skipped` : "";
    lines.push(
      `Kernel tests  ${sum("passed")} passed, ${sum("failed")} failed${skipped}, in ${files.length} files, ${seconds(sum("seconds"))}`,
    );
  }
  if (gradients.length > 0) {
    const worst = gradients.map(([name, { max_relative_error }]) => `${name} ${exponential(max_relative_error)}`);
    lines.push(
      `Gradients     ${gradients.filter(([, { passed }]) => passed === true).length} of ${gradients.length} models agree with float64; largest relative errors: ${worst.join(", ")}`,
    );
  }
  return lines;
}

function training(report: Report): string[] {
  const heads = ["Training (KTO updates)", "ms an update", "of its peak"] as const;
  return speeds(report, "training", heads, (row) => [round(row.median_ms), percent(row.share_of_peak)]);
}

function generation(report: Report): string[] {
  return speeds(report, "generation", ["Generation", "", "of the copy"], (row) => ["", percent(row.share_of_copy)]);
}

/** Tokens a second, two columns more and memory. */
function speeds(
  report: Report,
  part: string,
  [title, ...heads]: readonly [string, string, string],
  cells: (row: Figures) => readonly [string, string],
): string[] {
  const results = [...resultsOf(report, part)];
  if (results.length === 0) return [];
  return [
    `${title.padEnd(48)}${columns("tokens/s", ...heads, "peak memory")}`,
    ...results.map(
      ([name, row]) =>
        `  ${name.padEnd(46)}${columns(round(row.tokens_per_second), ...cells(row), mebibytes(row.peak_bytes))}`,
    ),
  ];
}

function benchmarks(report: Report): string[] {
  const results = [...resultsOf(report, "benchmarks")];
  if (results.length === 0) return [];
  const more = results.length - MOST_BENCHMARKS;
  return [
    `${"Benchmarks".padEnd(70)}${columns("ms", "GFLOP/s", "of peak")}   other engines, times ours`,
    ...results.slice(0, MOST_BENCHMARKS).map(([, row]) => {
      const name = `  ${text(row.name)}, ${text(row.shape)}`;
      return `${cut(name, 69).padEnd(70)}${columns(number(row.median_ms).toFixed(3), round(row.gflops), percent(row.share_of_peak))}   ${peers(row)}`;
    }),
    ...(more > 0 ? [`  ... and ${more} more in the JSON`] : []),
  ];
}

function peers(row: Figures): string {
  return Object.entries((row.peers ?? {}) as Record<string, Figures>)
    .map(([name, theirs]) =>
      theirs.error === undefined
        ? `${name} ${(number(theirs.median_ms) / number(row.median_ms)).toFixed(1)}`
        : `${name} not timed`,
    )
    .join(", ");
}

function tuning(report: Report): string[] {
  const variants = new Map<string, number>();
  for (const variant of Object.values(report.tuning)) variants.set(variant, (variants.get(variant) ?? 0) + 1);
  if (variants.size === 0) return [];
  const counts = [...variants].sort(([, a], [, b]) => b - a).map(([variant, count]) => `${variant} ${count} times`);
  return [`Tuner       ${Object.keys(report.tuning).length} choices: ${counts.join(", ")}`];
}

function listed(report: Report, kind: Finding["kind"], title: string, why: (found: Finding) => string): string[] {
  const all = report.parts.flatMap((part) =>
    part.findings.filter((found) => found.kind === kind).map((found) => `${part.title}: ${found.name}: ${why(found)}`),
  );
  if (all.length === 0) return [];
  const more = all.length - MOST_LISTED;
  return [
    "",
    `${title} (${all.length})`,
    ...all.slice(0, MOST_LISTED).map((line) => `  ${line.replaceAll("\n", " ")}`),
    ...(more > 0 ? [`  ... and ${more} more in the JSON`] : []),
  ];
}

function closing(
  report: Report,
  { file, issues }: { readonly file: string; readonly issues: string | null },
): string[] {
  const took = report.parts.reduce((sum, part) => sum + part.seconds, 0);
  const verdicts = { 0: "everything that ran was right", 5: "no adapter was found", 8: "numbers came out WRONG" };
  const verdict = new Map(Object.entries(verdicts)).get(String(exitCodeOf(report)));
  const where = issues === null ? "attach it to an issue of kto-webgpu" : `attach it to an issue at ${issues}`;
  return [
    `The report took ${seconds(took)}: ${verdict ?? "a part did not run to its end"}. Nothing has been sent to anybody.`,
    `Please send ${file}, by which kernels are tuned: ${where}.`,
  ];
}

/** Right-aligned cells. */
function columns(...cells: string[]): string {
  return cells.map((cell) => cell.padStart(13)).join("");
}

function number(value: Json | undefined): number {
  return typeof value === "number" ? value : Number.NaN;
}

function text(value: Json | undefined): string {
  return value === undefined || value === null ? "unknown" : String(value);
}

/** Three figures or all before the point. */
function round(value: Json | undefined): string {
  const size = number(value);
  return size >= 100 ? Math.round(size).toLocaleString("en-US") : String(Number(size.toPrecision(3)));
}

function percent(value: Json | undefined): string {
  const share = 100 * number(value);
  return `${share.toFixed(share < 10 ? 1 : 0)}%`;
}

function exponential(value: Json | undefined): string {
  return typeof value === "number" ? value.toExponential(1) : "not compared";
}

function gibibytes(value: Json | undefined): string {
  return `${Number((number(value) / 2 ** 30).toPrecision(3))} GiB`;
}

function mebibytes(value: Json | undefined): string {
  return `${Math.round(number(value) / 2 ** 20).toLocaleString("en-US")} MiB`;
}

function cut(line: string, length: number): string {
  return line.length <= length ? line : `${line.slice(0, length - 3)}...`;
}
