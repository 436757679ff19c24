/**
 * The npm package as users get it: packed, installed by npm in an empty folder (from npm's cache, in the versions of
 * package-lock.json), and used there. What is in it, its types, and its command under both names.
 */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { gzipSync } from "node:zlib";
import * as attw from "@arethetypeswrong/core";
import { build } from "esbuild";
import { publint } from "publint";
import { formatMessage } from "publint/utils";
import ts from "typescript";
import { beforeAll, describe, expect, test } from "vitest";
import { packagesOf } from "../scripts/locked-packages.mjs";
import { configSchemaOf } from "../src/cli/descriptions/all.ts";
import { fileIn, jsonl, stories, temporaryFolder } from "./helpers/folders.ts";

const root = resolve(import.meta.dirname, "..");
const temporary = temporaryFolder();
/** A project with nothing in it but the package. */
const project = join(temporary, "project");
const installed = join(project, "node_modules", "kto-webgpu");
const model = resolve(stories);
const rows = fileIn(
  temporary,
  "rows.jsonl",
  jsonl(
    ["cat", "dog", "fish", "bird", "tree"].map((word, i) => ({
      prompt: `Once there was a ${word}.`,
      completion: i % 2 === 0 ? " It was happy." : " It was sad.",
      label: i % 2 === 0,
    })),
  ),
);

let tarball = "";
let packed: { size: number; unpackedSize: number; files: { path: string; mode: number }[] };

/** npm, which has npm tell where it lies when it starts the tests. */
function npm(folder: string, ...words: string[]): string {
  const script = process.env.npm_execpath;
  const [program, first] = script?.endsWith(".js") ? [process.execPath, [script]] : ["npm", []];
  const { status, stdout, stderr } = spawnSync(program, [...first, ...words, "--no-audit", "--no-fund"], {
    cwd: folder,
    encoding: "utf8",
    shell: program === "npm" && process.platform === "win32",
  });
  expect(status, stderr).toBe(0);
  return stdout;
}

beforeAll(() => {
  // Built before, since npm prints what its scripts print among the JSON.
  const built = spawnSync(process.execPath, [join(root, "scripts", "build.mjs")], { encoding: "utf8" });
  expect(built.status, built.stdout + built.stderr).toBe(0);
  const told = npm(root, "pack", "--json", "--ignore-scripts", "--pack-destination", temporary);
  const [entry] = JSON.parse(told) as [typeof packed & { filename: string }];
  packed = entry;
  tarball = join(temporary, entry.filename);
  // A lock of its own, so that npm asks no registry which versions there are: all of them are in its cache.
  const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const { name, version, dependencies, optionalDependencies, bin } = manifest;
  const locked = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")).packages;
  const needed = packagesOf(locked, [""], { dev: false }).map((place): [string, unknown] => [place, locked[place]]);
  const own = { version, resolved: `file:../${entry.filename}`, dependencies, optionalDependencies, bin };
  const wanted = { name: "project", version: "1.0.0", dependencies: { [name]: own.resolved } };
  const lock = {
    ...{ name: "project", version: "1.0.0", lockfileVersion: 3, requires: true },
    packages: { "": wanted, [`node_modules/${name}`]: own, ...Object.fromEntries(needed) },
  };
  mkdirSync(project);
  writeFileSync(join(project, "package.json"), JSON.stringify({ ...wanted, private: true, type: "module" }));
  writeFileSync(join(project, "package-lock.json"), JSON.stringify(lock));
  npm(project, "ci", "--prefer-offline");
});

function run(program: string, ...words: string[]) {
  const { status, stdout, stderr } = spawnSync(program, words, { cwd: project, encoding: "utf8" });
  return { status, stdout, stderr };
}

/** The command by one of its names, as npx starts it. */
function kto(...words: string[]) {
  return run(process.execPath, join(installed, "bin", "kto.js"), ...words);
}

/** The same on a machine that has never run it. */
function firstKto(...words: string[]) {
  const env = { ...process.env, KTO_CACHE: join(temporary, "new-cache") };
  const program = [join(installed, "bin", "kto.js"), ...words];
  const { status, stdout, stderr } = spawnSync(process.execPath, program, { cwd: project, encoding: "utf8", env });
  return { status, stdout, stderr };
}

