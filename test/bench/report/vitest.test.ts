/** The bundle's stand-in for vitest runs what vitest would run and counts it alike. The oracle is vitest itself. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "esbuild";
import { afterAll, beforeAll, expect, test } from "vitest";
import { testFindings } from "../../../bench/report/checks.ts";

const root = join(import.meta.dirname, "..", "..", "..");
const bundle = join(root, "bench", "report", "bundle");

/** All forms of tests that test/kernels uses, with passes, failures, skips and hooks. */
const tests = `
import fc from "fast-check";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, test } from "vitest";
const ran = [];
beforeAll(() => { ran.push("all"); });
afterAll(() => { ran.length = 0; });
describe.each([{ name: "one", value: 1 }, { name: "two", value: 2 }])("suite $name", ({ value }) => {
  beforeEach(() => { ran.push("each"); });
  afterEach(() => { ran.push("after"); });
  it("is one", () => expect(value).toBe(1));
  it.each([[1, 2], [3, 4]])("adds %d and %d", async (a, b) => { expect([a + b]).toEqual([expect.closeTo(a + b)]); });
  it.each(["x", "y"])("letter %s", (letter) => expect(letter, "the letter").toMatch(/x/));
  it.skipIf(value === 2)("skips once", () => expect(ran.at(-1)).toBe("each"));
});
describe.runIf(false)("not here", () => { it("never", () => { throw new Error("ran"); }); });
describe.runIf(true)("here", () => { it("holds", async () => { await fc.assert(fc.asyncProperty(fc.nat(), async (n) => { expect(n).toBeGreaterThanOrEqual(0); })); }); });
describe.runIf(false).each([1, 2])("none of %d", (value) => { it("never", () => { throw new Error(String(value)); }); });
it.runIf(true).each([1, 2])("each of %d", (value) => expect(value).toBeLessThan(3));
test("throws", () => { expect(() => { throw new RangeError("no"); }).toThrow("no"); });
test("rejects", async () => { await Promise.reject(new Error("this one fails")); });
`;

let folder = "";
beforeAll(() => {
  mkdirSync(join(root, ".cache"), { recursive: true });
  folder = mkdtempSync(join(root, ".cache", "stand-in-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

test("it passes, fails and skips the tests that vitest does, under the same names", async () => {
  mkdirSync(join(folder, "test"));
  const file = join(folder, "test", "all.test.js");
  writeFileSync(file, tests);
  writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
  writeFileSync(join(folder, "vitest.config.js"), 'export default { test: { include: ["test/*.test.js"] } };');
  await build({
    entryPoints: { "kernel-tests": join(bundle, "kernel-tests.ts"), "tests/all": file },
    ...{ outdir: folder, bundle: true, splitting: true, format: "esm", platform: "node", logLevel: "error" },
    alias: { vitest: join(bundle, "vitest.ts") },
  });
  const [ours, theirs] = [join(folder, "ours.json"), join(folder, "theirs.json")];
  execFileSync(process.execPath, [join(folder, "kernel-tests.js"), "all", ours], { cwd: tmpdir() });
  const vitest = join(root, "node_modules", "vitest", "vitest.mjs");
  const words = ["run", "--root", folder, "--reporter=json", `--outputFile.json=${theirs}`];
  try {
    execFileSync(process.execPath, [vitest, ...words], { stdio: "ignore" });
  } catch {
    // It exits with 1, as tests fail on purpose.
  }
  const results = (path: string) =>
    (
      JSON.parse(readFileSync(path, "utf8")).testResults as {
        assertionResults: { fullName: string; status: string }[];
      }[]
    )
      .flatMap(({ assertionResults }) => assertionResults)
      .map(({ fullName, status }) => `${status === "skipped" ? "pending" : status} ${fullName.trim()}`);
  expect(results(ours)).toEqual(results(theirs));
  expect(results(ours).length).toBe(20);
  expect(testFindings("all", readFileSync(ours, "utf8"), 1).map(({ kind }) => kind)).toEqual([
    "result",
    ...Array(4).fill("failed"),
  ]);
});
