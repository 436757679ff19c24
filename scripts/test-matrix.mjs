/**
 * Products and attention on subgroup matrices, executed: brings Mesa 26's lavapipe into a folder of its own
 * (`newer-lavapipe.sh`) and runs there the kernels' tests, the gradients of every fixture, and training runs that are
 * resumed, with every product on matrices. `node scripts/test-matrix.mjs` runs all of it, `... short` one layout, one
 * fixture and one run, in about a minute. Exit code 3: that Mesa could not be brought.
 */
import { spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const [what = "all"] = process.argv.slice(2);
if (!["all", "short"].includes(what)) {
  console.error("Usage: node scripts/test-matrix.mjs [short]");
  process.exit(2);
}

const brought = spawnSync(join(root, "scripts", "newer-lavapipe.sh"), [join(root, ".cache", "newer-lavapipe")], {
  encoding: "utf8",
  stdio: ["ignore", "pipe", "inherit"],
});
if (brought.status !== 0) process.exit(3);
const node = brought.stdout.trim().split("\n").at(-1) ?? "";

const files = [
  "test/engine/gpu/matrices.test.ts",
  "test/kernels/matmul-matrix.test.ts",
  "test/kernels/attention-matrix.test.ts",
  "test/kernels/log-softmax-gather.test.ts",
  "test/bench/peaks.test.ts",
  "test/kto/bf16.test.ts",
];
const names =
  what === "short"
    ? "matmulNT on matrices .*(split operands|odd shapes)|NT where four|not finite|attention on matrices, .?f32.?, .?split.* forward|llama on matrices|resumed to the same bits.*true"
    : "^(?!.*emulated).*(matri|four subgroups|scaled again|not finite)";
const { status } = spawnSync(
  node,
  [join("node_modules", "vitest", "vitest.mjs"), "run", ...files, "-t", names, "--disable-console-intercept"],
  {
    cwd: root,
    stdio: ["ignore", "inherit", "inherit"],
    env: { ...process.env, KTO_TUNING: "matrices", KTO_ADAPTER: "lavapipe" },
  },
);
process.exit(status ?? 1);
