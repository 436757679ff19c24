/**
 * Times whole commands from their start to their end, in turns: Node alone, and what shows a help text, in a checkout and
 * in the package as npm packs it. Tells minimum and median of the wall clock.
 *
 *   npm run build && npx tsx bench/experiments/start-up.ts [--runs 15] [--node PROGRAM]
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { commit } from "../../src/engine/platform/node-commit.ts";

const root = join(import.meta.dirname, "../..");
const { values } = parseArgs({
  options: { runs: { type: "string", default: "15" }, node: { type: "string", default: process.execPath } },
});
const runs = Number(values.runs);

const folder = mkdtempSync(join(tmpdir(), "kto-start-"));
try {
  const packed = output("npm", ["pack", "--ignore-scripts", "--silent", "--pack-destination", folder]).trim();
  output("tar", ["xzf", join(folder, packed), "-C", folder]);
  const [installed, checkout] = [join(folder, "package", "bin", "kto.js"), join(root, "bin", "kto.js")];
  const cases = [
    { name: "node -e 0", words: ["-e", "0"] },
    { name: "kto --help, package", words: [installed, "--help"] },
    { name: "kto train --help, package", words: [installed, "train", "--help"] },
    { name: "kto --version, package", words: [installed, "--version"] },
    { name: "kto --help, checkout", words: [checkout, "--help"] },
    { name: "kto train --help, checkout", words: [checkout, "train", "--help"] },
  ].map((one) => ({ ...one, times: [] as number[] }));
  const load = loadavg()[0] ?? 0;
  // The first round, which reads the files, does not count.
  for (let run = -1; run < runs; run++) {
    for (const { words, times } of cases) {
      const start = performance.now();
      output(values.node, words);
      if (run >= 0) times.push(performance.now() - start);
    }
  }
  const version = output(values.node, ["--version"]).trim();
  console.log(`Node ${version}, commit ${commit()}, ${cpus().length} cores, load ${load.toFixed(1)}, ${runs} runs`);
  console.log("ms, wall clock                minimum   median");
  for (const { name, times } of cases) {
    const sorted = times.toSorted((a, b) => a - b);
    const [least = 0, middle = 0] = [sorted[0], sorted[runs >> 1]];
    console.log(`${name.padEnd(28)} ${least.toFixed(0).padStart(8)} ${middle.toFixed(0).padStart(8)}`);
  }
} finally {
  rmSync(folder, { recursive: true });
}

function output(program: string, words: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync(program, words, { cwd: root, encoding: "utf8" });
  if (status !== 0) throw new Error(`${program} ${words.join(" ")} ended with ${status}: ${stderr}`);
  return stdout;
}
