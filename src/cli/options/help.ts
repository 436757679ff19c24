/** Options as the help text shows them. */
import type * as z from "zod";
import { type OptionInfo, optionInfos } from "../../kto/options/option.ts";
import type { HelpSection } from "./help-page.ts";

/** The options of a command under their headings. */
export function helpSections(schema: z.ZodObject): HelpSection[] {
  const sections = new Map<string, [string, string][]>();
  const add = (group: string, term: string, text: string) => {
    sections.set(group, [...(sections.get(group) ?? []), [term, text]]);
  };
  for (const info of optionInfos(schema)) {
    add(info.about.group, `--${info.name} ${placeholder(info)}`.trim(), textOf(info));
  }
  add("Other", "--config <file>", "options from a YAML or JSON file; those given here override it");
  add("Other", "-h, --help", "print this help");
  return [...sections].map(([group, entries]) => ({ heading: `${group}:`, entries }));
}

/** Short, so that a terminal of 80 columns has room for the description. */
function placeholder(info: OptionInfo): string {
  if (info.about.placeholder !== undefined) return `<${info.about.placeholder}>`;
  const byKind = {
    boolean: "",
    choice: "<name>",
    flagOrText: "<text>",
    number: "<n>",
    numberOrWord: "<n>",
    object: "<json>",
    string: "<text>",
    strings: "<text>",
  };
  return byKind[info.kind];
}

function textOf(info: OptionInfo): string {
  const notes: string[] = [];
  if (info.required) notes.push("required");
  if (info.kind === "choice") notes.push(info.words.join(" | "));
  const { defaultValue } = info;
  if (defaultValue !== undefined && defaultValue !== false && typeof defaultValue !== "object") {
    notes.push(`default ${defaultText(defaultValue)}`);
  }
  if (defaultValue === true) notes.push(`--no_${info.name} for false`);
  const aliases = info.about.aliases ?? [];
  if (aliases.length > 0) notes.push(`also --${aliases.join(", --")}`);
  return info.about.description + (notes.length > 0 ? ` [${notes.join("; ")}]` : "");
}

/** 5e-6 and not 0.000005. */
export function defaultText(value: unknown): string {
  const small = typeof value === "number" && value > 0 && value < 1e-3;
  return small ? value.toExponential() : String(value);
}
