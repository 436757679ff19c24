/**
 * The shape of the house: floors and their wings import downwards only, never in a circle, and Node stays outside. The
 * figures behind it are printed by scripts/structure.ts.
 */
import { existsSync, readFileSync } from "node:fs";
import { dirname } from "node:path";
import { expect, test } from "vitest";
import { circles, fileEdges, folderEdges, readStructure } from "../scripts/structure.ts";

/**
 * Floors and wings from the ground up. A file belongs to the longest name that its path begins with. Wings on one line
 * do not import each other.
 */
const order: readonly (readonly string[])[] = [
  ["src/errors.ts"],
  ["src/kernels/"],
  ["src/kernels/float64/"],
  ["src/engine/platform/"],
  ["src/engine/"],
  ["src/engine/files/", "src/engine/gpu/"],
  ["src/engine/ranks/"],
  ["src/engine/model/config/"],
  ["src/engine/model/weights/", "src/engine/text/", "src/engine/hub/"],
  ["src/engine/model/"],
  ["src/engine/model/float64/", "src/engine/model/generate/", "src/engine/model/export/"],
  ["src/kto/data/exports/"],
  ["src/kto/options/", "src/kto/data/", "src/kto/report/"],
  ["src/kto/method/"],
  ["src/kto/evaluation/", "src/kto/judge/"],
  ["src/kto/run/"],
  ["src/kto/"],
  ["src/index.ts"],
  ["src/browser.ts"],
  ["src/dashboard/"],
  ["src/dashboard/page/"],
  ["bench/measure/"],
  ["bench/kernels/"],
  ["bench/"],
  ["bench/peers/", "bench/experiments/"],
  ["bench/report/"],
  ["bench/report/bundle/"],
  ["src/cli/terminal/"],
  ["src/cli/options/"],
  ["src/cli/shell/"],
  ["src/cli/descriptions/"],
  ["src/cli/server/"],
  ["src/cli/session/"],
  ["src/cli/commands/"],
  ["src/cli/"],
];

/** What knows Node: the command line, and the parts of the bench that start programs. */
const top = /^(src\/cli|bench\/(peers|experiments|report))\//;

const structure = readStructure();
const files = structure.files.map(({ path }) => path);
const { imports } = structure;
const tell = ({ from, to }: { readonly from: string; readonly to: string }) => `${from} imports ${to}`;

const wings = order
  .flatMap((line, height) => line.map((name) => ({ name, height })))
  .sort((a, b) => b.name.length - a.name.length);

function wingOf(path: string) {
  return wings.find(({ name }) => path.startsWith(name));
}

test("the imports were found at all", () => {
  const node = "src/engine/platform/node.ts";
  expect(imports.filter(({ from }) => from === node).map(({ to }) => to)).toEqual(
    expect.arrayContaining(["node:fs/promises", "src/errors.ts", "src/engine/platform/platform.ts"]),
  );
  expect(imports).toContainEqual({
    from: "src/engine/platform/node-adapters.ts",
    to: "webgpu",
    dynamic: true,
    type: false,
  });
});

test("every file stands in a wing, and every wing holds a file", () => {
  expect(files.filter((file) => wingOf(file) === undefined)).toEqual([]);
  const used = new Set(files.map((file) => wingOf(file)?.name));
  expect(wings.filter(({ name }) => !used.has(name))).toEqual([]);
});

test("a wing imports from itself and from the wings below", () => {
  const upward = fileEdges(structure).filter(([from, to]) => {
    const [above, below] = [wingOf(from), wingOf(to)];
    return above?.name !== below?.name && (below?.height ?? 0) >= (above?.height ?? 0);
  });
  expect(upward.map(([from, to]) => `${from} imports ${to}`)).toEqual([]);
});

