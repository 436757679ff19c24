/** The page of `kto --help`, and which words ask for which page. */
import type { HelpPage } from "../options/help-page.ts";
import { type CommandName, summaries } from "./summaries.ts";

export const HELP_FLAGS: readonly string[] = ["-h", "--help"];
export const VERSION_FLAGS: readonly string[] = ["-V", "--version"];

export const listOfCommands: HelpPage = {
  usage: "kto <command> [options]",
  description: "Aligns language models with thumbs-up/thumbs-down feedback (KTO) on any GPU, through WebGPU.",
  sections: [
    {
      heading: "Options:",
      entries: [
        [VERSION_FLAGS.join(", "), "print the version"],
        [HELP_FLAGS.join(", "), "print this help, or a command's after its name"],
      ],
    },
    { heading: "Commands:", entries: [...Object.entries(summaries), ["help [command]", "print a command's help"]] },
  ],
  end: `Options can also come from a file (--config run.yaml) or as trailing name=value.

Exit codes: 0 done; 2 options; 3 feedback file; 4 model folder; 5 no adapter;
6 device lost; 7 files; 8 numbers came out wrong; 9 no judge; 10 too little
memory, or too few open files, for this process, or a package is missing;
11 another rank of mpirun died, hangs or differs;
129, 130, 143 stopped by SIGHUP, SIGINT, SIGTERM; 1 an internal error.`,
};

/** What the words after `kto` ask help about: a command, or "kto" itself; undefined where they ask for no help. */
export function helpTopic([first, ...rest]: readonly string[]): CommandName | "kto" | undefined {
  if (first === undefined) return undefined;
  const asked = first === "help" ? (rest[0] ?? "--help") : first;
  if (HELP_FLAGS.includes(asked)) return "kto";
  const isAsked = first === "help" || rest.some((word) => HELP_FLAGS.includes(word));
  return isAsked ? commandOf(asked) : undefined;
}

/** The command of this name. */
export function commandOf(name: string | undefined): CommandName | undefined {
  return (Object.keys(summaries) as CommandName[]).find((one) => one === name);
}
