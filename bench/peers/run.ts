/**
 * Runs other engines on the same work, each in its own process. Their programs stand beside this file in a checkout;
 * the published package does not contain them, and then nothing is compared.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { packageFolder } from "../../src/engine/platform/node-package.ts";
import { runNode } from "../../src/engine/platform/node-program.ts";
import { installedVersion } from "../../src/engine/platform/node-versions.ts";
import type { PeerResult, PeerWork } from "../measure/peer-work.ts";

/** The programs, and the package that each measures. */
const PEERS = { "jax-js": "@jax-js/jax", tfjs: "@tensorflow/tfjs-backend-webgpu" } as const;
const LONGEST_SECONDS = 20 * 60;

function peersHere(): [name: string, program: string, version: string][] {
  return Object.entries(PEERS).flatMap(([name, packageName]) => {
    const program = join(packageFolder, "bench", "peers", `${name}.ts`);
    const version = installedVersion(packageName);
    return existsSync(program) && version !== null ? [[name, program, version] as [string, string, string]] : [];
  });
}

export function peerVersions(): Record<string, string> {
  return Object.fromEntries(peersHere().map(([name, , version]) => [name, version]));
}

/** Runs every peer that is here, one after another, on the adapter that `selector` means. */
export function peerRunner(
  selector: string | undefined,
  debug: (text: string) => void,
): (work: PeerWork) => Promise<Record<string, PeerResult>> {
  return async (work) => {
    const results: Record<string, PeerResult> = {};
    for (const [name, program] of peersHere()) {
      const words = ["--import", "tsx", program, JSON.stringify({ work, adapter: selector })];
      const { stdout, stderr, failure } = await runNode(words, { cwd: packageFolder, seconds: LONGEST_SECONDS });
      if (stderr !== "") debug(`${program}: ${stderr}`);
      const result = failure === undefined ? answerIn(stdout) : { error: failure };
      if (result !== null) results[name] = result;
    }
    return results;
  };
}

/** A peer's last line on stdout is its result; null if it cannot do this kind of work. */
function answerIn(stdout: string): PeerResult | null {
  try {
    return JSON.parse(stdout.trim().split("\n").at(-1) ?? "") as PeerResult | null;
  } catch {
    return { error: "it gave no answer" };
  }
}
