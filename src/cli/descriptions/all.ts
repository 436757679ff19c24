/**
 * The description of every command by its name, and what is made of descriptions alone: help texts, completions and
 * schemas of configuration files.
 */
import * as z from "zod";
import { configSchema } from "../options/config-schema.ts";
import type { Description } from "../options/description.ts";
import { helpSections } from "../options/help.ts";
import type { HelpPage } from "../options/help-page.ts";
import { type CompletedCommand, completedOptions } from "../shell/completions.ts";
import { benchDescription } from "./bench.ts";
import { chatDescription } from "./chat.ts";
import { completionDescription } from "./completion.ts";
import { dashboardDescription } from "./dashboard.ts";
import { dataDescription } from "./data.ts";
import { doctorDescription } from "./doctor.ts";
import { evalDescription } from "./eval.ts";
import { exportDescription } from "./export.ts";
import { generateDescription } from "./generate.ts";
import { gradcheckDescription } from "./gradcheck.ts";
import { initDescription } from "./init.ts";
import { listOfCommands } from "./list-of-commands.ts";
import { logpsDescription } from "./logps.ts";
import { mergeDescription } from "./merge.ts";
import { planDescription } from "./plan.ts";
import { sftDescription } from "./sft.ts";
import { type CommandName, summaries } from "./summaries.ts";
import { trainDescription } from "./train.ts";

export const descriptions = {
  train: trainDescription,
  sft: sftDescription,
  eval: evalDescription,
  generate: generateDescription,
  chat: chatDescription,
  logps: logpsDescription,
  data: dataDescription,
  gradcheck: gradcheckDescription,
  merge: mergeDescription,
  export: exportDescription,
  dashboard: dashboardDescription,
  init: initDescription,
  plan: planDescription,
  bench: benchDescription,
  doctor: doctorDescription,
  completion: completionDescription,
} as const;

/** What a command's `--help` shows. */
export function helpOf(name: CommandName): HelpPage {
  const { examples, schema, positional }: Description<unknown> = descriptions[name];
  const isList = positional !== undefined && schema.shape[positional] instanceof z.ZodDefault;
  const word = positional === undefined ? "[--config file]" : isList ? `[${positional} ...]` : `<${positional}>`;
  const summary = summaries[name];
  return {
    usage: `kto ${name} ${word} [options] [name=value ...]`,
    description: `${summary[0]?.toUpperCase() ?? ""}${summary.slice(1)}.`,
    sections: helpSections(schema),
    end: ["Examples:", ...examples.map((line) => `  ${line}`)].join("\n"),
  };
}

/** The pages of all commands, and of `kto` itself, by what helpTopic calls them. */
export function helpPages(): Readonly<Record<CommandName | "kto", HelpPage>> {
  const pages = (Object.keys(summaries) as CommandName[]).map((name) => [name, helpOf(name)] as const);
  return { kto: listOfCommands, ...Object.fromEntries(pages) } as Record<CommandName | "kto", HelpPage>;
}

/** All that a shell can complete. */
export function commandsToComplete(): CompletedCommand[] {
  return (Object.keys(summaries) as CommandName[]).map((name) => {
    const { schema, positional }: Description<unknown> = descriptions[name];
    const options = completedOptions(schema);
    const words = options.flatMap(({ name, value }) => (name === positional && "words" in value ? value.words : []));
    return { name, summary: summaries[name], options, words };
  });
}

/** The JSON schema of a command's configuration file, by which editors complete and check it. */
export function configSchemaOf(name: CommandName): Readonly<Record<string, unknown>> {
  return configSchema(descriptions[name], `Options of kto ${name}: ${summaries[name]}`);
}
