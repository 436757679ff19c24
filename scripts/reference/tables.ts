/**
 * The tables of the documentation that are made of the code: options, metrics, files, exit codes. A page says where a
 * table stands by a comment, `<!-- table: exit codes -->`, and where it ends by `<!-- end -->`; what is between the two
 * is written by `npm run docs:reference` and compared by test/reference.test.ts.
 */
import type * as z from "zod";
import { descriptions } from "../../src/cli/descriptions/all.ts";
import { type CommandName, summaries } from "../../src/cli/descriptions/summaries.ts";
import { defaultText } from "../../src/cli/options/help.ts";
import { EXIT_CODES } from "../../src/errors.ts";
import { expectedOf, type OptionInfo, optionInfos } from "../../src/kto/options/option.ts";
import {
  evaluationMetrics,
  exampleColumns,
  type Meaning,
  sftMetrics,
  trainingMetrics,
  winRateFields,
} from "../../src/kto/report/metric-meanings.ts";
import { fileGroups } from "./run-files.ts";

const tables: Readonly<Record<string, () => string>> = {
  options: optionTables,
  "training metrics": () => meaningTable(trainingMetrics),
  "example columns": () => meaningTable(exampleColumns),
  "sft metrics": () => meaningTable(sftMetrics),
  "evaluation metrics": () => meaningTable(evaluationMetrics),
  "win rate": () => meaningTable(winRateFields, "name (`win_rate` of `--json`)"),
  files: fileTables,
  "exit codes": () => table(["code", "meaning"], Object.entries(EXIT_CODES)),
};

/** A page with its tables as the code has them now. Throws for a table that is not known. */
export function withTables(page: string): string {
  return page.replace(/<!-- table: (.+) -->\n[\s\S]*?<!-- end -->/g, (_, name: string) => {
    const make = tables[name];
    if (make === undefined) throw new Error(`there is no table "${name}": ${Object.keys(tables).join(", ")}`);
    return `<!-- table: ${name} -->\n\n${make()}\n\n<!-- end -->`;
  });
}

/** The tables that a page has. */
export function tablesOf(page: string): string[] {
  return [...page.matchAll(/<!-- table: (.+) -->/g)].map(([, name = ""]) => name);
}

export const tableNames: readonly string[] = Object.keys(tables);

/** What stands between pipes, with nothing in it that Markdown or the site's templates would take for a tag. */
function cell(text: string): string {
  return text
    .replaceAll("|", "\\|")
    .replace(/<(?=[\w/!])/g, "&lt;")
    .replaceAll("{{", "{ {");
}

function table(heads: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`.replaceAll("|  |", "| |");
  return [line(heads), `|${"---|".repeat(heads.length)}`, ...rows.map((cells) => line(cells.map(cell)))].join("\n");
}

function code(names: readonly string[]): string {
  return names.map((name) => `\`${name}\``).join(", ");
}

function meaningTable(rows: readonly Meaning[], head = "name"): string {
  if (rows.every(({ over }) => over === undefined)) {
    return table(
      [head, "meaning"],
      rows.map(({ names, meaning }) => [code(names), meaning]),
    );
  }
  return table(
    [head, "meaning", "mean over"],
    rows.map(({ names, meaning, over = "" }) => [code(names), meaning, over]),
  );
}

function fileTables(): string {
  return fileGroups
    .map(({ title, where, files }) => {
      const rows = files.map(({ names, meaning }) => [code(names), meaning]);
      return `## ${title}\n\n${where}\n\n${table(["file", "what it holds"], rows)}`;
    })
    .join("\n\n");
}

/** Every command: the options that `kto train` does not have in the same words, then the names of those that it has. */
function optionTables(): string {
  const infosOf = (name: CommandName) => optionInfos(descriptions[name].schema as z.ZodObject);
  const ofTrain = new Map(infosOf("train").map((info) => [info.name, optionRow(info).join()]));
  return (Object.keys(summaries) as CommandName[])
    .map((name) => {
      const infos = infosOf(name);
      const isShared = (info: OptionInfo) => name !== "train" && ofTrain.get(info.name) === optionRow(info).join();
      const shared = infos.filter(isShared);
      const parts = [
        `## kto ${name}`,
        `${summaries[name].charAt(0).toUpperCase()}${summaries[name].slice(1)}.`,
        ...groupTables(
          name,
          infos.filter((info) => !isShared(info)),
        ),
        ...(shared.length > 0 ? [sharedOptions(shared, [...ofTrain.keys()])] : []),
      ];
      return parts.join("\n\n");
    })
    .join("\n\n");
}

/** Names them, or, where these are fewer, those of `kto train` that are not among them. */
function sharedOptions(shared: readonly OptionInfo[], ofTrain: readonly string[]): string {
  const names = shared.map((info) => info.name);
  const others = ofTrain.filter((name) => !names.includes(name));
  if (names.length <= others.length) return `As in [kto train](#kto-train): ${code(names)}.`;
  const but = others.length > 0 ? ` but these: ${code(others)}` : "";
  return `As in [kto train](#kto-train), all of its options${but}.`;
}

function groupTables(command: CommandName, infos: readonly OptionInfo[]): string[] {
  const groups = new Map<string, OptionInfo[]>();
  for (const info of infos) groups.set(info.about.group, [...(groups.get(info.about.group) ?? []), info]);
  return [...groups].map(([group, members]) => {
    const rows = table(["option", "default", "values", "meaning"], members.map(optionRow));
    return command === "train" || groups.size > 1 ? `**${group}**\n\n${rows}` : rows;
  });
}

function optionRow(info: OptionInfo): [string, string, string, string] {
  const { name, about, defaultValue, required } = info;
  const others = about.aliases ?? [];
  return [
    code([name, ...others]),
    required ? "required" : defaultCell(defaultValue),
    expectedOf(info),
    about.description,
  ];
}

function defaultCell(value: unknown): string {
  if (value === undefined) return "";
  return `\`${typeof value === "object" ? JSON.stringify(value) : defaultText(value)}\``;
}
