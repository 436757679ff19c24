/** Streams that keep what is written, for tests of the command line. */
import { Readable } from "node:stream";
import { main } from "../../src/cli/main.ts";

export class CapturedStream {
  text = "";
  readonly isTTY: boolean;
  columns: number;
  readonly rows: number;

  constructor(terminal?: { columns: number; rows?: number }) {
    this.isTTY = terminal !== undefined;
    this.columns = terminal?.columns ?? 80;
    this.rows = terminal?.rows ?? 24;
  }

  write(text: string): void {
    this.text += text;
  }
}

/** One command line, with all that it printed. */
export async function kto(...argv: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const stdout = new CapturedStream();
  const stderr = new CapturedStream();
  const code = await main(argv, { stdout, stderr });
  return { code, stdout: stdout.text, stderr: stderr.text };
}

/** One command line that reads these lines. */
export async function ktoReading(
  lines: readonly string[],
  ...argv: string[]
): Promise<{ code: number; stdout: string; stderr: string }> {
  const stdout = new CapturedStream();
  const stderr = new CapturedStream();
  const stdin = Readable.from(lines.map((line) => `${line}\n`));
  const code = await main(argv, { stdout, stderr, stdin });
  return { code, stdout: stdout.text, stderr: stderr.text };
}
