/** Runs a program in a Node of its own, to its end or for a limited time, and collects what it says. */
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  /** Standard error; of a long one only the end need be kept. */
  readonly stderr: string;
  /** Why it counts as failed; undefined where it exited with 0. */
  readonly failure: string | undefined;
  /** Whether it was ended because its time was over. */
  readonly late: boolean;
}

/** Runs `node` with these words, for at most this long. `onLine` is told every line of its stdout as it comes. */
export async function runNode(
  words: readonly string[],
  options: { readonly cwd: string; readonly seconds: number; readonly onLine?: (line: string) => void },
): Promise<Ended> {
  const child = spawn(process.execPath, words, { cwd: options.cwd, stdio: ["ignore", "pipe", "pipe"] });
  const lines: string[] = [];
  let said = "";
  createInterface({ input: child.stdout }).on("line", (line) => {
    lines.push(line);
    options.onLine?.(line);
  });
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
  const stderr = said.trim();
  const failure = reason && `${reason}${stderr === "" ? "" : `: ${stderr.split("\n").at(-1)}`}`;
  return { code, stdout: lines.join("\n"), stderr, failure, late };
}
