/**
 * Builds `dist`: `node scripts/build.mjs` all of what is published, `... types` checks the types of the whole checkout
 * and writes the declarations, `... code` only the JavaScript, which bin/kto.js also does where a source has changed.
 * Files keep their places: a module of the sources is one of the build. Plain JavaScript, since it makes what runs.
 */

import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

/** What is built: the sources, and of the bench what `kto bench` runs (all else there needs a checkout). */
const folders = ["src", "bench", "bench/kernels", "bench/measure"];
const single = ["bench/peers/run.ts"];
/** Of these, what only has the files directly in it. */
const flat = ["bench"];

/** Commands whose options are mostly given in a file, for which editors get a schema. */
const CONFIGURED = ["train", "sft"];

/** The dashboard's page, which is bundled into one script and one style sheet and is no module of the rest. */
const page = "src/dashboard/page";

/** Whether the JavaScript in `dist` is that of the sources as they are now. An installed package has no sources. */
export function isCodeBuilt(root) {
  const mark = join(root, "dist", ".code");
  return existsSync(mark) && readFileSync(mark, "utf8") === stateOf(root, sourcesOf(root));
}

/**
 * Translates every source file into a JavaScript module of the same place in `dist`. Each file is put in its place
 * whole, so that several commands may do this at once.
 *
 * @throws with `errors` of { text, location } for sources that cannot be translated
 */
export async function buildCode(root) {
  const { build } = await import("esbuild");
  const sources = sourcesOf(root);
  const state = stateOf(root, sources);
  const { outputFiles } = await build({
    absWorkingDir: root,
    entryPoints: sources,
    outdir: join(root, "dist"),
    outbase: root,
    bundle: true, // for the plugin's sake: without it import paths stay as they are
    plugins: [importsAsBuilt],
    packages: "external",
    platform: "node",
    format: "esm",
    target: "node20.19",
    charset: "utf8",
    write: false,
    logLevel: "silent",
  });
  const pageFiles = await buildPage(root, build);
  for (const { path, contents } of [...outputFiles, ...pageFiles]) put(path, contents);
  const current = new Set([...outputFiles, ...pageFiles].map(({ path }) => path));
  for (const path of filesIn(join(root, "dist"))) if (path.endsWith(".js") && !current.has(path)) rmSync(path);
  put(join(root, "dist", ".code"), state);
}

/** The page with all that it runs on: app.js and app.css. */
async function buildPage(root, build) {
  if (!existsSync(join(root, page))) return [];
  const { outputFiles } = await build({
    absWorkingDir: root,
    entryPoints: { app: `${page}/main.tsx` },
    outdir: join(root, "dist", "dashboard"),
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    jsx: "automatic",
    jsxImportSource: "preact",
    charset: "utf8",
    legalComments: "inline",
    write: false,
    logLevel: "silent",
  });
  return outputFiles;
}

/**
 * Every import stays one, of the file that its source becomes; that of the host's platform becomes a name for which
 * package.json ("imports") has a file for Node and one for bundlers that build for browsers.
 */
const importsAsBuilt = {
  name: "imports-as-built",
  setup(build) {
    build.onResolve({ filter: /^\./ }, ({ path, kind, importer }) => {
      if (kind === "entry-point") return undefined;
      const isHost = path === "./node.ts" && importer.endsWith(join("platform", "index.ts"));
      return { path: isHost ? "#platform" : path.replace(/\.ts$/, ".js"), external: true };
    });
  },
};

/**
 * Checks the types of the whole checkout, and writes the declarations that the package's own need, in one pass of the
 * compiler. Returns whether there was no error; errors are printed.
 */
