/**
 * Makes a fresh clone work: `node scripts/bootstrap.mjs test|quickstart|gpu-report|browser|adapter [-- arguments]` installs the
 * npm packages that the command needs if they are missing or outdated, finds an adapter or sets up a software one, then
 * runs the command; `... packages` installs only. Plain JavaScript without dependencies, since it runs before any are
 * installed. Outside this folder it writes caches only.
 */

import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import { dirname, join, relative } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { packagesOf } from "./locked-packages.mjs";
import { nativeNoise } from "./native-noise.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const [command = "", ...rest] = process.argv.slice(2);
const extra = rest[0] === "--" ? rest.slice(1) : rest;
const usage = "Usage: node scripts/bootstrap.mjs test|quickstart|gpu-report|browser|adapter|packages [-- arguments]";

/** The exit code of an AdapterError. */
const NO_ADAPTER = 5;
/** The workspace with the software adapter of machines that have none. */
const SWIFTSHADER = "scripts/swiftshader";
/** Where the tests keep a lavapipe newer than the system's. */
const NEWER_LAVAPIPE = join(root, ".cache", "newer-lavapipe");

process.exitCode = await main();

/** @returns {Promise<number>} the exit code */
async function main() {
  if (!["test", "quickstart", "gpu-report", "browser", "adapter", "packages"].includes(command)) {
    console.error(usage);
    return 2;
  }
  if (command === "packages") return nodeTooOld() || (await installAll());
  if (command === "browser") {
    // The visitor's browser has an adapter; building the page takes the packages of the project alone.
    return nodeTooOld() || (await installOwn()) || (await run("node", ["scripts/browser.mjs", ...extra]));
  }
  const ready = nodeTooOld() || (command === "quickstart" ? await prepareQuickstart() : await prepare());
  if (ready !== 0) {
    if (command === "test") console.log("0 passed, 1 failed");
    return ready;
  }
  if (command === "test") return await runTests();
  const programs = { quickstart: "examples/quickstart/run.ts", "gpu-report": "scripts/gpu-report.ts" };
  // The report's program tells of its first part at once.
  const starting = command === "quickstart" ? "Starting the quickstart ..." : undefined;
  if (command in programs)
    return await run("node", ["--import", "tsx", programs[command], ...extra], nativeNoise(), undefined, starting);
  return 0;
}

function nodeTooOld() {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  if (major > 20 || (major === 20 && minor >= 19)) return 0;
  console.error(`Node ${process.versions.node} is too old: kto-webgpu needs Node 20.19 or newer (https://nodejs.org).`);
  return 1;
}

/** All packages, also those that only tests need, and an adapter. */
async function prepare() {
  return (await installAll()) || (await findAdapter(nativeNoise()));
}

async function installAll() {
  return arePackagesCurrent(["", ...workspaces()]) ? 0 : await npm("ci", "--include=dev");
}

/** The packages of the project without those of its workspaces. */
async function installOwn() {
  return arePackagesCurrent([""]) ? 0 : await npm("ci", "--include=dev", "--workspaces=false");
}

/** What the quickstart runs and no more: SwiftShader only where there is no other adapter. */
async function prepareQuickstart() {
  const installed = await installOwn();
  if (installed !== 0) return installed;
  if (process.platform !== "linux" || process.arch !== "x64" || arePackagesCurrent(["", SWIFTSHADER])) {
    return await findAdapter(nativeNoise());
  }
  // Whether there is an adapter only Dawn can tell. What it says of one that is missing is no news yet.
  const code = await findAdapter(() => true);
  if (code !== NO_ADAPTER) return code;
  const options = ["--no-save", "--include=dev", "--include-workspace-root", `--workspace=${SWIFTSHADER}`];
  return (await npm("install", ...options)) || (await findAdapter(nativeNoise()));
}

/** Says which adapter there is. */
async function findAdapter(drop) {
  return await run("node", ["--import", "tsx", "scripts/adapter.ts"], drop, undefined, "Looking for an adapter ...");
}

async function npm(...words) {
  console.log(`Installing npm packages (npm ${words.join(" ")} in ${root}) ...`);
  // npm tells its scripts where it lies; started directly, it is looked up in PATH, where Windows has it as npm.cmd.
  const script = process.env.npm_execpath;
  const options = [...words, "--no-audit", "--no-fund", "--loglevel=error"];
  const code = script?.endsWith(".js") ? await run("node", [script, ...options]) : await run("npm", options);
  if (code !== 0) console.error("The npm packages could not be installed; npm's own message stands above.");
  return code;
}

