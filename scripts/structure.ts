/**
 * The structure of the sources as their imports show it: files, imports between folders, circles, longest files.
 * `npx tsx scripts/structure.ts` prints it, with a folder behind it that of another checkout; test/layers.test.ts holds
 * it. It reads text and runs nothing.
 */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, posix, resolve, sep } from "node:path";
import { pathToFileURL } from "node:url";

const repository = join(import.meta.dirname, "..");

/** An import statement, a re-export or an import() call, between files by their paths in the repository. */
export interface Import {
  readonly from: string;
  /** The file; of a package its name. */
  readonly to: string;
  /** Inside a function, by import(). */
  readonly dynamic: boolean;
  /** Imports only types, so that nothing is loaded. */
  readonly type: boolean;
}

export interface Structure {
  readonly files: readonly { readonly path: string; readonly lines: number }[];
  readonly imports: readonly Import[];
}

/** Reads the TypeScript of src/ and bench/ in a checkout; default: this one. */
export function readStructure(root = repository): Structure {
  const files = ["src", "bench"].flatMap((folder) => sourcesIn(root, folder));
  const texts = files.map((path) => ({ path, text: readFileSync(join(root, path), "utf8") }));
  return {
    files: texts.map(({ path, text }) => ({ path, lines: text.split("\n").length - 1 })),
    imports: texts.flatMap(({ path, text }) => importsOf(path, text)),
  };
}

function sourcesIn(root: string, folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((name) => /\.tsx?$/.test(name))
    .map((name) => posix.join(folder, name.split(sep).join("/")))
    .sort();
}

function importsOf(from: string, text: string): Import[] {
  const statements = text.matchAll(/^(?:import|export)\s(type\s)?(?:[^;"'`]*?\sfrom\s)?["']([^"']+)["']/gm);
  const calls = text.matchAll(/\bimport\(()\s*["']([^"']+)["']\s*\)/g);
  const of = (matches: Iterable<RegExpExecArray>, dynamic: boolean) =>
    [...matches].map(([, type, to = ""]) => ({
      from,
      to: to.startsWith(".") ? posix.join(posix.dirname(from), to) : to,
      dynamic,
      type: type !== undefined && type !== "",
    }));
  return [...of(statements, false), ...of(calls, true)];
}

/** Each circle of a graph once, as the nodes along it; the last one is the first again. */
export function circles(edges: Iterable<readonly [from: string, to: string]>): string[][] {
  const graph = new Map<string, Set<string>>();
  for (const [from, to] of edges) graph.set(from, (graph.get(from) ?? new Set()).add(to));
  const done = new Set<string>();
  const found: string[][] = [];
  const visit = (node: string, path: readonly string[]) => {
    if (path.includes(node)) found.push([...path.slice(path.indexOf(node)), node]);
    else if (!done.has(node)) {
      for (const next of graph.get(node) ?? []) visit(next, [...path, node]);
      done.add(node);
    }
  };
  for (const node of graph.keys()) visit(node, []);
  return found;
}

/** The imports between files of the structure, as edges. */
export function fileEdges({ files, imports }: Structure): [from: string, to: string][] {
  const known = new Set(files.map(({ path }) => path));
  return imports.filter(({ to }) => known.has(to)).map(({ from, to }) => [from, to]);
}

/**
 * The imports from one folder to another: how many of each. src/ itself is no folder of one kind: it holds the lowest
 * file, errors.ts, and the public surface, index.ts, which count as folders of their own.
 */
export function folderEdges(structure: Structure): Map<string, number> {
  const counts = new Map<string, number>();
  for (const [from, to] of fileEdges(structure)) {
    const [a = "", b = ""] = [from, to].map((path) => (dirname(path) === "src" ? path : dirname(path)));
    if (a !== b) counts.set(`${a} -> ${b}`, (counts.get(`${a} -> ${b}`) ?? 0) + 1);
  }
  return counts;
}

function report(structure: Structure): string {
  const { files, imports } = structure;
  const edges = new Set(fileEdges(structure).map((edge) => edge.join(" -> ")));
  const lines: string[] = ["folder                          files   lines  imports within  to others  from others"];
  for (const folder of [...new Set(files.map(({ path }) => dirname(path)))].sort()) {
    const here = files.filter(({ path }) => dirname(path) === folder);
    const touching = [...edges].map((edge) => edge.split(" -> ").map((path) => dirname(path)));
    const count = (test: (from: string, to: string) => boolean) =>
      touching.filter(([from = "", to = ""]) => test(from, to)).length;
    lines.push(
      folder.padEnd(30) +
        String(here.length).padStart(7) +
        String(here.reduce((sum, { lines }) => sum + lines, 0)).padStart(8) +
        String(count((from, to) => from === folder && to === folder)).padStart(16) +
        String(count((from, to) => from === folder && to !== folder)).padStart(11) +
        String(count((from, to) => from !== folder && to === folder)).padStart(13),
    );
  }
  lines.push("", "floor          files   lines  folders  imports  between folders  circles  longest file");
  for (const floor of ["src/kernels", "src/engine", "src/kto", "src/dashboard", "src/cli", "bench"]) {
    const here = files.filter(({ path }) => path.startsWith(`${floor}/`));
    const [longest] = [...here].sort((a, b) => b.lines - a.lines);
    if (longest === undefined) continue;
    const inside = imports.filter((edge) => [edge.from, edge.to].every((path) => path.startsWith(`${floor}/`)));
    const own = { files: here, imports: inside };
    const between = [...folderEdges(own).keys()].map((edge) => edge.split(" -> ") as [string, string]);
    lines.push(
      floor.padEnd(13) +
        String(here.length).padStart(7) +
        String(here.reduce((sum, { lines }) => sum + lines, 0)).padStart(8) +
        String(new Set(here.map(({ path }) => dirname(path))).size).padStart(9) +
        String(new Set(fileEdges(own).map((edge) => edge.join(" -> "))).size).padStart(9) +
        String(between.length).padStart(17) +
        String(circles(fileEdges(own)).length + circles(between).length).padStart(9) +
        `  ${longest.path.slice(floor.length + 1)} ${longest.lines}`,
    );
  }
  const inFunctions = imports.filter(({ dynamic }) => dynamic);
  const folders = [...folderEdges(structure).keys()].map((edge) => edge.split(" -> ") as [string, string]);
  const longest = [...files].sort((a, b) => b.lines - a.lines).slice(0, 8);
  return [
    ...lines,
    "",
    `circles between files: ${circles(fileEdges(structure)).length}`,
    `circles between folders: ${circles(folders).length}`,
    ...circles(folders).map((circle) => `  ${circle.join(" -> ")}`),
    `import() in functions: ${inFunctions.length}`,
    `longest files: ${longest.map(({ path, lines }) => `${path} ${lines}`).join(", ")}`,
    `${files.length} files, ${files.reduce((sum, { lines }) => sum + lines, 0)} lines`,
  ].join("\n");
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const [checkout = repository] = process.argv.slice(2);
  console.log(report(readStructure(resolve(checkout))));
}
