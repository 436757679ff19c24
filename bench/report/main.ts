/** `npm run gpu-report`: the report from a checkout. `--bundle [FILE]` packs it for a machine that has none (bundle/). */
import { readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { peerVersions } from "../../src/cli/session/bench-peers.ts";
import { commit, installedVersions } from "../../src/cli/terminal/versions.ts";
import type { Host } from "./host.ts";
import { reportCommand } from "./report.ts";

const root = join(import.meta.dirname, "..", "..");

/** Files of test/kernels that run kernels; the texts' snapshots say nothing of an adapter. */
function kernelTestNames(): string[] {
  return readdirSync(join(root, "test", "kernels"))
    .filter((name) => name.endsWith(".test.ts") && name !== "texts.test.ts")
    .map((name) => name.replace(/\.test\.ts$/, ""))
    .sort();
}

/** The issue tracker that package.json names. */
function issueTracker(): string | null {
  const { bugs } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
    bugs?: string | { url?: string };
  };
  return (typeof bugs === "string" ? bugs : bugs?.url) ?? null;
}

const host: Host = {
  root,
  command: "npm run gpu-report --",
  out: join("out", "gpu-report"),
  commit: commit(),
  versions: { ...installedVersions(), ...peerVersions() },
  issues: issueTracker(),
  self: ["--import", "tsx", join(root, "bench", "report", "main.ts")],
  kto: [join(root, "bin", "kto.js")],
  kernelTests: kernelTestNames(),
  kernelTestCommand: (name, output) => [
    join(root, "node_modules", "vitest", "vitest.mjs"),
    ...["run", `test/kernels/${name}.test.ts`, "--reporter=json", `--outputFile.json=${output}`],
  ],
};

const [first, file = join("out", "kto-gpu-report.sh"), ...rest] = process.argv.slice(2);
if (first !== "--bundle") process.exitCode = await reportCommand(process.argv.slice(2), host);
else if (rest.length > 0 || file.startsWith("-")) {
  console.error("error: --bundle stands alone or before the name of the file to write.");
  process.exitCode = 2;
} else {
  // esbuild is loaded for this alone.
  const { packBundle } = await import("./bundle/pack.ts");
  const bytes = await packBundle(file, host);
  console.log(`${file}: ${(bytes / 2 ** 20).toFixed(1)} MiB. On the other machine: sh ${basename(file)}`);
}
