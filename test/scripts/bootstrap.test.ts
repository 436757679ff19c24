/**
 * What scripts/bootstrap.mjs installs, and for what: the quickstart gets what it runs and no more. Installing itself is
 * npm's; what is counted here is what it was told to put where.
 */
import { lstatSync, readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { expect, test } from "vitest";
import { packagesOf } from "../../scripts/locked-packages.mjs";

const root = resolve(import.meta.dirname, "../..");
const json = (name: string) => JSON.parse(readFileSync(join(root, name), "utf8"));
const locked: Record<string, { version?: string; optional?: boolean; dependencies?: object }> =
  json("package-lock.json").packages;

function bytesOf(path: string): number {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (!found?.isDirectory()) return found?.size ?? 0;
  return readdirSync(path).reduce((sum, name) => sum + bytesOf(join(path, name)), 0);
}

test("beside what users get, a checkout runs with tsx, esbuild and what they join; the rest belongs to test/package.json", () => {
  const joined = ["fast-string-width", "is-unicode-supported", "picocolors", "preact", "uplot"];
  expect(Object.keys(json("package.json").devDependencies).sort()).toEqual([...joined, "esbuild", "tsx"].sort());
  expect(json("package.json").workspaces).toEqual(["test", "scripts/swiftshader"]);
  expect(Object.keys(locked)).toEqual(expect.arrayContaining(["test", "scripts/swiftshader"]));
});

test("the quickstart installs less than 260 MB, SwiftShader included", () => {
  const places = packagesOf(locked, ["", "scripts/swiftshader"]);
  expect(places).toEqual(expect.arrayContaining(["node_modules/webgpu", "node_modules/zod", "node_modules/tsx"]));
  for (const name of ["vitest", "typescript", "@biomejs/biome", "tokenizers", "@jax-js/jax"]) {
    expect(places).not.toContain(`node_modules/${name}`);
  }
  const bytes = places.reduce((sum, place) => sum + bytesOf(join(root, place)), 0);
  expect(bytes).toBeGreaterThan(100e6);
  expect(bytes).toBeLessThan(260e6);
});

test("the packages that a lock names are all needed by the project or a workspace", () => {
  const needed = new Set(packagesOf(locked, ["", "test", "scripts/swiftshader"]));
  const peers = Object.values(locked).flatMap((entry) =>
    Object.keys((entry as { peerDependencies?: object }).peerDependencies ?? {}),
  );
  const lost = Object.keys(locked).filter(
    (place) =>
      place.startsWith("node_modules/") &&
      !needed.has(place) &&
      !/^node_modules\/kto-webgpu-/.test(place) &&
      !peers.some((name) => place.endsWith(`node_modules/${name}`)),
  );
  expect(lost).toEqual([]);
});

test("a package is looked for as Node does, from the folder that needs it upwards", () => {
  const lock = {
    "": { dependencies: { a: "1" }, devDependencies: { d: "1" }, optionalDependencies: { o: "1" } },
    w: { dependencies: { b: "2" } },
    "node_modules/a": { dependencies: { b: "1" } },
    "node_modules/a/node_modules/b": { dependencies: { c: "1" } },
    "node_modules/b": {},
    "node_modules/c": {},
    "node_modules/d": { devDependencies: { never: "1" } },
    "node_modules/never": {},
  };
  const here = (...names: string[]) => names.map((name) => `node_modules/${name}`);
  expect(packagesOf(lock, [""]).sort()).toEqual(here("a", "a/node_modules/b", "c", "d"));
  expect(packagesOf(lock, [""], { dev: false }).sort()).toEqual(here("a", "a/node_modules/b", "c"));
  expect(packagesOf(lock, ["w"])).toEqual(here("b"));
});
