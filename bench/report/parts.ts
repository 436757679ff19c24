/**
 * The parts of a report in their order, the time of each, and how one is run: in a process of its own, so that a driver
 * that dies takes one part with it.
 */
import { runNode } from "../../src/engine/platform/node-program.ts";
import { adapterPart } from "./adapter.ts";
import { benchmarksPart } from "./benchmarks.ts";
import { doctorPart, gradientsPart, kernelTestsPart } from "./checks.ts";
import type { Finding, PartContext, PartReport } from "./finding.ts";
import { generationPart } from "./generation.ts";
import type { Host } from "./host.ts";
import { trainingPart } from "./training.ts";

interface Part {
  readonly name: string;
  readonly title: string;
  /** The part's share of the whole report's time. What a part does not need goes to the parts behind it. */
  readonly share: number;
  readonly run: (context: PartContext, emit: (finding: Finding) => void, host: Host) => Promise<void>;
}

export const parts: readonly Part[] = [
  { name: "doctor", title: "kto doctor", share: 0.02, run: doctorPart },
  { name: "adapter", title: "Adapter and peaks", share: 0.05, run: adapterPart },
  { name: "gradients", title: "Gradients", share: 0.1, run: gradientsPart },
  { name: "kernel-tests", title: "Kernel tests", share: 0.2, run: kernelTestsPart },
  { name: "training", title: "Training", share: 0.33, run: trainingPart },
  { name: "generation", title: "Generation", share: 0.08, run: generationPart },
  { name: "benchmarks", title: "Benchmarks", share: 0.22, run: benchmarksPart },
];

/**
 * Seconds beyond its time after which a part's process is ended: parts end themselves, and only one that hangs does
 * not.
 */
const GRACE = 60;

/**
 * The time of the part at `index`: the shares up to its own, less what has passed, and a third of its own share at
 * least.
 */
export function partSeconds(index: number, totalSeconds: number, passedSeconds: number): number {
  const upTo = parts.slice(0, index + 1).reduce((sum, { share }) => sum + share, 0) * totalSeconds;
  return Math.max(upTo - passedSeconds, ((parts[index]?.share ?? 0) * totalSeconds) / 3);
}

/** Runs a part in its own process and collects what it finds; what it had found by then stays where it breaks off. */
export async function runPart(part: Part, context: PartContext, host: Host): Promise<PartReport> {
  const findings: Finding[] = [];
  const start = performance.now();
  const ended = await runNode([...host.self, "--part", part.name, "--context", JSON.stringify(context)], {
    cwd: host.root,
    seconds: context.seconds + GRACE,
    onLine: (line) => {
      const finding = findingOf(line);
      if (finding !== undefined) findings.push(finding);
    },
  });
  if (ended.failure !== undefined) {
    findings.push({ kind: "failed", name: part.title, message: ended.failure, wrongNumbers: false });
  }
  return {
    name: part.name,
    title: part.title,
    seconds: (performance.now() - start) / 1000,
    budget_seconds: context.seconds,
    findings,
  };
}

/** What a part's process does: runs the part and writes a line for each finding. */
export async function runPartHere(name: string, context: PartContext, host: Host): Promise<void> {
  const part = parts.find((one) => one.name === name);
  if (part === undefined) throw new Error(`there is no part "${name}" of the report`);
  await part.run(context, (finding) => process.stdout.write(`${MARK}${JSON.stringify(finding)}\n`), host);
}

/** A driver may write to stdout too: findings are lines that begin with this. */
const MARK = "finding ";

function findingOf(line: string): Finding | undefined {
  return line.startsWith(MARK) ? (JSON.parse(line.slice(MARK.length)) as Finding) : undefined;
}
