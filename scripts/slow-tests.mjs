/**
 * Which tests take long: `node scripts/slow-tests.mjs [arguments of vitest]` runs them, all of them or those named, and
 * prints the processor seconds of each file and of the slowest tests, those of processes that they start in a column of
 * their own. Two cores run the whole suite in half of the sum at best. Wall time would also count what else the machine
 * does. Linux only. With KTO_TEST_PROFILE=FILE the figures are kept there, a line of JSON for each test.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const file = process.env.KTO_TEST_PROFILE ?? join(root, ".cache", "slow-tests.jsonl");
mkdirSync(dirname(file), { recursive: true });
rmSync(file, { force: true });
const vitest = ["--import", "tsx", join("node_modules", "vitest", "vitest.mjs"), "run", ...process.argv.slice(2)].slice(
  2,
);
const { status } = spawnSync(process.execPath, vitest, {
  cwd: root,
  stdio: ["ignore", "inherit", "inherit"],
  env: { ...process.env, KTO_TEST_PROFILE: file },
});

const lines = readFileSync(file, "utf8")
  .trimEnd()
  .split("\n")
  .map((line) => JSON.parse(line));
const total = ({ own, children }) => own + children;
const slowestFirst = (a, b) => total(b) - total(a);
const files = lines.filter(({ test }) => test === undefined).sort(slowestFirst);
const tests = lines.filter(({ test }) => test !== undefined).sort(slowestFirst);
const seconds = (number) => number.toFixed(1).padStart(8);
const row = (line, name) =>
  `${seconds(total(line))}${seconds(line.own)}${seconds(line.children)}${seconds(line.wall)}  ${name}`;
console.log("\nprocessor seconds\n     all     own  others    wall");
for (const line of files) console.log(row(line, line.file));
const sum = (key) => files.reduce((total, line) => total + line[key], 0);
console.log(row({ own: sum("own"), children: sum("children"), wall: sum("wall") }, `${files.length} files`));
console.log("\nthe slowest tests");
for (const line of tests.slice(0, 60)) console.log(row(line, `${line.file}: ${line.test}`));
process.exitCode = status ?? 1;
