/**
 * The kernels' tests at 16, 32 and 64 lanes, on the machine of test/helpers/wgsl: `node scripts/wide-subgroups.mjs [test
 * files]`; with KTO_TEST_SHAPES=all every drawn shape instead of a sixth. The tests print which kernels and tiles ran at
 * how many lanes; the last line counts them.
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
const { status, stdout } = spawnSync("node", [join("node_modules", "vitest", "vitest.mjs"), ...options], {
  cwd: root,
  encoding: "utf8",
  stdio: ["ignore", "pipe", "inherit"],
  maxBuffer: 2 ** 28,
  env: { KTO_TEST_LANES: "16,32,64", ...process.env },
});
process.stdout.write(stdout);
const ran = [...stdout.matchAll(/^(\w+)(?: (\w+))? at ([\d, ]+) emulated lanes$/gm)];
const kernels = new Set(ran.map(([, kernel]) => kernel));
const widths = new Set(ran.flatMap(([, , , lanes]) => lanes.split(", ")));
const texts = ran.reduce((sum, [, , , lanes]) => sum + lanes.split(", ").length, 0);
console.log(`${kernels.size} kernels x ${widths.size} lane widths, ${ran.length} tiles, ${texts} tiles x widths`);
process.exit(status ?? 1);
