/**
 * Four groups of test files, each one process with one module graph; `npm test` runs as many at a time as there are
 * cores. "kernels" and "device" hold what computes on the adapter in the test's own process, single kernels and all that
 * is above them: compiling a kernel costs up to seconds on a software adapter, so a device and its pipelines are
 * opened once and shared. "commands" runs and starts commands; "host" is the rest, which hardly uses an adapter. A test
 * leaves no global state behind.
 */

import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statfsSync } from "node:fs";
import { freemem, tmpdir } from "node:os";
import { join } from "node:path";
import { defineConfig } from "vitest/config";

// What the tests write lies in one folder, which goes with them: in memory where there is much of it, since checkpoints
// wait for the disk (fsync) thousands of times. TMPDIR chooses another place.
// vitest reads this file once for each group.
const isFirst = process.env.KTO_TEST_SCRATCH === undefined;
const scratch =
  process.env.KTO_TEST_SCRATCH ??
  mkdtempSync(join(process.env.TMPDIR === undefined && hasRoomInMemory() ? "/dev/shm" : tmpdir(), "kto-"));
if (isFirst) process.on("exit", () => rmSync(scratch, { recursive: true, force: true }));
process.env.KTO_TEST_SCRATCH = scratch;
process.env.TMPDIR = scratch;
// Commands under test keep what they cache there too, never in the user's folder.
const cache = join(scratch, "cache");
mkdirSync(cache, { recursive: true });

/** Whether /dev/shm takes 4 GiB, of 8 that are free, and programs: containers often give it 64 MiB and no programs. */
function hasRoomInMemory(): boolean {
  const GIB = 2 ** 30;
  if (!existsSync("/dev/shm") || freemem() < 8 * GIB) return false;
  const { bavail, bsize } = statfsSync("/dev/shm");
  const [mount = "noexec"] = readFileSync("/proc/mounts", "utf8").match(/^\S+ \/dev\/shm .*$/m) ?? [];
  return bavail * bsize >= 4 * GIB && !mount.includes("noexec");
}

const kernels = ["test/kernels/**/*.test.ts"];
const commands = ["test/{bin,cli,examples,scripts}/**/*.test.ts"];
const host = [
  "test/*.test.ts",
  "test/engine/{files,hub,platform,text}/**/*.test.ts",
  "test/engine/model/export/**/*.test.ts",
  "test/engine/ranks/{pieces,share,sums}.test.ts",
  "test/engine/quantized-blocks.test.ts",
  "test/kto/run/publishing.test.ts",
  "test/kto/steep-updates.test.ts",
  "test/cli/session/ranks.test.ts",
  "test/dashboard/**/*.test.ts",
  "test/kto/{data,judge,options,report}/**/*.test.ts",
];

// Tests compute little, on small shapes: lavapipe takes longer to wake threads than these compute. Where they compute in
// their own processes it also takes longer for LLVM's passes than these save; commands keep them, as users have them.
const ofCommands = { LP_NUM_THREADS: "0" };
const env = { ...ofCommands, GALLIVM_PERF: "nopt" };

export default defineConfig({
  test: {
    projects: [
      {
        extends: true,
        test: { name: "device", include: ["test/**/*.test.ts"], exclude: [...kernels, ...commands, ...host], env },
      },
      { extends: true, test: { name: "kernels", include: kernels, env } },
      { extends: true, test: { name: "commands", include: commands, exclude: host, env: ofCommands } },
      { extends: true, test: { name: "host", include: host } },
    ],
    pool: "forks",
    maxWorkers: 1,
    fileParallelism: false,
    isolate: false,
    // Commands tell of work that lasts; what they print would hang on the speed of the machine.
    env: { KTO_CACHE: cache, KTO_SILENCE: "900" },
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
