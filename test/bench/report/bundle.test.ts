/**
 * The bundle: one file that unpacks itself, starts with no Node in the PATH and leaves nothing behind. That it runs
 * where there is nothing but libc and a driver, and how its tests and figures come out, scripts/check-bundle.sh shows.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { packBundle } from "../../../bench/report/bundle/pack.ts";
import { checkout } from "../../../bench/report/checkout.ts";

/** What it may use of a system, beside the shell. */
const TOOLS = ["cat", "chmod", "gzip", "head", "mkdir", "mktemp", "rm", "tail", "uname"];

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "kto-bundle-test-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

test("its kernel tests compute on the device and read no files, which a bundle does not have", () => {
  const sources = checkout.kernelTests.map((name) => readFileSync(`test/kernels/${name}.test.ts`, "utf8"));
  expect(sources.length).toBeGreaterThan(20);
  expect(sources.filter((text) => text.includes("node:fs"))).toEqual([]);
});

describe.runIf(process.platform === "linux" && process.arch === "x64")("the bundle", () => {
  test("is under 60 MiB, runs with small tools alone, hands on options and exit codes, and cleans up", async () => {
    const file = join(folder, "report.sh");
    // Little effort: how small it gets is not what is tested.
    expect(await packBundle(file, checkout, 1)).toBeLessThan(60 * 2 ** 20);
    const [tools, temporary] = [join(folder, "bin"), join(folder, "tmp")];
    for (const made of [tools, temporary]) mkdirSync(made);
    for (const tool of TOOLS) {
      const { stdout } = spawnSync("/bin/sh", ["-c", `command -v ${tool}`], { encoding: "utf8" });
      symlinkSync(stdout.trim(), join(tools, tool));
    }
    const run = (...words: string[]) =>
      spawnSync("/bin/sh", [file, ...words], {
        ...{ cwd: folder, encoding: "utf8", env: { PATH: tools, HOME: folder, TMPDIR: temporary } },
      });
    const help = run("--help");
    expect(help).toMatchObject({ status: 0, stderr: "" });
    expect(help.stdout).toContain("Usage: sh kto-gpu-report.sh [--quick]");
    const refused = run("--minutes", "two words");
    expect(refused.status).toBe(2);
    expect(refused.stderr).toContain('--minutes is "two words"');
    expect(readdirSync(temporary)).toEqual([]);
  });
});