describe("what is packed", () => {
  test("is code, declarations, schemas and pages for users, under 3 MB", () => {
    const paths = packed.files.map(({ path }) => path);
    const known =
      /^(package\.json|README\.md|CHANGELOG\.md|LICENSE|bin\/(kto\.js|package\.json)|docs\/(reference\/)?[\w-]+\.(md|svg)|docs\/pictures\/[\w-]+\.svg|dist\/[\w-]+\.js|dist\/(quick-help\.cjs|help\/\w+\.json)|dist\/dashboard\/app\.(js|css)|dist\/LICENSES\.txt|dist\/src\/[\w/.-]+\.d\.ts|dist\/schema\/\w+\.json)$/;
    expect(paths.filter((path) => !known.test(path))).toEqual([]);
    expect(
      paths.filter((path) => /finding-your-way|gpu-report|bench\/(experiments|report|peers\/(?!run\.js))/.test(path)),
    ).toEqual([]);
    expect(packed.unpackedSize).toBeLessThan(3e6);
    expect(packed.size).toBeLessThan(1e6);
  });

  test("has every module that its modules import", () => {
    const modules = packed.files.map(({ path }) => join(installed, path)).filter((path) => /\.(js|d\.ts)$/.test(path));
    const lost = modules.flatMap((path) => {
      const imports = readFileSync(path, "utf8").matchAll(/(?:\bfrom|\bimport\(|\bimport)\s*"(\.[^"]*)"/g);
      // Declarations name each other as modules.
      const places = [...imports].map(([, to = ""]) => (path.endsWith(".d.ts") ? to.replace(/\.js$/, ".d.ts") : to));
      return places.filter((to) => !existsSync(join(path, "..", to))).map((to) => `${path}: ${to}`);
    });
    expect(modules.length).toBeGreaterThan(100);
    expect(lost).toEqual([]);
  });

  test("brings no package that only tests and checkouts need", () => {
    const found = readdirSync(join(project, "node_modules")).flatMap((name) =>
      name.startsWith("@") ? readdirSync(join(project, "node_modules", name)).map((part) => `${name}/${part}`) : [name],
    );
    for (const name of ["esbuild", "tsx", "typescript", "vitest", "@sparticuz/chromium", "@biomejs/biome"]) {
      expect(found).not.toContain(name);
    }
    // Beside Dawn.
    const others = found.filter((name) => !["webgpu", "kto-webgpu"].includes(name) && !name.startsWith("."));
    const bytes = others.map((name) => sizeOf(join(project, "node_modules", name))).reduce((a, b) => a + b, 0);
    expect(bytes).toBeLessThan(20e6);
  });

  test("is as publint wants it", async () => {
    const { messages, pkg } = await publint({ pkgDir: installed, strict: true, pack: false });
    expect(messages.map((message) => formatMessage(message, pkg, { color: false }))).toEqual([]);
  });

  test("has types that every resolution finds, for programs that are ES modules", async () => {
    const bytes = new Uint8Array(readFileSync(tarball));
    const result = await attw.checkPackage(attw.createPackageFromTarballData(bytes));
    const problems = result.types === false ? ["no types"] : result.problems;
    // An ES module is no CommonJS module: Node 20.19 loads it from one all the same.
    expect(problems.filter((one) => typeof one === "string" || one.kind !== "CJSResolvesToESM")).toEqual([]);
  });

  test("goes into a web page without anything of Node, as small as docs/browser.md says", async () => {
    const { outputFiles, metafile } = await build({
      stdin: { contents: 'export * from "kto-webgpu/browser";', resolveDir: project },
      ...{ absWorkingDir: project, bundle: true, minify: true, write: false, metafile: true },
      ...{ platform: "browser", format: "esm", target: "es2023", logLevel: "silent" },
    });
    const imported = Object.values(metafile.outputs).flatMap((output) => output.imports);
    expect(imported).toEqual([]);
    expect(Object.keys(metafile.inputs).filter((name) => /platform-node/.test(name))).toEqual([]);
    expect(Object.keys(metafile.inputs).some((name) => name.endsWith("platform-browser.js"))).toBe(true);
    const content = outputFiles[0]?.contents ?? new Uint8Array(0);
    const page = readFileSync(join(root, "docs", "browser.md"), "utf8");
    const [, whole, compressed] = /All of it is ([\d.]+) MB minified, ([\d.]+) MB compressed/.exec(page) ?? [];
    for (const [bytes, stated] of [
      [content.length, whole],
      [gzipSync(content).length, compressed],
    ] as const) {
      expect(Math.abs(bytes / 1e6 / Number(stated) - 1)).toBeLessThan(0.05);
    }
  });

  test("has the schemas that the code makes", () => {
    for (const name of ["train", "sft"] as const) {
      const schema = JSON.parse(readFileSync(join(installed, "dist", "schema", `${name}.json`), "utf8"));
      expect(schema).toEqual(JSON.parse(JSON.stringify(configSchemaOf(name))));
    }
  });
});

function sizeOf(path: string): number {
  if (!statSync(path).isDirectory()) return statSync(path).size;
  return readdirSync(path)
    .map((name) => sizeOf(join(path, name)))
    .reduce((a, b) => a + b, 0);
}

const program = `
import { Device, KtoTrainer, loadTokenizer, Model, readFeedback, tokenizeRows } from "kto-webgpu";
const policy = await Model.load(await Device.open(), ${JSON.stringify(model)});
const { vocabSize, contextLength } = policy.config;
const tokenizer = await loadTokenizer(policy.folder);
const rows = await readFeedback(${JSON.stringify(rows)});
const { examples } = tokenizeRows(rows, { tokenizer, vocabSize, contextLength });
const trainer = await KtoTrainer.create({ policy, examples, options: { max_steps: 1, logging_steps: 1, per_device_train_batch_size: 4 } });
for await (const { step, metrics } of trainer) console.log(step, Number.isFinite(metrics?.loss));
policy.device.close();
`;

