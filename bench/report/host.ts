/** How the report starts programs, which differs between a checkout and the bundle, and what it knows of itself. */
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

export interface Host {
  /** The folder with test/fixtures and package.json. */
  readonly root: string;
  /** How a user starts the report, and where its files go unless told otherwise. */
  readonly command: string;
  readonly out: string;
  /** Lines of the usage for options that only this host has. */
  readonly ownOptions: readonly string[];
  readonly commit: string | null;
  readonly versions: Readonly<Record<string, string | null>>;
  /** Where to send the report; null where package.json names no issue tracker. */
  readonly issues: string | null;
  /** Words after `node` that start the report again, to run one part. */
  readonly self: readonly string[];
  /** The same of the `kto` command. */
  readonly kto: readonly string[];
  /** Names of the kernel test files, e.g. "matmul". */
  readonly kernelTests: readonly string[];
  /** Words after `node` that run one file of tests and write vitest's JSON report to `output`. */
  readonly kernelTestCommand: (name: string, output: string) => readonly string[];
}

export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  /** Why it counts as failed; undefined where it exited with 0. */
  readonly failure: string | undefined;
}

/** Runs `node` with these words, for at most this long. `onLine` is told every line of its stdout as it comes. */
export async function runNode(
  words: readonly string[],
  options: { readonly cwd: string; readonly seconds: number; readonly onLine?: (line: string) => void },
): Promise<Ended> {
  const child = spawn(process.execPath, words, {
    cwd: options.cwd,
    stdio: ["ignore", "pipe", "pipe"],
    env: process.env,
  });
  const lines: string[] = [];
  let said = "";
  createInterface({ input: child.stdout }).on("line", (line) => {
    lines.push(line);
    options.onLine?.(line);
  });
  // The end of what it said is enough, and it may say much.
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    said = (said + text).slice(-10_000);
  });
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    child.kill("SIGKILL");
  }, 1000 * options.seconds);
  const { code, reason } = await new Promise<{ code: number | null; reason: string | undefined }>((resolve) => {
    child.on("error", (error) => resolve({ code: null, reason: error.message }));
    child.on("close", (code, signal) => {
      if (late) resolve({ code, reason: `it was ended after ${Math.round(options.seconds)} s` });
      else resolve({ code, reason: code === 0 ? undefined : `its process ended with ${signal ?? `code ${code}`}` });
    });
  });
  clearTimeout(timer);
  const last = said.trim().split("\n").at(-1) ?? "";
  const failure = reason === undefined ? undefined : `${reason}${last === "" ? "" : `: ${last}`}`;
  return { code, stdout: lines.join("\n"), failure };
}
