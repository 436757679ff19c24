/** What `main.ts` runs: a command's description (descriptions/) tied to its body (commands/). */
import type { Output, OutputOptions } from "../terminal/output.ts";
import { readOptions } from "./command-line.ts";
import type { Description, KnownOptions } from "./description.ts";

export interface Command extends KnownOptions {
  /**
   * Reads the words after the command's name, checks the options and runs.
   *
   * @throws KtoError, whose exit code is the command's
   */
  readonly execute: (words: readonly string[], openOutput: (options: OutputOptions) => Output) => Promise<void>;
}

/** Ties a command's options to its body, so that the body gets them typed and checked. */
export function command<Options extends OutputOptions>(
  { schema, context, positional, parse }: Description<Options>,
  run: (options: Options, output: Output) => Promise<void>,
): Command {
  const known = { schema, context, ...(positional === undefined ? {} : { positional }) };
  return {
    ...known,
    execute: async (words, openOutput) => {
      const options = parse(await readOptions(words, known));
      await run(options, openOutput(options));
    },
  };
}
