#!/usr/bin/env node
/**
 * The `kto` command: built code where there is any, else the sources through tsx. No logic of its own; the command
 * line sets the exit code.
 */

import { existsSync, readdirSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const built = join(root, "dist", "src", "cli", "main.js");
const source = join(root, "src", "cli", "main.ts");

const TOO_LITTLE =
  "The system gives this process too little memory to start: free some, or raise its limit (ulimit -v).";

const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  fail(`Node ${process.versions.node} is too old: kto-webgpu needs Node 20.19 or newer (https://nodejs.org).`);
}

if (existsSync(built) && !(existsSync(source) && newestSource() > statSync(built).mtimeMs)) {
  await run(built);
} else if (existsSync(source)) {
  process.on("uncaughtException", failedToLoad); // tsx rejects promises that nobody waits for
  process.on("exit", endedInLoading); // Node's thread for tsx may end the process without a word
  const tsx = await load("tsx/esm/api").catch(() => undefined);
  if (tsx === undefined) fail(`The packages of ${root} are not installed; run "npm ci" there.`);
  tsx.register();
  await run(source);
} else {
  fail(`Neither ${built} nor ${source} exists; install kto-webgpu again.`);
}

async function run(main) {
  const { runProcess } = await load(pathToFileURL(main).href);
  process.off("uncaughtException", failedToLoad);
  process.off("exit", endedInLoading);
  await runProcess();
}

/** An import, whose files Node opens all at once. */
async function load(specifier) {
  return await import(specifier).catch((error) => {
    explainLimit(error);
    throw error;
  });
}

/** Ends with a sentence where the system gives this process too little to load the program. */
function explainLimit(error) {
  if (error?.code === "EMFILE") fail("Too many files are open: allow more of them, such as ulimit -n 4096.", 10);
  if (error instanceof RangeError && /out of memory|could not allocate/i.test(error.message)) {
    fail(TOO_LITTLE, 10);
  }
}

function endedInLoading(code) {
  if (code !== 1) return;
  console.error(TOO_LITTLE);
  process.exitCode = 10;
}

function failedToLoad(error) {
  explainLimit(error);
  process.off("exit", endedInLoading);
  console.error(error);
  process.exit(1);
}

/** In a checkout a build that is older than the sources would run yesterday's code without a word. */
function newestSource() {
  const folders = [join(root, "src"), join(root, "bench")].filter((folder) => existsSync(folder));
  return Math.max(...folders.map(newestChange));
}

function newestChange(folder) {
  let newest = 0;
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    newest = Math.max(newest, entry.isDirectory() ? newestChange(path) : statSync(path).mtimeMs);
  }
  return newest;
}

function fail(message, exitCode = 1) {
  process.off("exit", endedInLoading);
  console.error(message);
  process.exit(exitCode);
}
