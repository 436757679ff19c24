/** What a command of `kto` consists of; `main.ts` lists them, prints their help and runs them. */
import type * as z from "zod";
import type { ParseContext } from "../../kto/options/parse.ts";
import type { Output, OutputOptions } from "../terminal/output.ts";

/** Options as they were written, by canonical name, and where each was written. */
export interface OptionInput {
  readonly values: Readonly<Record<string, unknown>>;
  /** "" for the command line, " in run.yaml" for a file. */
  readonly where: (name: string) => string;
}

export interface Command {
  readonly name: string;
  /** One line for the list of commands. */
  readonly summary: string;
  /** Whole command lines, shown under the options. */
  readonly examples: readonly string[];
  readonly schema: z.ZodObject;
  readonly context: ParseContext;
  /** Checks the options and runs; throws a KtoError, whose exit code is the command's. */
  readonly execute: (input: OptionInput, openOutput: (options: OutputOptions) => Output) => Promise<void>;
}

/** Ties a command's options to its body, so that the body gets them typed and checked. */
export function command<Options extends OutputOptions>(definition: {
  name: string;
  summary: string;
  examples: readonly string[];
  schema: z.ZodObject;
  context?: ParseContext;
  parse: (input: OptionInput) => Options;
  run: (options: Options, output: Output) => Promise<void>;
}): Command {
  const { name, summary, examples, schema, context = {}, parse, run } = definition;
  return {
    name,
    summary,
    examples,
    schema,
    context,
    execute: async (input, openOutput) => {
      const options = parse(input);
      await run(options, openOutput(options));
    },
  };
}
