/** Writes a configuration file that explains itself: every option with its line of the help text above it. */
import { stringify } from "yaml";
import type * as z from "zod";
import { findOption } from "../../kto/options/names.ts";
import { optionInfos } from "../../kto/options/option.ts";

export interface ConfigEntry {
  readonly name: string;
  readonly value: unknown;
  /** Why it has this value. */
  readonly why?: string;
}

const WIDTH = 100;

/**
 * @param heading lines of the file's first comment
 * @param others options that are not set, shown as comments with their defaults
 */
export function configText(
  schema: z.ZodObject,
  heading: readonly string[],
  entries: readonly ConfigEntry[],
  others: readonly string[],
): string {
  const infos = optionInfos(schema);
  const infoOf = (name: string) => {
    const info = findOption(infos, name);
    if (info === undefined) throw new Error(`${name} is no option`);
    return info;
  };
  const set = entries.map(({ name, value, why }) => {
    const told = [infoOf(name).about.description, ...(why === undefined ? [] : [why])].map(sentence);
    return [...comment(told.join(" ")), `${name}: ${valueText(value)}`];
  });
  const unset = others.map((name) => {
    const { about, defaultValue } = infoOf(name);
    return [...comment(sentence(about.description)), `# ${name}: ${valueText(defaultValue)}`.trimEnd()];
  });
  // The first line is for editors, which take it whole.
  const head = heading.flatMap((line, i) => (i === 0 ? [`# ${line}`] : comment(line)));
  return `${[head, ...set, ...unset].map((lines) => lines.join("\n")).join("\n\n")}\n`;
}

/** One line: what is longer in YAML is shorter as JSON, which YAML reads too. */
function valueText(value: unknown): string {
  if (value === undefined) return "";
  const text = stringify(value, { lineWidth: 0 }).trim();
  return typeof value === "object" || text.includes("\n") ? JSON.stringify(value) : text;
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}

function comment(text: string): string[] {
  const lines: string[] = [];
  let line = "#";
  for (const word of text.split(" ")) {
    if (line.length + 1 + word.length > WIDTH && line !== "#") {
      lines.push(line);
      line = "#";
    }
    line += ` ${word}`;
  }
  return [...lines, line];
}