/**
 * What the compiler says of a program and of our declarations that it uses. Those of the language, of Node and of Dawn
 * are not gone through: they take ten seconds.
 */
function faultsOf(path: string): string[] {
  const program = ts.createProgram([path], {
    ...{ strict: true, exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true, noEmit: true },
    ...{ target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.NodeNext },
    ...{ types: ["node"], typeRoots: [join(root, "node_modules", "@types")] },
  });
  const ours = program
    .getSourceFiles()
    .filter(({ fileName }) => fileName === path || fileName.includes("/kto-webgpu/"));
  expect(ours.length).toBeGreaterThan(20);
  const faults = [
    ...program.getOptionsDiagnostics(),
    ...program.getGlobalDiagnostics(),
    ...ours.flatMap((file) => [...program.getSyntacticDiagnostics(file), ...program.getSemanticDiagnostics(file)]),
  ];
  return faults.map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, "\n"));
}

describe("used in the empty folder", () => {
  test("the command has two names, of which npx finds the package's own", () => {
    expect(existsSync(join(project, "node_modules", ".bin", "kto"))).toBe(true);
    expect(npm(project, "exec", "--offline", "--", "kto-webgpu", "--version")).toMatch(/^\d+\.\d+\.\d+\n$/);
  });

  test("kto doctor", () => {
    const { status, stdout, stderr } = firstKto("doctor", "--json");
    expect([status, stderr]).toEqual([0, ""]);
    const { packages, adapters } = JSON.parse(stdout);
    expect(adapters.length).toBeGreaterThan(0);
    expect(packages["kto-webgpu"]).toBe(JSON.parse(readFileSync(join(root, "package.json"), "utf8")).version);
  });

  test("a program of ten lines, whose types are right under the strictest checks", () => {
    writeFileSync(join(project, "program.ts"), program);
    writeFileSync(join(project, "program.js"), program);
    expect(faultsOf(join(project, "program.ts"))).toEqual([]);
    const { status, stdout, stderr } = run(process.execPath, "program.js");
    expect([status, stdout], stderr).toEqual([0, "1 true\n"]);
  });

  test("kto init, then kto train, without a word of native code on the first run of a machine", () => {
    const words = ["--model_name_or_path", model, "--dataset_name", rows];
    const made = kto("init", ...words, "--output_dir", "aligned");
    expect(made.status, made.stderr).toBe(0);
    const config = readFileSync(join(project, "run.yaml"), "utf8");
    expect(config.split("\n")[0]).toBe(
      "# yaml-language-server: $schema=./node_modules/kto-webgpu/dist/schema/train.json",
    );
    expect(existsSync(join(project, "node_modules/kto-webgpu/dist/schema/train.json"))).toBe(true);
    const trained = firstKto("train", "run.yaml", "max_steps=1");
    expect(trained.status, trained.stderr).toBe(0);
    // Whatever else stands there comes from native code.
    const ours = /^(loading|adapter|model|plan|data|reference|checkpoint|update|warning): |^checkpoint|^update \d/;
    expect(trained.stderr.split(/[\r\n]+/).filter((line) => line.trim() !== "" && !ours.test(line))).toEqual([]);
    expect(existsSync(join(project, "aligned", "model.safetensors"))).toBe(true);
  });

  test("kto chat", async () => {
    const template = fileIn(temporary, "chat.jinja", "{% for m in messages %}{{ m.content }}{% endfor %}");
    const options = ["--model_name_or_path", model, "--chat_template_path", template];
    const words = [join(installed, "bin", "kto.js"), "chat", ...options, "--max_new_tokens", "4", "--greedy", "--json"];
    const child = spawn(process.execPath, words, { cwd: project });
    child.stdin.end("Once upon a time\n");
    let [said, complained] = ["", ""];
    child.stdout.on("data", (text) => (said += text));
    child.stderr.on("data", (text) => (complained += text));
    const code = await new Promise((resolve) => child.on("close", resolve));
    expect(code, complained).toBe(0);
    expect(JSON.parse(said.split("\n")[0] ?? "")).toMatchObject({});
  });

  test("the stack of --debug names places that can be looked at", () => {
    const { stderr } = kto("train", "--bata", "1", "--debug");
    const [, path = "", line, column] = /\n {4}at .*file:\/\/(.*\.js):(\d+):(\d+)\)?\n/.exec(stderr) ?? [];
    const text = readFileSync(decodeURI(path), "utf8").split("\n")[Number(line) - 1] ?? "";
    expect([text.slice(Number(column) - 1).startsWith("new ConfigError("), Number(column) < 1000]).toEqual([
      true,
      true,
    ]);
  });

  test("kto bench has all of its cases", () => {
    const { status, stderr } = kto("bench", "--filter", "pooling");
    expect([status, stderr]).toEqual([2, expect.stringContaining("there are matmul NN, ")]);
  });
});
