/**
 * Parts of the report that say whether the adapter's numbers are right: kernel tests and gradient checks; and `kto
 * doctor`.
 */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import * as z from "zod";
import { runNode } from "../../src/engine/platform/node-program.ts";
import { Budget, seconds } from "./budget.ts";
import type { Finding, Json, PartContext } from "./finding.ts";
import type { Host } from "./host.ts";

/** Seconds that a program may take beyond its part's time before it is ended, so that only one that hangs is. */
const GRACE = 30;

export async function doctorPart(context: PartContext, emit: (finding: Finding) => void, host: Host): Promise<void> {
  await runKto("doctor", ["doctor", "--json"], context.seconds, emit, host);
}

/** Runs `kto` and tells of the object that it prints and of its failure; it exits with 8 where numbers are wrong. */
async function runKto(
  name: string,
  words: readonly string[],
  seconds: number,
  emit: (finding: Finding) => void,
  { kto, root }: Host,
): Promise<void> {
  const { stdout, failure, code, late } = await runNode([...kto, ...words], { cwd: root, seconds: seconds + GRACE });
  const last = stdout.trim().split("\n").at(-1) ?? "{}";
  if (stdout !== "") emit({ kind: "result", name, figures: JSON.parse(last) as Record<string, Json> });
  // An adapter that is slow is no adapter that is wrong.
  if (late) emit({ kind: "left out", name, reason: failure ?? "it was too slow", estimatedSeconds: null });
  else if (failure !== undefined) emit({ kind: "failed", name, message: failure, wrongNumbers: code === 8 });
}

/** `kto gradcheck` on every fixture, the smallest models first: a policy, its reference and one microbatch. */
export async function gradientsPart(context: PartContext, emit: (finding: Finding) => void, host: Host): Promise<void> {
  const budget = new Budget(context.seconds);
  const folder = join(host.root, "test", "fixtures");
  const names = readdirSync(folder).filter((name) => existsSync(join(folder, name, "policy", "config.json")));
  const bytes = (name: string) => statSync(join(folder, name, "policy", "model.safetensors")).size;
  for (const name of budget.each(
    names.sort((a, b) => bytes(a) - bytes(b)),
    String,
    emit,
  )) {
    const words = [
      ...["gradcheck", "--json", "--log_level", "error"],
      ...["--model_name_or_path", join(folder, name, "policy")],
      ...["--ref_model_name_or_path", join(folder, name, "reference")],
      ...["--dataset_name", join(folder, name, "data.jsonl")],
    ];
    await runKto(name, words, Math.max(0, budget.left), emit, host);
  }
}

/** The part of vitest's JSON report that is read here. */
const testReport = z.object({
  testResults: z.array(
    z.object({
      status: z.string(),
      message: z.string().optional(),
      assertionResults: z.array(
        z.object({ fullName: z.string(), status: z.string(), failureMessages: z.array(z.string()).optional() }),
      ),
    }),
  ),
});

/** Failing tests of a file that are told; the others are counted. */
const MOST_FAILURES = 5;

/** Every file of kernel tests in a process of its own, for as long as there is time. */
export async function kernelTestsPart(
  context: PartContext,
  emit: (finding: Finding) => void,
  host: Host,
): Promise<void> {
  const budget = new Budget(context.seconds);
  const names = context.quick ? host.kernelTests.slice(0, 2) : host.kernelTests;
  for (const name of budget.each(names, String, emit)) {
    const began = budget.passed;
    const output = join(context.scratch, `tests-${name}.json`);
    const limit = Math.max(0, budget.left) + GRACE;
    const ended = await runNode(host.kernelTestCommand(name, output), { cwd: host.root, seconds: limit });
    if (!existsSync(output)) {
      const slow = budget.left <= 0;
      if (slow)
        emit({ kind: "left out", name, reason: `it had not ended after ${seconds(limit)}`, estimatedSeconds: null });
      else emit({ kind: "failed", name, message: ended.failure ?? "it wrote no report", wrongNumbers: false });
      continue;
    }
    for (const finding of testFindings(name, readFileSync(output, "utf8"), budget.passed - began)) emit(finding);
  }
}

/** The counts of a file's tests, and its failures. @param text vitest's JSON report */
export function testFindings(name: string, text: string, elapsed: number): Finding[] {
  const { testResults } = testReport.parse(JSON.parse(text));
  const tests = testResults.flatMap(({ assertionResults }) => assertionResults);
  const failed = tests.filter(({ status }) => status === "failed");
  const passed = tests.filter(({ status }) => status === "passed").length;
  const counts = { passed, failed: failed.length, skipped: tests.length - passed - failed.length, seconds: elapsed };
  const firstLine = (message: string | undefined) => (message ?? "").split("\n", 1)[0] ?? "";
  const broken = testResults.filter((file) => file.status === "failed" && file.assertionResults.length === 0);
  return [
    { kind: "result", name, figures: counts },
    ...failed.slice(0, MOST_FAILURES).map(
      (test): Finding => ({
        kind: "failed",
        name: `${name}: ${test.fullName}`,
        message: firstLine(test.failureMessages?.[0]),
        wrongNumbers: (test.failureMessages ?? []).some((message) => message.includes("AssertionError")),
      }),
    ),
    // A file that cannot even be loaded has no test in it to fail.
    ...broken.map((file): Finding => ({ kind: "failed", name, message: firstLine(file.message), wrongNumbers: false })),
  ];
}
