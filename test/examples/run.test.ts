/**
 * The quickstart: a short run of it shows that training makes more good stories. The whole one, which keeps what the
 * README promises by its own exit code, runs with KTO_TEST_SHAPES=all, and in CI as `npm run quickstart`.
 */
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { expect, test } from "vitest";
import { align, type RunSize } from "../../examples/quickstart/align.ts";
import { Output } from "../../src/cli/terminal/output.ts";
import { runFolders } from "../../src/dashboard/run-folder.ts";
import { platform } from "../../src/engine/platform/index.ts";
import { runFactsSchema } from "../../src/kto/run/run-facts.ts";
import { shareDeviceWithCommands } from "../helpers/commands.ts";
import { freshPath, temporaryFolder } from "../helpers/folders.ts";
import { CapturedStream } from "../helpers/streams.ts";

shareDeviceWithCommands();
const root = join(import.meta.dirname, "..", "..");
const folder = temporaryFolder();

/** Fewer and smaller updates, each a larger step, and fewer stories: an effect that their wider intervals still tell. */
const shortRun: RunSize = {
  per_device_train_batch_size: 16,
  ...{ max_steps: 9, warmup_steps: 1, learning_rate: 8e-4 },
  perOpening: 2,
  rise: 0.2,
};

test("a short run aligns the model: more good stories, still stories; writes model, curves and results", async () => {
  const out = freshPath(folder, "out");
  const stdout = new CapturedStream();
  const streams = { stdout, stderr: stdout };
  const output = new Output(streams, { json: false, log_level: "info", quiet: true });
  const { failures } = await align(shortRun, out, output);
  expect(failures, stdout.text).toEqual([]);
  expectResults(out, stdout.text);
  // As a run that the dashboard finds and shows.
  expect(await runFolders([out], platform)).toEqual([out]);
  const lines = (name: string) => readFileSync(join(out, name), "utf8").trim().split("\n");
  expect(lines("metrics.jsonl")).toHaveLength(shortRun.max_steps);
  expect(lines("examples.jsonl").length).toBeGreaterThan(0);
  expect(JSON.parse(lines("rows.jsonl")[0] ?? "{}")).toMatchObject({ prompt: expect.any(String) });
  expect(runFactsSchema.parse(JSON.parse(readFileSync(join(out, "run.json"), "utf8")))).toMatchObject({
    updates: shortRun.max_steps,
    options: { beta: 0.1, append_eos: false },
  });
});

function expectResults(out: string, output: string): void {
  const { base, aligned } = JSON.parse(readFileSync(join(out, "results.json"), "utf8"));
  expect(aligned.good.low).toBeGreaterThan(base.good.high);
  expect(base.log_prob_per_token - aligned.log_prob_per_token).toBeLessThan(0.5);
  expect(aligned.repeating).toBeLessThan(0.05);
  expect(readFileSync(join(out, "curves.svg"), "utf8")).toContain("</svg>");
  for (const line of ["judged good", "95% interval", "win rate", "log-prob per token", "stories that repeat"]) {
    expect(output).toContain(line);
  }
  expect(output.match(/^ {2}base: .* aligned: /gm)).toHaveLength(3);
}

/** The program in a folder of its own, so that nobody's results are overwritten. */
function quickstart(cwd: string): Promise<{ code: number | null; output: string }> {
  const tsx = pathToFileURL(createRequire(join(root, "package.json")).resolve("tsx")).href;
  const program = join(root, "examples/quickstart/run.ts");
  const child = spawn(process.execPath, ["--import", tsx, program], { cwd });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (data: Buffer) => {
      output += data.toString();
    });
  }
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, output }));
  });
}

if (process.env.KTO_TEST_SHAPES === "all") {
  test("the program, whole, keeps what it promises", async () => {
    const { code, output } = await quickstart(folder);
    expect(code, output).toBe(0);
    expect(output).toContain("Aligned model     out/quickstart");
    expectResults(join(folder, "out/quickstart"), output);
    const { base, aligned } = JSON.parse(readFileSync(join(folder, "out/quickstart/results.json"), "utf8"));
    expect(aligned.good.share - base.good.share).toBeGreaterThanOrEqual(0.3);
  });
}
