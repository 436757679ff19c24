/**
 * examples.jsonl: what logged updates did with each of their examples. A line is written before the checkpoint of its
 * update, so that a run that goes on from there has it; when one cannot be written, the user is warned and the run goes
 * on without.
 */
import { platform } from "../../engine/platform/index.ts";
import { errorMessage, FileError } from "../../errors.ts";
import { EXAMPLES_FILE, type ExampleLine } from "../../kto/run/example-line.ts";
import { linesUpTo } from "./step-lines.ts";

export class ExamplesFile {
  readonly #path: string;
  readonly #warn: (sentence: string) => void;
  #broken = false;

  constructor(folder: string, warn: (sentence: string) => void) {
    this.#path = platform.joinPath(folder, EXAMPLES_FILE);
    this.#warn = warn;
  }

  /**
   * Cuts an earlier run's file back to the step from which the run goes on; a new run begins without a file.
   *
   * @returns the lines that are kept
   */
  async start(step: number): Promise<ExampleLine[]> {
    const kept = await linesUpTo(this.#path, step);
    if (kept.length > 0) await platform.writeFileAtomic(this.#path, kept.join(""));
    else if ((await platform.exists(this.#path)) === "file") await platform.removeFile(this.#path);
    return kept.map((line) => JSON.parse(line) as ExampleLine);
  }

  async write(line: ExampleLine): Promise<void> {
    if (this.#broken) return;
    try {
      await platform.append(this.#path, `${JSON.stringify(line)}\n`);
    } catch (error) {
      if (!(error instanceof FileError)) throw error;
      this.#broken = true;
      this.#warn(`${errorMessage(error)} The training goes on, and writes no more of what it does with each example.`);
    }
  }
}
