/**
 * The kernels' texts in a second build of WebGPU, a browser's: those that lie in test/kernels/texts; the script takes
 * all.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";

const root = new URL("../../", import.meta.url).pathname;
const compile = (folder: string) =>
  spawnSync("node", ["scripts/chromium-texts.mjs", folder], { cwd: root, encoding: "utf8" });

// The browser of the dev dependency is built for this system alone.
describe.runIf(process.platform === "linux" && process.arch === "x64")("in headless Chromium", () => {
  it("every kept text compiles", () => {
    const { status, stdout, stderr } = compile("test/kernels/texts");
    expect([status, stderr]).toEqual([0, ""]);
    const texts = join(root, "test/kernels/texts");
    // SwiftShader, which this browser has, knows no f16.
    const count = readdirSync(texts).filter(
      (file) => !/^enable .*f16/m.test(readFileSync(join(texts, file), "utf8")),
    ).length;
    expect(stdout).toContain(`${count} of ${count} texts compile\n`);
  });

  it("a text that does not compile is named, and the exit code is 1", () => {
    const folder = mkdtempSync(join(tmpdir(), "texts-"));
    writeFileSync(join(folder, "wrong.wgsl"), "fn main() { let x: u32 = 1.0; }");
    const { status, stdout, stderr } = compile(folder);
    rmSync(folder, { recursive: true });
    expect(status).toBe(1);
    expect(stderr).toContain("wrong.wgsl: ");
    expect(stdout).toContain("0 of 1 texts compile");
  });
});
