/**
 * What a command is apart from its body: its options, their checks and its help text. Descriptions import nothing of
 * what the commands run on, so that a help text does not wait for it.
 */
import type * as z from "zod";
import type { Dialect } from "../../kto/options/dialects/dialect.ts";
import { type ParseContext, parseOptions } from "../../kto/options/parse.ts";
import type { OutputOptions } from "../terminal/output.ts";
import type { TranslatedFile } from "./configuration-file.ts";

/** What is known of a command's options before they are read. */
export interface KnownOptions {
  readonly schema: z.ZodObject;
  readonly context: ParseContext;
  /** Products whose configuration files are read. */
  readonly dialects?: readonly Dialect[];
  /** The option that may also be given as a word alone, in place of a configuration file. */
  readonly positional?: string;
}

/** Options as they were written, by canonical name, and where each was written. */
export interface OptionInput {
  readonly values: Readonly<Record<string, unknown>>;
  /** "" for the command line, " in run.yaml" for a file. */
  readonly where: (name: string) => string;
  /** What of a file cannot be done, whole sentences, to be told with all else that is refused. */
  readonly problems?: readonly string[];
  /** Given where the file was written for another product. */
  readonly translated?: TranslatedFile;
  /** Called with a sentence about options that have no effect. */
  readonly onNote?: (sentence: string) => void;
  /** How many ranks share the command's work. Default 1. */
  readonly ranks?: number;
}

/** All of a command but its body: what the help shows, and how words become options. */
export interface Description<Options> extends KnownOptions {
  /** Whole command lines, shown under the options. */
  readonly examples: readonly string[];
  /** Checks the options that were read. Throws ConfigError. */
  readonly parse: (input: OptionInput) => Options;
}

/** A description with its types inferred. Default: no context, and options as their schema says. */
export function describe<S extends z.ZodObject, Options extends OutputOptions = Readonly<z.output<S>> & OutputOptions>(
  description: Pick<Description<Options>, "examples"> & { readonly schema: S } & Partial<Description<Options>>,
): Description<Options> {
  const { schema } = description;
  const parse = ({ values, ...context }: OptionInput) => parseOptions(schema, values, context) as unknown as Options;
  return { context: {}, parse, ...description };
}
