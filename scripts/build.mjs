/**
 * Builds `dist`: `node scripts/build.mjs` all of what is published, `... types` checks the types of the whole checkout
 * and writes the declarations, `... code` only the JavaScript, which bin/kto.js also does where a source has changed.
 * Modules are joined into few files, since Node takes about a millisecond to load each. Plain JavaScript, since it makes
 * what runs.
 */

import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { page, sourcesOf, stateOf } from "./sources.cjs";

/**
 * What is loaded by its name: by programs, by bin/kto.js, by buildSchemas, as a worker of "./NAME.js", and as the host's
 * platform ("imports" of package.json). What two of them run on becomes a file that they share, so that a class is one.
 * All files lie in one folder: modules name their workers from where they stand themselves.
 */
const entries = {
  index: "src/index.ts",
  browser: "src/browser.ts",
  cli: "src/cli/main.ts",
  descriptions: "src/cli/descriptions/all.ts",
  "parquet-worker": "src/kto/data/parquet-worker.ts",
  "encode-worker": "src/kto/data/encode-worker.ts",
  "dashboard-worker": "src/cli/server/dashboard-worker.ts",
  "node-mpi-worker": "src/engine/platform/node-mpi-worker.ts",
  "platform-node": "src/engine/platform/node.ts",
  "platform-browser": "src/engine/platform/browser.ts",
};

/**
 * Packages that become part of these files. Node takes half of a command's start to load them one by one, and of zod
 * most (texts in 60 languages) is never run.
 */
const joined = ["fast-string-width", "is-unicode-supported", "picocolors", "zod"];

/** What bin/kto.js asks before it loads a command; no ES module, which takes Node a moment more. */
const quickHelp = "src/cli/quick-help.ts";

/** Commands whose options are mostly given in a file, for which editors get a schema. */
const CONFIGURED = ["train", "sft"];

/**
 * Makes JavaScript of the sources. Each file is put in its place whole, so that several commands may do this at once.
 *
 * @throws with `errors` of { text, location } for sources that cannot be translated
 */
export async function buildCode(root) {
  const { build } = await import("esbuild");
  const state = stateOf(root, sourcesOf(root));
  const { dependencies, optionalDependencies, peerDependencies } = JSON.parse(
    readFileSync(join(root, "package.json"), "utf8"),
  );
  const packages = Object.keys({ ...dependencies, ...optionalDependencies, ...peerDependencies });
  const { outputFiles, metafile } = await build({
    absWorkingDir: root,
    entryPoints: Object.fromEntries(Object.entries(entries).filter(([, source]) => existsSync(join(root, source)))),
    outdir: join(root, "dist"),
    chunkNames: "part-[hash]",
    bundle: true,
    splitting: true,
    plugins: [hostByName, builtInsByImport],
    external: packages.filter((name) => !joined.includes(name)),
    platform: "node",
    format: "esm",
    target: "node20.19",
    charset: "utf8",
    // A quarter of the files was indents; names and short lines stay, so that the stack of an error can be read, and the
    // place that it names be looked at. Source maps would be another 2 MB.
    minifyWhitespace: true,
    lineLimit: 160,
    write: false,
    metafile: true,
    logLevel: "silent",
  });
  const ofPage = await buildPage(root, build);
  const files = [...outputFiles, ...ofPage.outputFiles, ...(await buildQuickHelp(root, build))];
  for (const { path, contents } of files) put(path, contents);
  const current = new Set(files.map(({ path }) => path));
  for (const path of filesIn(join(root, "dist"))) {
    // Another command that builds at the same time may have removed it.
    if (path.endsWith(".js") && !current.has(path)) rmSync(path, { force: true });
  }
  await buildHelpPages(root);
  put(join(root, "dist", "LICENSES.txt"), licensesOf(root, [metafile, ofPage.metafile]));
  put(join(root, "dist", ".code"), state);
}

/** The licences of the packages of which something became part of the files. */
function licensesOf(root, metafiles) {
  const sources = metafiles.flatMap(({ inputs }) => Object.keys(inputs));
  const folders = sources.flatMap((path) => path.match(/^.*node_modules\/(?:@[^/]+\/)?[^/]+/)?.[0] ?? []);
  const texts = [...new Set(folders)].sort().map((folder) => {
    const name = folder.replace(/^.*node_modules\//, "");
    const file = readdirSync(join(root, folder)).find((entry) => /^licen[cs]e/i.test(entry));
    if (file === undefined) throw new Error(`The package ${name} has no licence, so that it cannot be a part of dist.`);
    return `${name}\n\n${readFileSync(join(root, folder, file), "utf8").trim()}\n`;
  });
  return texts.join(`\n${"-".repeat(80)}\n\n`);
}

/** The page with all that it runs on: app.js and app.css. */
async function buildPage(root, build) {
  if (!existsSync(join(root, page))) return { outputFiles: [], metafile: { inputs: {} } };
  return await build({
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
    metafile: true,
    logLevel: "silent",
  });
}

async function buildQuickHelp(root, build) {
  if (!existsSync(join(root, quickHelp))) return [];
  const { outputFiles } = await build({
    absWorkingDir: root,
    entryPoints: { "quick-help": quickHelp },
    outdir: join(root, "dist"),
    outExtension: { ".js": ".cjs" },
    bundle: true,
    platform: "node",
    format: "cjs",
    target: "node20.19",
    charset: "utf8",
    minifyWhitespace: true,
    write: false,
    logLevel: "silent",
  });
  return outputFiles;
}

/** The pages that it shows, from the table of options as it was built. */
async function buildHelpPages(root) {
  if (!existsSync(join(root, "dist", "descriptions.js"))) return;
  const { helpPages } = await import(pathToFileURL(join(root, "dist", "descriptions.js")).href);
  for (const [topic, page] of Object.entries(helpPages())) {
    put(join(root, "dist", "help", `${topic}.json`), JSON.stringify(page));
  }
}

/** The host's platform stays a name, for which package.json has a file for Node and one for bundlers for browsers. */
const hostByName = {
  name: "host-by-name",
  setup(build) {
    build.onResolve({ filter: /^\.\/node\.ts$/ }, ({ importer }) =>
      importer.endsWith(join("platform", "index.ts")) ? { path: "#platform", external: true } : undefined,
    );
  },
};

/** `require("node:path")` in a package that is no ES module becomes an import, since ES modules have no `require`. */
const builtInsByImport = {
  name: "built-ins-by-import",
  setup(build) {
    build.onResolve({ filter: /^node:/ }, ({ path, kind }) =>
      kind === "require-call" ? { path, namespace: "built-in" } : undefined,
    );
    build.onLoad({ filter: /./, namespace: "built-in" }, ({ path }) => ({
      contents: `export * from ${JSON.stringify(path)};`,
    }));
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
  const { configSchemaOf } = await import(pathToFileURL(join(root, "dist", "descriptions.js")).href);
  for (const name of CONFIGURED) {
    put(join(root, "dist", "schema", `${name}.json`), `${JSON.stringify(configSchemaOf(name), null, 1)}\n`);
  }
}

function areTypesBuilt(root) {
  const mark = join(root, "dist", ".types");
  return existsSync(mark) && readFileSync(mark, "utf8") === stateOf(root, sourcesOf(root));
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
