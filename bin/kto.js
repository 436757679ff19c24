#!/usr/bin/env node
/**
 * The `kto` command, also by the name `kto-webgpu`: starts the built code. In a checkout it is built first where a
 * source has changed. No logic of its own; the command line sets the exit code.
 */

import { existsSync } from "node:fs";
import * as nodeModule from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const main = join(root, "dist", "cli.js");
const source = join(root, "src", "cli", "main.ts");

const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  fail(`Node ${process.versions.node} is too old: kto-webgpu needs Node 20.19 or newer (https://nodejs.org).`);
}

if (existsSync(source)) await buildChanges();
else if (!existsSync(main)) fail(`${main} does not exist; install kto-webgpu again.`);
// Node 22.8 and newer keep compiled code between processes; a folder that cannot be written is no error.
nodeModule.enableCompileCache?.();
const { runProcess } = await load(pathToFileURL(main).href);
await runProcess();

/** In a checkout: otherwise yesterday's code would run without a word. */
async function buildChanges() {
  const { buildCode, isCodeBuilt } = await load(pathToFileURL(join(root, "scripts", "build.mjs")).href);
  if (isCodeBuilt(root)) return;
  if (process.stderr.isTTY) console.error("a source has changed: building ...");
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
async function load(specifier) {
  return await import(specifier).catch((error) => {
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
