/**
 * How long commands say nothing: runs one through a pipe and on a terminal, notes when each piece of output comes, and
 * tells the pauses over two seconds with the line before them. Not in tests, which measure no time.
 *
 *     npx tsx scripts/silence.ts [pipe|terminal] COMMAND [ARGUMENT...]
 */
import { spawn } from "node:child_process";

const LONGEST_MS = 2000;

const [first = "", ...rest] = process.argv.slice(2);
const isOneWay = first === "pipe" || first === "terminal";
const command = isOneWay ? rest : [first, ...rest];
if (command.join("") === "") {
  console.error("Usage: npx tsx scripts/silence.ts [pipe|terminal] COMMAND [ARGUMENT...]");
  process.exit(2);
}

/** What the shell takes for this word. */
const quoted = (word: string) => `'${word.replaceAll("'", "'\\''")}'`;

/** The text of a piece of output that a terminal would show last. */
function lastLine(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: a terminal's own
  const plain = text.replaceAll(/\x1b\[[0-9;?]*[A-Za-z]/g, "");
  return (plain.split(/[\r\n]/).findLast((line) => line.trim() !== "") ?? "").trim().slice(0, 100);
}

async function run(how: "pipe" | "terminal"): Promise<void> {
  const line = command.map(quoted).join(" ");
  const [program, words] =
    how === "pipe"
      ? ["sh", ["-c", line]]
      : (["script", ["-qec", `stty cols 100 rows 30; ${line}`, "/dev/null"]] as const);
  const began = performance.now();
  const child = spawn(program, words, {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, TERM: "xterm-256color" },
  });
  let at = began;
  let before = "(the start)";
  const pauses: string[] = [];
  let longest = 0;
  const heard = (text: string) => {
    const now = performance.now();
    longest = Math.max(longest, now - at);
    if (now - at > LONGEST_MS) {
      pauses.push(
        `  ${((now - at) / 1000).toFixed(1)} s, from second ${((at - began) / 1000).toFixed(1)} on, behind: ${before}`,
      );
    }
    at = now;
    before = lastLine(text) || before;
  };
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8");
    stream.on("data", heard);
  }
  const code = await new Promise<number | null>((resolve) => child.on("close", resolve));
  heard("");
  console.log(
    `${how.padEnd(8)} ${command.join(" ").slice(0, 120)}: exit ${code}, ${((at - began) / 1000).toFixed(1)} s, longest pause ${(longest / 1000).toFixed(1)} s`,
  );
  for (const pause of pauses) console.log(pause);
}

for (const how of isOneWay ? [first] : (["pipe", "terminal"] as const)) await run(how as "pipe" | "terminal");
