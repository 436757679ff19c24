/**
 * Damages files of every kind that is read, thousands of times, and reads them: each must be taken or refused with a
 * KtoError, within time and memory. Inputs run in a process of their own, which is ended when one of them hangs.
 *
 *     npx tsx scripts/fuzz.ts [--count 10000] [--seed 1] [--kind jsonl] [--from 0]
 *
 * Exit code 1 if any input was handled otherwise; each is named with the options that repeat it alone.
 */
import { fork } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { FUZZ_KINDS, Fuzzer, type FuzzOutcome } from "../test/helpers/fuzz.ts";

/** An input that is not done after this long on the clock hangs. */
const HANG_MS = 60_000;
/** V8's heap in the process of the inputs, MiB; beyond it the process dies, which is a violation. */
const HEAP_MIB = 1024;

interface Job {
  readonly kind: string;
  readonly seed: number;
  readonly from: number;
  readonly to: number;
  readonly folder: string;
}

interface Report extends FuzzOutcome {
  readonly input: number;
}

/** In the child: one input after another. */
async function work({ kind, seed, from, to, folder }: Job): Promise<void> {
  const fuzzer = await Fuzzer.open(kind, folder);
  for (let input = from; input < to; input++) {
    const outcome = await fuzzer.run(seed, input);
    await new Promise<void>((resolve) => process.send?.({ input, ...outcome } satisfies Report, () => resolve()));
  }
  process.disconnect();
}

/** Runs inputs in a child until it ends; the input at which it hung or died, if it did. */
async function runChild(
  job: Job,
  onReport: (report: Report) => void,
): Promise<{ at: number; how: string } | undefined> {
  const child = fork(import.meta.filename, [], {
    env: { ...process.env, KTO_FUZZ_JOB: JSON.stringify(job) },
    execArgv: [...process.execArgv, `--max-old-space-size=${HEAP_MIB}`],
    stdio: ["ignore", "ignore", "pipe", "ipc"],
  });
  let next = job.from;
  let hung = false;
  let text = "";
  const kill = () => {
    hung = true;
    child.kill("SIGKILL");
  };
  let clock = setTimeout(kill, HANG_MS);
  child.stderr?.on("data", (chunk) => {
    text = `${text}${String(chunk)}`.slice(-2000);
  });
  child.on("message", (report: Report) => {
    clearTimeout(clock);
    clock = setTimeout(kill, HANG_MS);
    next = report.input + 1;
    onReport(report);
  });
  const code = await new Promise<number | null>((resolve) => child.on("close", resolve));
  clearTimeout(clock);
  if (code === 0 && next === job.to) return undefined;
  return { at: next, how: hung ? `did not end within ${HANG_MS} ms` : `ended the process (${code}): ${text.trim()}` };
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      count: { type: "string", default: "10000" },
      seed: { type: "string", default: "1" },
      from: { type: "string", default: "0" },
      kind: { type: "string" },
    },
  });
  const kinds = values.kind === undefined ? Object.keys(FUZZ_KINDS) : [values.kind];
  const each = Math.ceil(Number(values.count) / kinds.length);
  const [seed, from] = [Number(values.seed), Number(values.from)];
  const violations: string[] = [];
  let total = 0;
  const folder = mkdtempSync(join(tmpdir(), "kto-fuzz-"));
  try {
    console.log(
      `${"kind".padEnd(26)}${"inputs".padStart(8)}${"refused".padStart(9)}${"accepted".padStart(10)}${"slowest ms".padStart(12)}`,
    );
    for (const kind of kinds) {
      const counts = { refused: 0, accepted: 0 };
      let slowest = 0;
      let at = from;
      const note = (input: number, what: string) =>
        violations.push(`--kind "${kind}" --seed ${seed} --from ${input} --count 1\n  ${what}`);
      while (at < from + each) {
        const ended = await runChild(
          { kind, seed, from: at, to: from + each, folder: join(folder, "files") },
          (report) => {
            counts[report.result]++;
            slowest = Math.max(slowest, report.ms);
            if (report.violation !== undefined) note(report.input, report.violation);
          },
        );
        if (ended === undefined) break;
        note(ended.at, ended.how);
        at = ended.at + 1;
      }
      total += each;
      console.log(
        `${kind.padEnd(26)}${String(each).padStart(8)}${String(counts.refused).padStart(9)}${String(counts.accepted).padStart(10)}${slowest.toFixed(0).padStart(12)}`,
      );
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  for (const violation of violations) console.log(`\n${violation}`);
  console.log(`\n${total} inputs, ${violations.length} violations`);
  if (violations.length > 0) process.exitCode = 1;
}

const job = process.env.KTO_FUZZ_JOB;
if (job === undefined) await main();
else await work(JSON.parse(job) as Job);
