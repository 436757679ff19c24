/** The report's page: what it shows, what it never leaves unsaid, and that it stays a page. */
import { describe, expect, it } from "vitest";
import { testFindings } from "../../../bench/report/checks.ts";
import { exitCodeOf, type Finding, type Report } from "../../../bench/report/finding.ts";
import { renderPage } from "../../../bench/report/page.ts";
import { fileName } from "../../../bench/report/report.ts";

const send = { file: "x.json", issues: null };

function reportWith(findings: Readonly<Record<string, readonly Finding[]>>, more: Partial<Report> = {}): Report {
  return {
    ...{ version: 1, date: "2026-11-30T10:00:00.000Z", quick: false, minutes: 10, software: false },
    ...{ adapter: "nvidia ampere", commit: "abc1234", tuning: {} },
    machine: { node: "v22.0.0", os: "linux x64", processor: "A CPU", cpus: 8, memory_bytes: 2 ** 34 },
    versions: { "kto-webgpu": "0.1.0", webgpu: "0.6.2" },
    parts: Object.entries(findings).map(([name, found]) => ({
      ...{ name, title: name[0]?.toUpperCase() + name.slice(1), seconds: 10, budget_seconds: 60, findings: found },
    })),
    ...more,
  };
}

const trained: Finding = {
  kind: "result",
  name: "SmolLM2-135M, 4 rows of 512 tokens",
  figures: { tokens_per_second: 12345.6, median_ms: 166.2, share_of_peak: 0.314, peak_bytes: 3 * 2 ** 30 },
};
const leftOut: Finding = {
  kind: "left out",
  name: "Qwen3-0.6B",
  reason: "it would take about 15 min on this adapter, and 60 s were left",
  estimatedSeconds: 900,
};
const wrong: Finding = { kind: "failed", name: "matmul: NN", message: "element 3 is 1", wrongNumbers: true };
const broken: Finding = { kind: "failed", name: "Training", message: "SIGSEGV", wrongNumbers: false };

describe("the page", () => {
  it("shows figures, what was left out with its estimate, and failures", () => {
    const page = renderPage(reportWith({ training: [trained, leftOut], "kernel-tests": [wrong] }), send);
    expect(page).toMatch(/SmolLM2-135M, 4 rows of 512 tokens +12,346 +166 +31% +3,072 MiB/);
    expect(page).toContain("Left out (1)\n  Training: Qwen3-0.6B: it would take about 15 min on this adapter");
    expect(page).toContain("FAILED (1)\n  Kernel-tests: matmul: NN: element 3 is 1");
    expect(page).toContain("numbers came out WRONG");
    expect(page).toContain("Please send x.json, by which kernels are tuned: attach it to an issue of kto-webgpu.");
    expect(page).not.toContain("SOFTWARE");
    expect(page).not.toContain("\n\n\n");
  });

  it("says of a software adapter that it is one, in the file's name too", () => {
    const report = reportWith({}, { software: true, adapter: "llvmpipe: Mesa 25.0 (LLVM 15)" });
    expect(renderPage(report, send)).toContain("SOFTWARE ADAPTER");
    expect(fileName(report)).toBe("2026-11-30-software-llvmpipe-mesa-25.0-llvm-15");
  });

  it("names the issue tracker where there is one", () => {
    const page = renderPage(reportWith({}), { ...send, issues: "https://example.org/issues" });
    expect(page).toContain("attach it to an issue at https://example.org/issues.");
  });

  it("has at most 80 lines, however much there is, and counts what it does not show", () => {
    const many = <T>(make: (index: number) => T) => Array.from({ length: 100 }, (_, index) => make(index));
    const benchmark = (index: number): Finding => ({
      kind: "result",
      name: `case ${index}`,
      figures: {
        ...{ name: `case ${index}`, shape: "1 x 1", median_ms: 2, gflops: 5, share_of_peak: 0.5 },
        peers: { "jax-js": { median_ms: 11, spread: 0 }, tfjs: { error: "no" } },
      },
    });
    const report = reportWith(
      {
        training: [...many(() => leftOut), ...many(() => broken), ...Array.from({ length: 6 }, () => trained)],
        generation: [trained, trained],
        benchmarks: many(benchmark),
      },
      { tuning: { "matmulNN 512": "subgroup16", "matmulNT 512": "subgroup16" } },
    );
    const lines = renderPage(report, send).split("\n");
    expect(lines.length).toBeLessThanOrEqual(80);
    expect(lines).toContain("Left out (100)");
    expect(lines.filter((line) => line === "  ... and 92 more in the JSON")).toHaveLength(2);
    expect(lines).toContain("  ... and 76 more in the JSON");
    expect(lines.find((line) => line.includes("case 0"))).toMatch(/2\.000 +5 +50% {3}jax-js 5\.5, tfjs not timed$/);
    expect(lines).toContain("Tuner       2 choices: subgroup16 2 times");
  });
});

describe("the exit code", () => {
  it("is 8 for wrong numbers, 1 for a part that broke off, 0 for what was left out", () => {
    expect(exitCodeOf(reportWith({ training: [leftOut] }))).toBe(0);
    expect(exitCodeOf(reportWith({ training: [broken] }))).toBe(1);
    expect(exitCodeOf(reportWith({ training: [broken, wrong] }))).toBe(8);
  });
});

describe("a file of kernel tests", () => {
  const test = (fullName: string, status: string, failureMessages: string[] = []) => ({
    ...{ fullName, status, failureMessages },
  });

  it("gives counts, and each failure's first line", () => {
    const assertionResults = [
      test("a", "passed"),
      test("b", "failed", ["AssertionError: b is 1\n  at x"]),
      test("c", "pending"),
      // What a test lacks, or a driver does, is no number.
      test("d", "failed", ["Error: ENOENT: no such file or directory\n  at x"]),
    ];
    const found = testFindings("norm", JSON.stringify({ testResults: [{ status: "failed", assertionResults }] }), 3);
    expect(found).toEqual([
      { kind: "result", name: "norm", figures: { passed: 1, failed: 2, skipped: 1, seconds: 3 } },
      { kind: "failed", name: "norm: b", message: "AssertionError: b is 1", wrongNumbers: true },
      {
        ...{ kind: "failed", name: "norm: d", message: "Error: ENOENT: no such file or directory" },
        wrongNumbers: false,
      },
    ]);
  });

  it("that cannot be loaded is a failure without a test", () => {
    const testResults = [{ status: "failed", message: "SyntaxError: x\n at y", assertionResults: [] }];
    expect(testFindings("norm", JSON.stringify({ testResults }), 1).at(-1)).toEqual({
      ...{ kind: "failed", name: "norm", message: "SyntaxError: x", wrongNumbers: false },
    });
  });
});
