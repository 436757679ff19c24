/**
 * The quickstart: aligns stories260K, a real small Llama, with thumbs on its own stories, and shows what came of it
 * (align.ts). `npm run quickstart`. Exits with 1 when the run does not show what it promises.
 */
import { resolve } from "node:path";
import { KtoError } from "../../src/index.ts";
import { align, wholeRun } from "./align.ts";

async function main(): Promise<boolean> {
  const live = process.stdout.isTTY === true;
  const { failures } = await align(wholeRun, resolve(process.cwd(), "out", "quickstart"), {
    say: (text) => void process.stdout.write(`${live ? "\r\x1b[K" : ""}${text}\n`),
    tell: (text) => void process.stdout.write(live ? `\r${text}\x1b[K` : ""),
  });
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
