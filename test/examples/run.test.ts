/** The quickstart as a newcomer runs it, whole: what it promises, by its own exit code and by its figures. */
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { expect, test } from "vitest";

const root = join(import.meta.dirname, "..", "..");

/** Minutes on SwiftShader. */
const timeout = 15 * 60_000;

test("aligns the model: more good stories, still stories; writes model, curves and results", { timeout }, async () => {
  const folder = mkdtempSync(join(tmpdir(), "kto-quickstart-"));
  try {
    const { code, output } = await quickstart(folder);
    expect(code, output).toBe(0);
    const results = JSON.parse(readFileSync(join(folder, "out/quickstart/results.json"), "utf8"));
    const { base, aligned } = results;
    expect(aligned.good.share - base.good.share).toBeGreaterThanOrEqual(0.3);
    expect(aligned.good.low).toBeGreaterThan(base.good.high);
    expect(base.log_prob_per_token - aligned.log_prob_per_token).toBeLessThan(0.5);
    expect(aligned.repeating).toBeLessThan(0.05);
    expect(readFileSync(join(folder, "out/quickstart/curves.svg"), "utf8")).toContain("</svg>");
    for (const line of ["judged good", "95% interval", "win rate", "log-prob per token", "stories that repeat"]) {
      expect(output).toContain(line);
    }
    expect(output.match(/^ {2}base: .* aligned: /gm)).toHaveLength(3);
    expect(output).toContain("Aligned model     out/quickstart");
  } finally {
    rmSync(folder, { recursive: true });
  }
});

/** Runs it in a folder of its own, so that nobody's results are overwritten. */
function quickstart(cwd: string): Promise<{ code: number | null; output: string }> {
  const tsx = pathToFileURL(createRequire(join(root, "package.json")).resolve("tsx")).href;
  const child = spawn(process.execPath, ["--import", tsx, join(root, "examples/quickstart/run.ts")], { cwd });
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
