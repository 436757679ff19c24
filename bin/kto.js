#!/usr/bin/env node
/**
 * The `kto` command, also by the name `kto-webgpu`: starts the built code. In a checkout it is built first where a
 * source has changed. No logic of its own; the command line sets the exit code. No ES module (package.json beside it):
 * a help text is there before Node has loaded one.
 */
"use strict";
const { existsSync, readFileSync } = require("node:fs");
const { join } = require("node:path");

const root = join(__dirname, "..");
const main = join(root, "dist", "cli.js");
const source = join(root, "src", "cli", "main.ts");
/** Bytes of addresses below which V8 or the graphics driver ends the process without a word. */
const LEAST_ADDRESSES = 2.6e9;

const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  fail(`Node ${process.versions.node} is too old: kto-webgpu needs Node 20.19 or newer (https://nodejs.org).`);
}
start();

async function start() {
  checkAddresses();
  if (existsSync(source)) await buildChanges();
  else if (!existsSync(main)) fail(`${main} does not exist; install kto-webgpu again.`);
  const help = askedHelp();
  if (help === undefined) return await runCommand();
  // What stdout cannot take is the command's to tell, which meets the same.
  process.stdout.once("error", runCommand);
  process.stdout.write(help);
}

/** The text that the words ask for; undefined where they ask for none. */
function askedHelp() {
  const [quickHelp, pages] = ["quick-help.cjs", "help"].map((name) => join(root, "dist", name));
  if (!existsSync(pages)) return undefined;
  return require(quickHelp).askedHelp(process.argv.slice(2), pages, process.stdout.columns);
}

async function runCommand() {
  // Node 22.8 and newer keep compiled code between processes; a folder that cannot be written is no error.
  require("node:module").enableCompileCache?.();
  const { runProcess } = await load(main);
  await runProcess();
}

/** Linux tells the limit of ulimit -v; reserved addresses count, of which little is ever memory. */
function checkAddresses() {
  if (process.platform !== "linux" || !existsSync("/proc/self/limits")) return;
  const [, limit] = /^Max address space +(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8")) ?? [];
  if (limit === undefined || Number(limit) >= LEAST_ADDRESSES) return;
  // What shows a text needs less.
  if (process.argv.slice(2).some((word) => ["help", "--help", "-h", "--version"].includes(word))) return;
  fail(
    `error: ulimit -v gives this process ${(Number(limit) / 1e9).toFixed(1)} GB of addresses, and it reserves ${LEAST_ADDRESSES / 1e9} GB: allow more of them, such as ulimit -v unlimited.`,
    10,
  );
}

/** In a checkout: otherwise yesterday's code would run without a word. */
async function buildChanges() {
  const { isCodeBuilt } = require(join(root, "scripts", "sources.cjs"));
  if (isCodeBuilt(root)) return;
  if (process.stderr.isTTY) console.error("a source has changed: building ...");
  const { buildCode } = await load(join(root, "scripts", "build.mjs"));
  try {
    await buildCode(root);
  } catch (error) {
    explainLimit(error);
    if (error?.code === "ERR_MODULE_NOT_FOUND") fail(`The packages of ${root} are not installed; run "npm ci" there.`);
    const [fault] = error?.errors ?? [];
    if (fault?.location) fail(`${fault.location.file}:${fault.location.line}: ${fault.text}`);
    fail(`${root} cannot be built: ${error?.message}`);
  }
}

/** An import, whose files Node opens all at once. */
async function load(path) {
  return await import(require("node:url").pathToFileURL(path).href).catch((error) => {
    explainLimit(error);
    throw error;
  });
}

/** Ends with a sentence where this process may not open all files of the program. */
function explainLimit(error) {
  if (error?.code === "EMFILE") fail("Too many files are open: allow more of them, such as ulimit -n 4096.", 10);
}

function fail(message, exitCode = 1) {
  console.error(message);
  process.exit(exitCode);
}
