/** The shape of the house: a floor imports from the floors below it only, never in a circle, and Node stays outside. */

import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

const source = resolve(dirname(fileURLToPath(import.meta.url)), "../../src");
/** From the ground up. src/errors.ts lies below all of them; src/index.ts, which re-exports, above the method; the benchmarks below the command line. */
const floors = ["errors.ts", "kernels", "engine", "kto", "index.ts", "bench", "cli"];

interface Import {
  readonly from: string;
  readonly to: string;
}

const files = readdirSync(source, { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".ts"))
  .map((name) => name.split(sep).join("/"));
const imports = files.flatMap(importsOf);

function importsOf(file: string): Import[] {
  const text = readFileSync(join(source, file), "utf8");
  const statements = text.matchAll(/^(?:import|export)\s(?:type\s)?(?:[^;"'`]*?\sfrom\s)?["']([^"']+)["']/gm);
  const dynamic = text.matchAll(/\bimport\(\s*["']([^"']+)["']\s*\)/g);
  return [...statements, ...dynamic].map(([, to = ""]) => ({
    from: file,
    to: to.startsWith(".")
      ? relative(source, resolve(source, dirname(file), to))
          .split(sep)
          .join("/")
      : to,
  }));
}

function floorOf(file: string): number {
  return floors.indexOf(file.split("/")[0] ?? "");
}

describe("src", () => {
  test("the imports were found at all", () => {
    const platformImports = imports.filter(({ from }) => from === "engine/platform/node.ts").map(({ to }) => to);
    expect(platformImports).toEqual(
      expect.arrayContaining(["node:fs/promises", "errors.ts", "engine/platform/platform.ts"]),
    );
    expect(imports).toContainEqual({ from: "engine/platform/node-adapters.ts", to: "webgpu" });
  });

  test("every file stands on a floor", () => {
    expect(files.filter((file) => floorOf(file) === -1)).toEqual([]);
  });

  test("a floor imports from itself and the floors below", () => {
    const upward = imports.filter(({ from, to }) => floorOf(to) > floorOf(from));
    expect(upward.map(({ from, to }) => `${from} imports ${to}`)).toEqual([]);
  });

  test("imports stay inside src and name files that exist", () => {
    const local = imports.filter(({ to }) => to.endsWith(".ts") || to.startsWith(".."));
    const lost = local.filter(({ to }) => !files.includes(to));
    expect(lost.map(({ from, to }) => `${from} imports ${to}`)).toEqual([]);
  });

  test("node: is imported by the Node platform and the command line only", () => {
    const strays = imports.filter(
      ({ from, to }) =>
        to.startsWith("node:") && !from.startsWith("cli/") && !/^engine\/platform\/node(-\w+)*\.ts$/.test(from),
    );
    expect(strays.map(({ from, to }) => `${from} imports ${to}`)).toEqual([]);
  });

  test("the Node platform's parts are reached through platform/index.ts only", () => {
    const strays = imports.filter(
      ({ from, to }) => to.startsWith("engine/platform/node") && !from.startsWith("engine/platform/"),
    );
    expect(strays.map(({ from, to }) => `${from} imports ${to}`)).toEqual([]);
  });

  test("no circle of imports, those of types included", () => {
    const graph = new Map<string, string[]>();
    for (const { from, to } of imports) {
      if (files.includes(to)) graph.set(from, [...(graph.get(from) ?? []), to]);
    }
    const done = new Set<string>();
    const circles: string[] = [];
    const visit = (file: string, path: string[]) => {
      if (path.includes(file)) circles.push([...path.slice(path.indexOf(file)), file].join(" -> "));
      else if (!done.has(file)) {
        for (const next of graph.get(file) ?? []) visit(next, [...path, file]);
        done.add(file);
      }
    };
    for (const file of files) visit(file, []);
    expect(circles).toEqual([]);
  });
});