async function buildTypes(root) {
  const { default: ts } = await import("typescript");
  const host = {
    ...ts.sys,
    onUnRecoverableConfigFileDiagnostic: (fault) =>
      console.error(ts.flattenDiagnosticMessageText(fault.messageText, "\n")),
  };
  const changed = {
    noEmit: false,
    declaration: true,
    emitDeclarationOnly: true,
    outDir: join(root, "dist"),
    rootDir: root,
  };
  const config = ts.getParsedCommandLineOfConfigFile(join(root, "tsconfig.json"), changed, host);
  if (config === undefined) return false;
  const program = ts.createProgram(config.fileNames, config.options);
  // What getPreEmitDiagnostics has beyond these concerns the declarations of all files, the tests' too.
  const faults = [
    ...config.errors,
    ...program.getOptionsDiagnostics(),
    ...program.getSyntacticDiagnostics(),
    ...program.getGlobalDiagnostics(),
    ...program.getSemanticDiagnostics(),
  ];
  const written = new Set();
  const waiting = ["index.ts", "browser.ts"].map((name) => join(root, "src", name));
  for (const path of waiting) {
    const source = program.getSourceFile(path);
    if (source === undefined) throw new Error(`${path} is imported by a declaration, but is no source.`);
    const { diagnostics } = program.emit(source, (name, text) => {
      written.add(resolve(name));
      put(name, text.replace(/((?:from|import\() ?")(\.[^"]*)\.ts"/g, '$1$2.js"'));
      for (const [, imported] of text.matchAll(/(?:from |import\()"(\.[^"]*)\.[jt]s"/g)) {
        const next = join(dirname(path), `${imported}.ts`);
        if (!waiting.includes(next)) waiting.push(next);
      }
    });
    faults.push(...diagnostics);
  }
  if (faults.length > 0) {
    const format = process.stdout.isTTY ? ts.formatDiagnosticsWithColorAndContext : ts.formatDiagnostics;
    const names = { getCurrentDirectory: () => root, getCanonicalFileName: (name) => name, getNewLine: () => "\n" };
    console.log(format(faults, names));
    return false;
  }
  for (const path of filesIn(join(root, "dist"))) if (path.endsWith(".d.ts") && !written.has(path)) rmSync(path);
  put(join(root, "dist", ".types"), stateOf(root, sourcesOf(root)));
  return true;
}

/** The schemas of configuration files, from the table of options as it was built. */
async function buildSchemas(root) {
  const { configSchemaOf } = await import(pathToFileURL(join(root, "dist/src/cli/descriptions/all.js")).href);
  for (const name of CONFIGURED) {
    put(join(root, "dist", "schema", `${name}.json`), `${JSON.stringify(configSchemaOf(name), null, 1)}\n`);
  }
}

function areTypesBuilt(root) {
  const mark = join(root, "dist", ".types");
  return existsSync(mark) && readFileSync(mark, "utf8") === stateOf(root, sourcesOf(root));
}

/** Paths from the project's folder, with "/". */
function sourcesOf(root) {
  const found = folders.flatMap((folder) => sourcesIn(root, folder, !flat.includes(folder)));
  const modules = found.filter((path) => !path.startsWith(`${page}/`));
  return [...new Set([...modules, ...single.filter((name) => existsSync(join(root, name)))])];
}

function sourcesIn(root, folder, deep) {
  if (!existsSync(`${root}/${folder}`)) return [];
  return readdirSync(`${root}/${folder}`, { withFileTypes: true }).flatMap((entry) => {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory()) return deep ? sourcesIn(root, path, true) : [];
    return path.endsWith(".ts") ? [path] : [];
  });
}

/** Names, sizes and times of files, by which a change is noticed, also one that brings an older file. Every command asks. */
function stateOf(root, files) {
  let state = "";
  const ofPage = existsSync(`${root}/${page}`) ? readdirSync(`${root}/${page}`).map((name) => `${page}/${name}`) : [];
  for (const path of ["scripts/build.mjs", ...ofPage, ...files]) {
    const { size, mtimeMs } = statSync(`${root}/${path}`);
    state += `${path} ${size} ${mtimeMs}\n`;
  }
  return state;
}

function filesIn(folder) {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    return entry.isDirectory() ? filesIn(path) : [path];
  });
}

/** Writes a file unless it has this content, whole or not at all. */
function put(path, content) {
  if (existsSync(path) && readFileSync(path).equals(Buffer.from(content))) return;
  mkdirSync(dirname(path), { recursive: true });
  const temporary = `${path}.${process.pid}.tmp`;
  writeFileSync(temporary, content);
  renameSync(temporary, path);
}

async function main(what) {
  const root = join(dirname(fileURLToPath(import.meta.url)), "..");
  if (what === "types") return await buildTypes(root);
  await buildCode(root);
  if (what === "code") return true;
  if (!areTypesBuilt(root) && !(await buildTypes(root))) return false;
  await buildSchemas(root);
  return true;
}

if (process.argv[1] !== undefined && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const [what = "all"] = process.argv.slice(2);
  if (!["all", "code", "types"].includes(what)) {
    console.error("Usage: node scripts/build.mjs [code|types]");
    process.exitCode = 2;
  } else if (!(await main(what))) process.exitCode = 1;
}
