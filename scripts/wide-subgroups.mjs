/**
 * The kernels' tests at 16, 32 and 64 emulated lanes: `node scripts/wide-subgroups.mjs [test files]`; with
 * KTO_TEST_SHAPES=all every shape instead of a sixth. The tests print which kernels and tiles ran at how many lanes.
 */
import { spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const files = process.argv.slice(2);
const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const options = [
  "run",
  ...(files.length > 0 ? files : ["test/kernels"]),
  "-t",
  "emulated|lanes were run",
  "--disable-console-intercept",
];
const { status } = spawnSync("node", [join("node_modules", "vitest", "vitest.mjs"), ...options], {
  cwd: root,
  stdio: "inherit",
  env: { KTO_TEST_LANES: "16,32,64", ...process.env },
});
process.exit(status ?? 1);
