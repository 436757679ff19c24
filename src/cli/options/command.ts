/** What a command of `kto` consists of, beside its name and summary, which `main.ts` lists. */
import type { Option } from "commander";
import type * as z from "zod";
import type { ParseContext } from "../../kto/options/parse.ts";
import type { Output, OutputOptions } from "../terminal/output.ts";
import { helpOptions, type KnownOptions, type OptionInput, readOptions } from "./command-line.ts";

export interface Command extends KnownOptions {
  /** Whole command lines, shown under the options. */
  readonly examples: readonly string[];
  /** The options as the help shows them. */
  readonly helpOptions: () => Option[];
  /**
   * Reads the words after the command's name, checks the options and runs.
   *
   * @throws KtoError, whose exit code is the command's
   */
  readonly execute: (words: readonly string[], openOutput: (options: OutputOptions) => Output) => Promise<void>;
}

/** Ties a command's options to its body, so that the body gets them typed and checked. */
export function command<Options extends OutputOptions>(definition: {
  examples: readonly string[];
  schema: z.ZodObject;
  context?: ParseContext;
  parse: (input: OptionInput) => Options;
  run: (options: Options, output: Output) => Promise<void>;
}): Command {
  const { examples, schema, context = {}, parse, run } = definition;
  return {
    examples,
    schema,
    context,
    helpOptions: () => helpOptions(schema),
    execute: async (words, openOutput) => {
      const options = parse(await readOptions(words, { schema, context }));
      await run(options, openOutput(options));
    },
  };
}
