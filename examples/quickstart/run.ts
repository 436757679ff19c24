/**
 * The quickstart: aligns stories260K, a real small Llama, with thumbs on its own stories, and shows what came of it
 * (align.ts). `npm run quickstart`. Exits with 1 when the run does not show what it promises.
 */
import { resolve } from "node:path";
import { Output } from "../../src/cli/terminal/output.ts";
import { KtoError } from "../../src/index.ts";
import { align, wholeRun } from "./align.ts";

// To scripts/bootstrap.mjs, which says that the program is starting where loading it takes long.
process.send?.("begins");
process.disconnect?.();

async function main(): Promise<boolean> {
  const { stdout } = process;
  // All of it to stdout, since npm's scripts may read stderr.
  const output = new Output({ stdout, stderr: stdout }, { json: false, log_level: "info" });
  const { failures } = await align(wholeRun, resolve(process.cwd(), "out", "quickstart"), output);
  if (failures.length > 0) process.stderr.write(`error: this run shows less than it should: ${failures.join("; ")}.\n`);
  return failures.length === 0;
}

if (process.argv.length > 2) {
  process.stderr.write(
    `error: the quickstart takes no options (found "${process.argv[2]}"); the environment variable KTO_ADAPTER chooses the adapter.\n`,
  );
  process.exitCode = 2;
} else {
  try {
    if (!(await main())) process.exitCode = 1;
  } catch (error) {
    if (!(error instanceof KtoError)) throw error;
    process.stderr.write(`error: ${error.message}\n`);
    process.exitCode = error.exitCode;
  }
}
