/**
 * Runs other engines on the same work, each in its own process. Their programs are in bench/peers of a checkout; the
 * published package does not contain them, and then nothing is compared.
 */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { PeerResult, PeerWork } from "../../../bench/measure/peer-work.ts";
import { packageFolder } from "../../engine/platform/node-package.ts";
import { errorMessage } from "../../errors.ts";
import { installedVersion } from "../terminal/versions.ts";

/** The programs, and the package that each measures. */
const PEERS = { "jax-js": "@jax-js/jax", tfjs: "@tensorflow/tfjs-backend-webgpu" } as const;
const LONGEST_MS = 20 * 60 * 1000;

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
      const result = await runPeer(program, work, selector, debug);
      if (result !== undefined) results[name] = result;
    }
    return results;
  };
}

/** Runs one peer, whose last line on stdout is the result; undefined if it cannot do this kind of work. */
async function runPeer(
  program: string,
  work: PeerWork,
  selector: string | undefined,
  debug: (text: string) => void,
): Promise<PeerResult | undefined> {
  const child = spawn(process.execPath, ["--import", "tsx", program, JSON.stringify({ work, adapter: selector })], {
    cwd: packageFolder,
    stdio: ["ignore", "pipe", "pipe"],
    timeout: LONGEST_MS,
  });
  const [out, err] = [[] as string[], [] as string[]];
  child.stdout.setEncoding("utf8").on("data", (text: string) => out.push(text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => err.push(text));
  const ended = await new Promise<string | undefined>((resolve) => {
    child.on("error", (error) => resolve(errorMessage(error)));
    child.on("close", (code, signal) => {
      if (signal === "SIGTERM") resolve(`it took more than ${LONGEST_MS / 60000} minutes`);
      else resolve(code === 0 ? undefined : `its process ended with ${signal ?? `code ${code}`}`);
    });
  });
  const said = err.join("").trim();
  if (said !== "") debug(`${program}: ${said}`);
  if (ended !== undefined) return { error: `${ended}${said === "" ? "" : ` (${said.split("\n").at(-1)})`}` };
  try {
    const answer = JSON.parse(out.join("").trim().split("\n").at(-1) ?? "") as PeerResult | null;
    return answer ?? undefined;
  } catch {
    return { error: "it gave no answer" };
  }
}
