/** bin/kto.js in made-up checkouts: which code it starts, from where, and what comes through. */

import { spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, realpathSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "../..");
let checkout = "";

beforeEach(() => {
  // Inside the project, so that the launcher finds tsx as it does in a checkout.
  mkdirSync(join(root, ".cache"), { recursive: true });
  checkout = mkdtempSync(join(root, ".cache", "launcher-"));
  write("package.json", '{ "type": "module" }');
  mkdirSync(join(checkout, "bin"));
  copyFileSync(join(root, "bin", "kto.js"), join(checkout, "bin", "kto.js"));
});
afterEach(() => {
  rmSync(checkout, { recursive: true, force: true });
});

function write(name: string, text: string): string {
  const path = join(checkout, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
  return path;
}

function launch(...options: string[]) {
  const result = spawnSync(process.execPath, [join(checkout, "bin", "kto.js"), ...options], {
    cwd: realpathSync(tmpdir()),
    encoding: "utf8",
  });
  return { code: result.status, stdout: result.stdout.trim(), stderr: result.stderr.trim() };
}

const sources = `export function runProcess() {
const told: string = [...process.argv.slice(2), process.cwd()].join("|");
console.log("sources", told);
process.exitCode = 5;
}`;

test("the sources run from any folder, with the arguments and the exit code passed through", () => {
  write("src/cli/main.ts", sources);
  expect(launch("train", "--beta=0.1")).toEqual({
    code: 5,
    stdout: `sources train|--beta=0.1|${realpathSync(tmpdir())}`,
    stderr: "",
  });
});

test("built code is preferred, unless a source file is newer than it", () => {
  const main = write("src/cli/main.ts", sources);
  const built = write(
    "dist/src/cli/main.js",
    'export const runProcess = () => { console.log("built"); process.exit(3); };',
  );
  utimesSync(main, new Date("2026-01-01"), new Date("2026-01-01"));
  utimesSync(built, new Date("2026-01-02"), new Date("2026-01-02"));
  expect(launch()).toMatchObject({ code: 3, stdout: "built" });
  write("src/cli/options/command-line.ts", "export const changed = true;");
  expect(launch()).toMatchObject({ code: 5 });
});

test("an installation without code is told in one sentence", () => {
  const { code, stderr } = launch();
  expect(code).toBe(1);
  expect(stderr).toMatch(/^Neither .*main\.js nor .*main\.ts exists; install kto-webgpu again\.$/);
});
