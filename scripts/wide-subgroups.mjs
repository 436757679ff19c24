/**
 * The kernels' tests with all shapes at 16, 32 and 64 emulated lanes: `node scripts/wide-subgroups.mjs`. `npm test` runs a
 * sixth of these shapes. The tests print which kernels and tiles ran at how many lanes.
 */
import { spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const options = ["run", "test/kernels", "-t", "emulated|lanes were run", "--disable-console-intercept"];
const { status } = spawnSync("node", [join("node_modules", "vitest", "vitest.mjs"), ...options], {
  cwd: root,
  stdio: "inherit",
  env: { ...process.env, KTO_TEST_SHAPES: "all" },
});
process.exit(status ?? 1);
