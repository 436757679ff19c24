/** Options as the help text shows them; commander prints it. */
import { Option } from "commander";
import type * as z from "zod";
import { type OptionInfo, optionInfos } from "../../kto/options/option.ts";

/** The options as commander's help shows them, grouped. */
export function helpOptions(schema: z.ZodObject): Option[] {
  const config = new Option("--config <file>", "options from a YAML or JSON file; those given here override it");
  const groups = new Map<string, Option[]>();
  for (const info of optionInfos(schema)) {
    const help = new Option(`--${info.name} ${placeholder(info)}`.trim(), helpText(info)).helpGroup(
      `${info.about.group}:`,
    );
    groups.set(info.about.group, [...(groups.get(info.about.group) ?? []), help]);
  }
  return [...[...groups.values()].flat(), config.helpGroup("Other:")];
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

function helpText(info: OptionInfo): string {
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