test("imports stay inside the sources and name files that exist", () => {
  const local = imports.filter(({ to }) => to.startsWith(".") || /^(src|bench|test|examples|scripts)\//.test(to));
  const lost = local.filter(({ to }) => !files.includes(to) && !(to.endsWith(".css") && existsSync(to)));
  expect(lost.map(tell)).toEqual([]);
});

/** What is imported only when it is needed, and why. */
const WHEN_NEEDED: Readonly<Record<string, string>> = {
  "src/cli/main.ts": "a command loads its own modules alone, and help those of no command",
  "src/cli/session/judge.ts": "the user's own module, known by its path",
  "src/engine/platform/node-adapters.ts": "Dawn's native code, which commands without a GPU do not load",
  "src/engine/platform/node-hub.ts": "an optional dependency",
  "src/engine/platform/node-mpi-library.ts": "an optional dependency",
  "src/engine/platform/node-sqlite.ts": "a module that not every Node has, and an optional dependency",
  "src/engine/platform/node-thread.ts": "a worker's own text, and tsx where sources run",
};

test("modules are imported at the top of a file, but for those that are named here with the reason", () => {
  const sources = files.filter((file) => file.startsWith("src/"));
  const found = sources.filter((file) => {
    const code = readFileSync(file, "utf8").replace(/^\s*(\/?\*|\/\/).*$/gm, "");
    return /(?<![.\w"'`])import\(/.test(code);
  });
  expect(found.sort()).toEqual(Object.keys(WHEN_NEEDED).sort());
});

test("node: is imported by the Node platform and at the top only", () => {
  const strays = imports.filter(
    ({ from, to }) =>
      to.startsWith("node:") && !top.test(from) && !/^src\/engine\/platform\/node(-\w+)*\.ts$/.test(from),
  );
  expect(strays.map(tell)).toEqual([]);
});

test("below the top, the Node platform's parts are reached through platform/index.ts only", () => {
  const strays = imports.filter(
    ({ from, to }) =>
      to.startsWith("src/engine/platform/node") && !from.startsWith("src/engine/platform/") && !top.test(from),
  );
  expect(strays.map(tell)).toEqual([]);
});

test("no circle of imports between files, those of types included, nor between folders", () => {
  expect(circles(fileEdges(structure))).toEqual([]);
  const folders = [...folderEdges(structure).keys()].map((edge): [string, string] => {
    const [from = "", to = ""] = edge.split(" -> ");
    return [from, to];
  });
  expect(circles(folders)).toEqual([]);
});

/** Lines of a file, and files of a folder, beyond which a reader no longer sees what is there. */
const MOST_LINES = 450;
const MOST_FILES = 16;

/** Folders that hold more, at most as many as are said here, and why they are one folder. */
const LARGER_FOLDERS: Readonly<Record<string, readonly [files: number, reason: string]>> = {
  "src/kernels": [52, "one file a layer and one a tile, listed by name as llm.c lists them"],
  "src/kernels/float64": [30, "one twin for each file of src/kernels that computes"],
  "src/engine/model": [34, "one file a part of the decoder, forward and backward; its wings are folders already"],
  "src/engine/platform": [
    38,
    "one interface, with the side of Node (node-*) and of browsers (browser-*) for each part",
  ],
  "src/engine/text/jinja": [34, "one language: its lexer, parser, values, filters and tests"],
  "src/kto/data": [32, "one way from a file to token ids, a step a file; exports have their own folder"],
  "src/kto/data/exports": [22, "one file a program whose thumbs are read, and what these share"],
  "src/kto/options": [26, "one file a group of options, as docs/reference/options.md has them"],
  "src/kto/run": [28, "one run: run.ts, and a file for each thing that it writes, resumes from or shares"],
  "src/dashboard/page": [24, "one page, a component a file"],
  "src/cli/descriptions": [20, "one file a command: what help says without loading the command"],
  "src/cli/terminal": [26, "one terminal: what is shown, a part a file"],
  "bench/kernels": [18, "one file a kernel"],
  "bench/experiments": [18, "one file an experiment"],
};

test(`no file is longer than ${MOST_LINES} lines`, () => {
  const long = structure.files.filter(({ lines }) => lines > MOST_LINES);
  expect(long.map(({ path, lines }) => `${path} has ${lines}`)).toEqual([]);
});

test(`a folder holds at most ${MOST_FILES} files, but for those that are named here with the reason`, () => {
  const counts = new Map<string, number>();
  for (const file of files) counts.set(dirname(file), (counts.get(dirname(file)) ?? 0) + 1);
  const full = [...counts].filter(([folder, count]) => count > (LARGER_FOLDERS[folder]?.[0] ?? MOST_FILES));
  expect(full.map(([folder, count]) => `${folder} has ${count}`)).toEqual([]);
  const needless = Object.keys(LARGER_FOLDERS).filter((folder) => (counts.get(folder) ?? 0) <= MOST_FILES);
  expect(needless).toEqual([]);
});

/** Exported names that two files declare, and why. Twins in float64/ bear the names of what they check. */
const DECLARED_TWICE: Readonly<Record<string, string>> = {
  platform: "Node's and the browser's side of one interface, of which package.json's imports choose one",
};

test("an exported name is declared in one file, but for float64 twins and those that are named here", () => {
  const declaration =
    /^export (?:declare |abstract |async )*(?:const|let|class|function\*?|interface|type|enum)\s+([\w$]+)/gm;
  const places = new Map<string, Set<string>>();
  for (const file of files.filter((one) => one.startsWith("src/"))) {
    for (const [, name = ""] of readFileSync(file, "utf8").matchAll(declaration)) {
      places.set(name, (places.get(name) ?? new Set()).add(file));
    }
  }
  expect(places.size).toBeGreaterThan(1000);
  const isTwin = (file: string) => file.includes("/float64/");
  const twice = [...places].filter(([, found]) => {
    const twins = [...found].filter(isTwin);
    return found.size - twins.length > 1 || twins.length > 1;
  });
  const told = twice.filter(([name]) => !(name in DECLARED_TWICE));
  expect(told.map(([name, found]) => `${name} in ${[...found].join(" and ")}`)).toEqual([]);
  expect(Object.keys(DECLARED_TWICE).filter((name) => !twice.some(([found]) => found === name))).toEqual([]);
});

test("every worker that a module starts is a file that scripts/build.mjs makes", () => {
  const build = readFileSync("scripts/build.mjs", "utf8");
  const workers = files
    .filter((file) => file.startsWith("src/"))
    .flatMap((file) => {
      const named = readFileSync(file, "utf8").matchAll(/new URL\("\.\/([\w-]+)\.js", import\.meta\.url\)/g);
      return [...named].map(([, name]) => `"${name}": "${dirname(file)}/${name}.ts",`);
    });
  expect(new Set(workers).size).toBeGreaterThan(3);
  expect(workers.filter((entry) => !build.includes(entry))).toEqual([]);
});
