/** Streams that keep what is written, for tests of the command line. */
import { main } from "../../src/cli/program.ts";

export class CapturedStream {
  text = "";
  readonly isTTY: boolean;
  readonly columns: number;

  constructor(terminal?: { columns: number }) {
    this.isTTY = terminal !== undefined;
    this.columns = terminal?.columns ?? 80;
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
