/**
 * The engine on a second implementation of WebGPU: Deno's, which is wgpu and naga where Node has Dawn and Tint.
 * `node scripts/second-webgpu.mjs` checks the gradients of every fixture there, `... short` those of three families,
 * `... kernels` runs all kernel tests (seven minutes on two cores), `... texts` compiles every text without subgroups
 * that src/kernels can generate. Deno comes from npm into .cache, which `... install` does alone. Exit code 3: Deno
 * could not be installed.
 */
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const version = "2.9.6";
const folder = join(root, ".cache", `deno-${version}`);
const deno = join(folder, "node_modules", ".bin", process.platform === "win32" ? "deno.cmd" : "deno");
const [what = "gradients"] = process.argv.slice(2);

if (!["gradients", "short", "kernels", "texts", "install"].includes(what)) {
  console.error("Usage: node scripts/second-webgpu.mjs [gradients|short|kernels|texts|install]");
  process.exit(2);
}
if (!existsSync(deno)) {
  console.log(`Installing Deno ${version} into ${folder} ...`);
  const options = ["install", "--prefix", folder, "--no-audit", "--no-fund", "--loglevel=error", `deno@${version}`];
  const { status } = spawnSync("npm", options, { stdio: "inherit", shell: process.platform === "win32" });
  if (status !== 0) {
    console.error("Deno could not be installed; npm's own message stands above.");
    process.exit(3);
  }
}
if (what === "install") process.exit(0);
if (what === "kernels") {
  const { status } = inDeno([join("node_modules", "vitest", "vitest.mjs"), "run", "test/kernels"], "inherit");
  process.exit(status ?? 1);
}
if (what === "texts") {
  const texts = join(".cache", "kernel-texts");
  const generate = ["--import", "tsx", join("scripts", "kernel-texts.ts"), texts];
  const { status } = spawnSync("node", generate, { cwd: root, stdio: "inherit" });
  process.exit(status || (inDeno([join("scripts", "deno-texts.mjs"), texts], "inherit").status ?? 1));
}

let failed = 0;
/** LayerNorm and learnt positions; norms of heads and grouped queries; soft caps, windows, GeGLU and scaled embeddings. */
const short = ["gpt2", "qwen3", "gemma2"];
const fixtures = readdirSync(join(root, "test", "fixtures")).filter(
  (name) =>
    existsSync(join(root, "test", "fixtures", name, "policy", "config.json")) &&
    (what === "gradients" || short.includes(name)),
);
for (const name of fixtures) {
  const path = join("test", "fixtures", name);
  const words = ["--model", join(path, "policy"), "--ref_model", join(path, "reference")];
  const { status, stdout, stderr } = inDeno(
    [join("bin", "kto.js"), "gradcheck", ...words, "--dataset", join(path, "data.jsonl"), "--json"],
    "pipe",
  );
  if (name === fixtures[0]) console.log(stderr.trim().split("\n")[0]);
  const report = status === 0 || status === 8 ? JSON.parse(stdout.trim().split("\n").at(-1) ?? "{}") : undefined;
  const passed = report?.passed === true;
  if (!passed) failed++;
  const told =
    report === undefined
      ? `exit code ${status}: ${stderr.trim().split("\n").at(-1)}`
      : `worst gradient tensor ${report.max_relative_error.toExponential(1)} (${report.worst_parameter})`;
  console.log(`${passed ? "passed" : "FAILED"}  ${name.padEnd(18)} ${told}`);
}
console.log(
  `Deno ${version}: the gradients of ${fixtures.length - failed} of ${fixtures.length} fixtures agree with float64.`,
);
process.exit(failed === 0 ? 0 : 1);

function inDeno(args, stdio) {
  return spawnSync(deno, ["run", "--allow-all", "--unstable-webgpu", "--no-check", ...args], {
    cwd: root,
    encoding: "utf8",
    stdio: ["ignore", stdio, stdio],
    env: { ...process.env, DENO_NO_UPDATE_CHECK: "1" },
    maxBuffer: 2 ** 26,
  });
}
