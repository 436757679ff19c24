/**
 * Four groups of test files, each one process with one module graph; `npm test` runs as many at a time as there are
 * cores. "kernels" and "device" hold what computes on the adapter in the test's own process, single kernels and all that
 * is above them: compiling a kernel costs 0.5 to 2 seconds on a software adapter, so a device and its pipelines are
 * opened once and shared. "commands" runs and starts commands; "host" is the rest, which hardly uses an adapter. A test
 * leaves no global state behind.
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { defineConfig } from "vitest/config";

// Commands under test keep what they cache in a folder of this run, never in the user's.
const cache = mkdtempSync(join(tmpdir(), "kto-cache-"));
process.on("exit", () => rmSync(cache, { recursive: true, force: true }));

const kernels = ["test/kernels/**/*.test.ts"];
const commands = ["test/{bin,cli,examples,scripts}/**/*.test.ts"];
const host = [
  "test/*.test.ts",
  "test/engine/{files,hub,platform,text}/**/*.test.ts",
  "test/engine/model/export/**/*.test.ts",
  "test/engine/quantized-blocks.test.ts",
  "test/kto/run/publishing.test.ts",
  "test/kto/steep-updates.test.ts",
  "test/dashboard/**/*.test.ts",
  "test/kto/{data,judge,options,report}/**/*.test.ts",
];

export default defineConfig({
  test: {
    projects: [
      {
        extends: true,
        test: { name: "device", include: ["test/**/*.test.ts"], exclude: [...kernels, ...commands, ...host] },
      },
      {
        extends: true,
        test: {
          name: "kernels",
          include: kernels,
          // Most of these run once, on small shapes: lavapipe takes longer for LLVM's passes than they save.
          env: { GALLIVM_PERF: "nopt" },
        },
      },
      { extends: true, test: { name: "commands", include: commands } },
      { extends: true, test: { name: "host", include: host } },
    ],
    pool: "forks",
    maxWorkers: 1,
    fileParallelism: false,
    isolate: false,
    env: { KTO_CACHE: cache },
    ...(process.env.KTO_TEST_PROFILE !== undefined && { runner: "scripts/slow-tests-runner.mjs" }),
    // A fault of Node 20's fetch: where a run takes longer than 300 s, the timer of a connection that is long closed
    // may find its parser collected and throw. It was seen once, on a machine with 20 other jobs.
    onUnhandledError: ({ name, message, stack = "" }) =>
      !(name === "TypeError" && message.includes("deref") && /onParserTimeout.*undici/.test(stack)),
    // For hangs alone: a test's verdict does not depend on the speed of the machine.
    testTimeout: 15 * 60_000,
    hookTimeout: 15 * 60_000,
  },
});
