/** How the report runs in a checkout: by tsx, with vitest and the other engines. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { commit } from "../../src/engine/platform/node-commit.ts";
import { installedVersions } from "../../src/engine/platform/node-versions.ts";
import { peerVersions } from "../peers/run.ts";
import type { Host } from "./host.ts";

const root = join(import.meta.dirname, "..", "..");

/** Files of test/kernels that compute on the device; the others say nothing of an adapter and may read the checkout. */
function kernelTestNames(): string[] {
  const folder = join(root, "test", "kernels");
  return readdirSync(folder)
    .filter((name) => name.endsWith(".test.ts") && readFileSync(join(folder, name), "utf8").includes("sharedDevice("))
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

export const checkout: Host = {
  root,
  command: "npm run gpu-report --",
  out: join("out", "gpu-report"),
  ownOptions: ["--bundle [FILE] measures nothing, but packs all of this for a Linux x64 machine without a checkout"],
  commit: commit(),
  versions: { ...installedVersions(), ...peerVersions() },
  issues: issueTracker(),
  self: ["--import", "tsx", join(root, "scripts", "gpu-report.ts")],
  kto: [join(root, "bin", "kto.js")],
  kernelTests: kernelTestNames(),
  kernelTestCommand: (name, output) => [
    join(root, "node_modules", "vitest", "vitest.mjs"),
    ...["run", `test/kernels/${name}.test.ts`, "--reporter=json", `--outputFile.json=${output}`],
  ],
};