function workspaces() {
  return readJson("package.json").workspaces;
}

/**
 * Whether node_modules has every package that these folders of package-lock.json need ("" is the project itself), in
 * the version that it names.
 */
function arePackagesCurrent(folders) {
  const installedFile = join("node_modules", ".package-lock.json");
  if (!existsSync(join(root, installedFile))) return false;
  const installed = readJson(installedFile).packages;
  const locked = readJson("package-lock.json").packages;
  return packagesOf(locked, folders).every((place) => {
    // Optional packages are builds for other systems; they are absent on purpose.
    return installed[place]?.version === locked[place].version || (!(place in installed) && locked[place].optional);
  });
}

function readJson(name) {
  return JSON.parse(readFileSync(join(root, name), "utf8"));
}

/** Lint and types side by side, then the tests where neither fails; the last line is the count. */
async function runTests() {
  const checks = [
    ["Lint and format", [toolPath("@biomejs/biome", "biome"), "check", "."]],
    ["Types", [join("scripts", "build.mjs"), "types"]],
    ["Structure", ["--import", "tsx", join("scripts", "structure.ts")]],
  ];
  const codes = await Promise.all(checks.map(([, words]) => run("node", words)));
  const broken = codes.findIndex((code) => code !== 0);
  if (broken >= 0) {
    console.error(`${checks[broken][0]}: failed. "npm run format" mends layout; the tests were not run.`);
    console.log("0 passed, 1 failed");
    return codes[broken];
  }
  // Tests that are named run in one process; all of them in several, side by side.
  const runs = extra.length > 0 ? [runVitest("named", extra)] : await runGroups();
  const results = await Promise.all(runs);
  const sum = (key) => results.reduce((total, result) => total + result[key], 0);
  // Once more at the end, where whoever sees the last lines alone finds them.
  for (const line of results.flatMap((result) => result.failures)) console.log(line);
  const [passed, failed, skipped] = ["passed", "failed", "skipped"].map(sum);
  console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`);
  const code = results.find((result) => result.code !== 0)?.code ?? 0;
  return code === 0 && failed > 0 ? 1 : code;
}

/**
 * The groups of vitest.config.ts, as many at a time as there are cores, two at least: more than that push each other out
 * of the caches. The lines of each follow those of the one before, so that each is read whole.
 */
async function runGroups() {
  const groups = ["device", "commands", "kernels", "host"];
  const together = Math.min(groups.length, Math.max(2, availableParallelism()));
  console.log(
    `The tests run in ${groups.length} groups, ${together} at a time; the lines of each follow those of the one before.`,
  );
  const newer = await newerLavapipe();
  const nodes = { device: newer, kernels: newer };
  const kept = groups.map(() => []);
  let shown = 0;
  const tellers = groups.map((_, at) => (line) => (at === shown ? console.log(line) : kept[at].push(line)));
  const results = [];
  let waiting = 0;
  const lane = async () => {
    while (waiting < groups.length) {
      const at = waiting++;
      const [name, tell] = [groups[at], at === 0 ? undefined : tellers[at]];
      results[at] = await runVitest(name, ["--project", name], tell, nodes[name]);
      ended[at]();
    }
  };
  const ended = [];
  const ends = groups.map((_, at) => new Promise((end) => (ended[at] = end)));
  const lanes = Array.from({ length: together }, lane);
  for (const at of groups.keys()) {
    shown = at;
    for (const line of kept[at]) console.log(line);
    await ends[at];
  }
  await Promise.all(lanes);
  return results;
}

/**
 * The Node of the groups that compile the most kernels: on a machine without a GPU one whose adapter is Mesa 26's
 * lavapipe, where that can be brought. It takes a third of the time; everything else is tested on the adapter that users
 * of such a machine get. KTO_ADAPTER keeps all tests on the one that it names.
 */
async function newerLavapipe() {
  if (process.env.KTO_ADAPTER !== undefined || process.platform !== "linux") return "node";
  const adapterOf = async (node) => {
    let line = "";
    const tell = (told) => {
      line += told;
    };
    const code = await run(node, ["--import", "tsx", "scripts/adapter.ts"], () => true, tell);
    return code === 0 ? line : "";
  };
  if (!/^Adapter: (lavapipe|swiftshader)/.test(await adapterOf("node"))) return "node";
  const brought = await run(join(root, "scripts", "newer-lavapipe.sh"), [NEWER_LAVAPIPE], undefined, () => undefined);
  const node = join(NEWER_LAVAPIPE, "node");
  const adapter = brought === 0 ? await adapterOf(node) : "";
  if (!adapter.startsWith("Adapter: lavapipe")) {
    console.error("warning: Mesa 26's lavapipe could not be brought; the kernels' tests take three times as long.");
    return "node";
  }
  console.log(`Kernels and what trains with them in the tests' own processes run on a newer one. ${adapter}`);
  return node;
}

