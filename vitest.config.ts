/**
 * One process and one module graph for all test files: compiling a kernel costs 0.5 to 2 seconds on a software
 * adapter, so a device and its pipelines are opened once and shared. A test leaves no global state behind.
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { defineConfig } from "vitest/config";

// Commands under test keep what they cache in a folder of this run, never in the user's.
const cache = mkdtempSync(join(tmpdir(), "kto-cache-"));
process.on("exit", () => rmSync(cache, { recursive: true, force: true }));

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    pool: "forks",
    maxWorkers: 1,
    fileParallelism: false,
    isolate: false,
    env: { KTO_CACHE: cache },
    // For hangs alone: a test's verdict does not depend on the speed of the machine.
    testTimeout: 15 * 60_000,
    hookTimeout: 15 * 60_000,
  },
});
