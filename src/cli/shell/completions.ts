/**
 * What a shell can complete of the command line: commands, their options, and the values of options. The scripts are
 * made of it in bash.ts, zsh.ts and fish.ts; they hold all of it, so that no key waits for Node.
 */
import type * as z from "zod";
import { type OptionInfo, optionInfos } from "../../kto/options/option.ts";

/** What may follow an option. A flag may also stand alone. */
export type CompletedValue =
  | { readonly kind: "words" | "flag"; readonly words: readonly string[] }
  | { readonly kind: "file" | "folder" | "text" };

export interface CompletedOption {
  /** Without dashes. */
  readonly name: string;
  readonly description: string;
  readonly value: CompletedValue;
}

export interface CompletedCommand {
  readonly name: string;
  readonly summary: string;
  readonly options: readonly CompletedOption[];
  /** The words that may follow the command where it takes one that is no option. */
  readonly words: readonly string[];
}

/** The options of a command as they are written, the negated spelling of flags that are true by default included. */
export function completedOptions(schema: z.ZodObject): CompletedOption[] {
  const infos = optionInfos(schema);
  const own = infos.flatMap((info): CompletedOption[] => {
    const { name, about, defaultValue } = info;
    const option = { name, description: about.description, value: followerOf(info) };
    if (defaultValue !== true) return [option];
    return [
      option,
      { name: `no_${name}`, description: `not: ${about.description}`, value: { kind: "flag", words: [] } },
    ];
  });
  return [
    ...own,
    { name: "config", description: "options from a YAML or JSON file", value: { kind: "file" } },
    { name: "help", description: "print the command's help", value: { kind: "flag", words: [] } },
  ];
}

/** By what the help text shows in the value's place. */
function followerOf({ kind, words, about }: OptionInfo): CompletedValue {
  if (kind === "boolean") return { kind: "flag", words: ["true", "false"] };
  if (kind === "choice") return { kind: "words", words };
  if (kind === "numberOrWord") return { kind: "words", words };
  const place = about.placeholder ?? "";
  if (/^folder/.test(place)) return { kind: "folder" };
  return /^(file|path|model|data)/.test(place) ? { kind: "file" } : { kind: "text" };
}
