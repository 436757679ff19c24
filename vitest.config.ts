/**
 * One process and one module graph for all test files: compiling a kernel costs 0.5 to 2 seconds on a software
 * adapter, so a device and its pipelines are opened once and shared. A test leaves no global state behind.
 */

import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    pool: "forks",
    maxWorkers: 1,
    fileParallelism: false,
    isolate: false,
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