/** @param tell takes the lines on stdout; without it stdout stays the terminal that it was */
async function runVitest(name, options, tell, node = "node") {
  const report = join(root, ".cache", `vitest-${name}.json`);
  mkdirSync(dirname(report), { recursive: true });
  rmSync(report, { force: true });
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${report}`];
  const code = await run(node, [toolPath("vitest", "vitest"), "run", ...reporters, ...options], nativeNoise(), tell);
  return { code, ...countTests(report, code, name) };
}

function countTests(report, code, name) {
  const none = { passed: 0, failed: 1, skipped: 0, failures: [`Failed: group ${name} ended with code ${code}.`] };
  if (!existsSync(report)) return none;
  const result = JSON.parse(readFileSync(report, "utf8"));
  const passed = result.numPassedTests;
  // A file that cannot even be loaded has no test in it to fail.
  const failures = result.testResults.flatMap((file) => {
    const tests = file.assertionResults.filter((test) => test.status === "failed");
    const place = relative(root, file.name);
    if (tests.length === 0) return file.status === "failed" ? [failureLine(place, file.message)] : [];
    return tests.map((test) => failureLine(`${place}: ${test.fullName}`, test.failureMessages[0] ?? ""));
  });
  if (code !== 0 && failures.length === 0) failures.push(`Failed: group ${name} ended with code ${code}.`);
  return { passed, failed: failures.length, skipped: result.numPendingTests + result.numTodoTests, failures };
}

/** Where a test failed and the first lines of why. */
function failureLine(place, message) {
  const lines = message.split("\n").filter((line) => line.trim() !== "");
  return [`Failed: ${place}`, ...lines.slice(0, 6).map((line) => `  ${line.slice(0, 200)}`)].join("\n");
}

/** The command-line script of an installed package, so that no shell and no PATH is needed to start it. */
function toolPath(packageName, tool) {
  const manifest = join(root, "node_modules", packageName, "package.json");
  const { bin } = createRequire(import.meta.url)(manifest);
  return join(dirname(manifest), typeof bin === "string" ? bin : bin[tool]);
}

/**
 * Runs a program in the project folder and returns its exit code. "node" is this Node. Lines on stderr for which
 * `drop` is true are left out; without `drop` stderr stays the terminal that it was. So does stdout without `tell`.
 * `starting` is said where the program has neither ended nor told that it begins (by a message) within 1.5 s.
 */
function run(program, options, drop, tell, starting) {
  return new Promise((resolve) => {
    const streams = ["inherit", tell === undefined ? "inherit" : "pipe", drop === undefined ? "inherit" : "pipe"];
    const child = spawn(program === "node" ? process.execPath : program, options, {
      cwd: root,
      stdio: starting === undefined ? streams : [...streams, "ipc"],
      shell: program !== "node" && process.platform === "win32",
    });
    if (child.stderr !== null && drop !== undefined) {
      createInterface({ input: child.stderr }).on("line", (line) => {
        if (!drop(line)) process.stderr.write(`${line}\n`);
      });
    }
    if (child.stdout !== null && tell !== undefined) createInterface({ input: child.stdout }).on("line", tell);
    const silent = starting === undefined ? undefined : setTimeout(() => console.log(starting), 1500);
    child.on("message", () => clearTimeout(silent));
    child.on("error", (error) => {
      clearTimeout(silent);
      console.error(`${program} could not be started: ${error.message}.`);
      resolve(1);
    });
    // "close", not "exit": what the child still had to say is out by then.
    child.on("close", (code, signal) => {
      clearTimeout(silent);
      resolve(code ?? (signal === "SIGINT" ? 130 : 1));
    });
  });
}
