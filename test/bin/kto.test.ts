/** bin/kto.js in made-up checkouts: which code it starts, from where, and what comes through. */

import { spawn, spawnSync } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "../..");
let checkout = "";

beforeEach(() => {
  // Inside the project, so that esbuild is found as it is in a checkout.
  mkdirSync(join(root, ".cache"), { recursive: true });
  checkout = mkdtempSync(join(root, ".cache", "launcher-"));
  write("package.json", '{ "type": "module" }');
  mkdirSync(join(checkout, "bin"));
  mkdirSync(join(checkout, "scripts"));
  for (const name of ["bin/kto.js", "bin/package.json", "scripts/build.mjs", "scripts/sources.cjs"])
    copyFileSync(join(root, name), join(checkout, name));
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

test("built code runs until a source changes, goes, or becomes another one of the same age", () => {
  const main = write("src/cli/main.ts", sources);
  const other = write("src/cli/other.ts", "export const other = 1;");
  const old = write("dist/part-of-yesterday.js", "");
  expect(launch().code).toBe(5);
  expect(existsSync(old)).toBe(false);
  const built = join(checkout, "dist/cli.js");
  writeFileSync(built, 'export const runProcess = () => { console.log("built"); process.exit(3); };');
  expect(launch()).toMatchObject({ code: 3, stdout: "built" });
  rmSync(other);
  expect(launch()).toMatchObject({ code: 5 });
  const { atime, mtime } = statSync(main);
  writeFileSync(main, sources.replace("exitCode = 5", "exitCode = 45"));
  utimesSync(main, atime, mtime);
  expect(launch()).toMatchObject({ code: 45 });
});

test("a source that cannot be translated is told with its line", () => {
  write("src/cli/main.ts", `${sources}\nconst = 1;`);
  expect(launch()).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/^src\/cli\/main\.ts:6: Expected identifier but found "="$/),
  });
});

test("several commands may build at once, and remove what an earlier build left", async () => {
  write("src/cli/main.ts", sources);
  const old = Array.from({ length: 3000 }, (_, i) => `dist/part-${i}.js`);
  for (const path of old) write(path, "");
  const codes = await Promise.all(
    [1, 2, 3].map(
      () =>
        new Promise((done) => {
          spawn(process.execPath, [join(checkout, "bin", "kto.js")], { stdio: "ignore" }).on("close", done);
        }),
    ),
  );
  expect(codes).toEqual([5, 5, 5]);
  expect(old.filter((path) => existsSync(join(checkout, path)))).toEqual([]);
});

test("an installation without code is told in one sentence", () => {
  const { code, stderr } = launch();
  expect(code).toBe(1);
  expect(stderr).toMatch(/^.*cli\.js does not exist; install kto-webgpu again\.$/);
});
