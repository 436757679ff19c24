/** What `main.ts` runs: a command's description (descriptions/) tied to its body (commands/). */
import { Output, type OutputOptions } from "../terminal/output.ts";
import { rankProcess } from "../terminal/rank-process.ts";
import type { Streams } from "../terminal/streams.ts";
import { readOptions } from "./command-line.ts";
import { type TranslatedFile, translationLines } from "./configuration-file.ts";
import type { Description, KnownOptions } from "./description.ts";

export interface Command extends KnownOptions {
  /**
   * Reads the words after the command's name, checks the options and runs.
   *
   * @throws KtoError, whose exit code is the command's
   */
  readonly execute: (words: readonly string[], streams: Streams) => Promise<void>;
}

/** Ties a command's options to its body, so that the body gets them typed and checked. */
export function command<Options extends OutputOptions & { readonly dry_run?: boolean }>(
  { schema, context, positional, dialects, parse }: Description<Options>,
  run: (options: Options, output: Output) => Promise<void>,
): Command {
  const known = {
    schema,
    context,
    ...(positional === undefined ? {} : { positional }),
    ...(dialects ? { dialects } : {}),
  };
  return {
    ...known,
    execute: async (words, streams) => {
      const input = await readOptions(words, known);
      const notes: string[] = [];
      const options = parse({ ...input, onNote: (note) => notes.push(note), ranks: rankProcess()?.link.size ?? 1 });
      const output = new Output(streams, options);
      if (input.translated) tellTranslation(input.translated, options, output);
      for (const note of notes) output.info(note);
      await run(options, output);
    },
  };
}

/** What a file of another product was read as: all of it for a plan, else that it was. */
function tellTranslation(file: TranslatedFile, { dry_run: planned = false }: { dry_run?: boolean }, output: Output) {
  if (!planned) output.info(`config: ${file.path} was written for ${file.product}; --dry_run shows what it is read as`);
  else for (const line of translationLines(file)) output.json ? output.info(line) : output.result(line);
}
