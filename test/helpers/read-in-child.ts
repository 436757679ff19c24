/**
 * Reads feedback files in a process of their own, whose memory nothing else takes: the peak is that of the reading.
 */
import { spawnSync } from "node:child_process";
import { builtModule } from "./built.ts";

export interface ReadInChild {
  readonly rows: number;
  /** The error's class and message, "" if the file was read. */
  readonly error: string;
  readonly message: string;
  /** Bytes by which the most memory that the process ever had grew, since the first file was read. */
  readonly grownBytes: number;
}

/** @param paths the first one is a good file, which loads all that reading needs */
export function readInChild(paths: readonly string[]): ReadInChild[] {
  const program = `
    import { feedbackRows } from ${JSON.stringify(builtModule("index"))};
    const peak = () => 1024 * process.resourceUsage().maxRSS;
    const results = [];
    let first;
    for (const path of ${JSON.stringify(paths)}) {
      let rows = 0;
      let [error, message] = ["", ""];
      try {
        for await (const _ of feedbackRows(path)) rows++;
      } catch (thrown) {
        [error, message] = [thrown.name, thrown.message];
      }
      first ??= peak();
      results.push({ rows, error, message, grownBytes: peak() - first });
    }
    process.stdout.write(JSON.stringify(results));`;
  const words = ["--input-type=module", "--eval", program];
  const { status, stdout, stderr } = spawnSync(process.execPath, words, { encoding: "utf8" });
  if (status !== 0) throw new Error(`the reading process ended with ${status}: ${stderr}`);
  return JSON.parse(stdout) as ReadInChild[];
}
