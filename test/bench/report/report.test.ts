/**
 * How a report is put together: parts in processes of their own, what each has found, one that dies, the files and the
 * exit code. The parts are a script's here; what the real ones measure, `npm run gpu-report -- --quick` shows in a
 * minute.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import type { Report } from "../../../bench/report/finding.ts";
import type { Host } from "../../../bench/report/host.ts";
import { parts } from "../../../bench/report/parts.ts";
import { reportCommand } from "../../../bench/report/report.ts";

/** Tells its name and the time that it was given; the adapter's part tells peaks, and training dies of a signal. */
const SCRIPT = `
import { mkdirSync, writeFileSync } from "node:fs";
const [, name, , text] = process.argv.slice(2);
const context = JSON.parse(text);
const find = (finding) => console.log("finding " + JSON.stringify(finding));
console.log("a driver says hello");
const result = (name, figures) => find({ kind: "result", name, figures });
if (name === "adapter") {
  result("adapter", { name: "A GPU", software: false });
  result("peaks", { gflops: 1000, gbps: 100 });
} else result(name, { peaks: context.peaks ?? null, quick: context.quick, adapter: process.env.KTO_ADAPTER ?? null });
if (name === "benchmarks") {
  mkdirSync(process.env.KTO_CACHE + "/tuning", { recursive: true });
  writeFileSync(process.env.KTO_CACHE + "/tuning/a.json", JSON.stringify({ adapter: "A GPU", choices: { matmulNN: "tile" } }));
}
if (name === "training") {
  console.error("first line");
  console.error("the driver fell over");
  process.kill(process.pid, "SIGKILL");
  setInterval(() => undefined, 1000);
}
`;

const base = {
  ...{ command: "report", commit: "abc", versions: {}, issues: null, ownOptions: [] },
  ...{ kto: [], kernelTests: [], kernelTestCommand: () => [] },
};

let folder = "";
let environment: NodeJS.ProcessEnv = {};
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "kto-report-test-"));
  environment = { ...process.env };
});
afterAll(() => {
  rmSync(folder, { recursive: true });
  for (const name of ["KTO_CACHE", "KTO_ADAPTER"]) {
    const before = environment[name];
    if (before === undefined) delete process.env[name];
    else process.env[name] = before;
  }
});

test("a report holds what every part has found, also the one that dies, and says so", async () => {
  const script = join(folder, "part.mjs");
  writeFileSync(script, SCRIPT);
  const host: Host = {
    ...base,
    ...{ root: folder, out: join(folder, "out"), self: [script] },
  };
  const log = vi.spyOn(console, "log").mockImplementation(() => undefined);
  const code = await reportCommand(["--quick", "--adapter", "some GPU"], host).finally(() => log.mockRestore());
  expect(code).toBe(1);
  const [json = "", page = "", ...rest] = readdirSync(host.out).sort();
  expect(rest).toEqual([]);
  expect([json, page]).toEqual([expect.stringMatching(/^\d{4}-\d\d-\d\d-a-gpu\.json$/), json.replace(/json$/, "txt")]);
  const report = JSON.parse(readFileSync(join(host.out, json), "utf8")) as Report;
  expect(report).toMatchObject({ adapter: "A GPU", software: false, commit: "abc", quick: true, minutes: 1 });
  expect(report.tuning).toEqual({ matmulNN: "tile" });
  expect(report.parts.map(({ name }) => name)).toEqual(parts.map(({ name }) => name));
  const found = (name: string) => report.parts.find((part) => part.name === name)?.findings;
  const figures = { quick: true, adapter: "some GPU" };
  expect(found("gradients")).toEqual([
    { kind: "result", name: "gradients", figures: { peaks: { gflops: 1000, gbps: 100 }, ...figures } },
  ]);
  expect(found("doctor")).toMatchObject([{ figures: { peaks: null, ...figures } }]);
  expect(found("training")).toMatchObject([
    { kind: "result", name: "training" },
    { kind: "failed", message: "its process ended with SIGKILL: the driver fell over", wrongNumbers: false },
  ]);
  const text = readFileSync(join(host.out, page), "utf8");
  expect(text).toContain("FAILED (1)\n  Training: Training: its process ended with SIGKILL: the driver fell over");
  expect(text).toContain(`Please send ${json}, `);
});

test("without an adapter the report ends, with what was found of it", async () => {
  const script = join(folder, "no-adapter.mjs");
  writeFileSync(script, 'console.error("error: No WebGPU adapter was found"); process.exitCode = 5;');
  const host: Host = { ...base, root: folder, out: join(folder, "none"), self: [script] };
  const log = vi.spyOn(console, "log").mockImplementation(() => undefined);
  expect(await reportCommand([], host).finally(() => log.mockRestore())).toBe(5);
  const [json = "", page = ""] = readdirSync(host.out).sort();
  expect(json).toMatch(/-no-adapter\.json$/);
  const report = JSON.parse(readFileSync(join(host.out, json), "utf8")) as Report;
  expect(report.parts.map(({ name }) => name)).toEqual(["doctor", "adapter"]);
  expect(readFileSync(join(host.out, page), "utf8")).toContain("process ended with code 5: error: No WebGPU adapter");
});

test("words that it does not know are refused with the usage", async () => {
  const host: Host = { ...base, root: folder, command: "npm run gpu-report --", out: folder, self: [] };
  const error = vi.spyOn(console, "error").mockImplementation(() => undefined);
  try {
    expect(await reportCommand(["--minutes", "soon"], host)).toBe(2);
    expect(await reportCommand(["--fast"], host)).toBe(2);
    expect(error.mock.calls.map(([line]) => String(line))).toEqual([
      expect.stringMatching(/--minutes is "soon"; it must be a number above 0\.\nUsage: npm run gpu-report --/),
      expect.stringMatching(/'--fast'/),
    ]);
  } finally {
    error.mockRestore();
  }
});
