/**
 * The spellings of options on a command line: --snake_case, --kebab-case, --name=value, --flag, --no_flag, name=value,
 * and a YAML or JSON file. Later ones win; the file loses against all of them, wherever it stands. Types and ranges are
 * not looked at here, except to tell a flag from an option that takes a value. Libraries for this lose the order between
 * --name and name=value.
 */
import { ConfigError } from "../../errors.ts";
import { findOption, normalName } from "../../kto/options/names.ts";
import { expectedOf, type OptionInfo, optionInfos } from "../../kto/options/option.ts";
import type { ParseContext } from "../../kto/options/parse.ts";
import { booleanWord } from "../../kto/options/values.ts";
import { knownName, readConfigurationFile } from "./configuration-file.ts";
import type { KnownOptions, OptionInput } from "./description.ts";

interface Assignment {
  /** The option's name, or the spelling of a name that is not known. */
  readonly name: string;
  readonly value: unknown;
}

/**
 * Everything after the command's name, and the configuration file that it may name, as one record of values. An unknown
 * option keeps the spelling that it was given, for the check that refuses it.
 *
 * @throws ConfigError for an option without its value, a stray word or a malformed file
 * @throws FileError if the configuration file cannot be read
 */
export async function readOptions(
  args: readonly string[],
  { schema, context, positional, dialects = [] }: KnownOptions,
): Promise<OptionInput> {
  const infos = optionInfos(schema);
  const assignments = readArguments(args, infos, context, positional);
  const path = assignments.findLast((assignment) => assignment.name === "config")?.value;
  const overrides = assignments.filter(({ name }) => !findOption(infos, name) && !context.foreign?.has(name));
  const file =
    path === undefined
      ? undefined
      : await readConfigurationFile(
          String(path),
          Object.fromEntries(overrides.map(({ name, value }) => [name, value])),
          { infos, context, dialects },
        );
  const values: Record<string, unknown> = Object.fromEntries(file?.values ?? []);
  const inFile = new Set(file?.values.keys());
  const repeated = new Set<string>();
  for (const { name, value } of assignments) {
    if (name === "config" || file?.taken.has(name)) continue;
    if (findOption(infos, name)?.kind === "strings") {
      const earlier = repeated.has(name) ? (values[name] as unknown[]) : [];
      values[name] = [...earlier, value];
      repeated.add(name);
    } else {
      values[name] = value;
    }
    inFile.delete(name);
  }
  return {
    values,
    where: (name) => (file !== undefined && inFile.has(name) ? file.where(name) : ""),
    ...(file === undefined ? {} : { problems: file.problems }),
    ...(file?.translated === undefined ? {} : { translated: file.translated }),
  };
}

/** The command line alone, in its order. */
function readArguments(
  args: readonly string[],
  infos: readonly OptionInfo[],
  context: ParseContext,
  positional: string | undefined,
): Assignment[] {
  const assignments: Assignment[] = [];
  for (let index = 0; index < args.length; index++) {
    const word = args[index] ?? "";
    const following = args[index + 1];
    const flag = /^--([A-Za-z][\w-]*)(?:=([\s\S]*))?$/.exec(word);
    const override = /^([A-Za-z_][\w-]*)=([\s\S]*)$/.exec(word);
    if (override !== null) {
      assignments.push({ name: optionName(override[1] ?? "", infos, context), value: override[2] ?? "" });
    } else if (flag === null && positional !== undefined && assignments.every(({ name }) => name !== positional)) {
      assignments.push({ name: positional, value: word });
      const isList = findOption(infos, positional)?.kind === "strings";
      while (isList && isFurtherItem(args[index + 1])) {
        assignments.push({ name: positional, value: args[++index] ?? "" });
      }
    } else if (flag === null) {
      if (!/\.(ya?ml|json)$/i.test(word)) {
        throw new ConfigError(`unexpected "${word}": options are written --name value or name=value.`);
      }
      assignments.push({ name: "config", value: word });
    } else if (flag[2] !== undefined) {
      assignments.push({ name: optionName(flag[1] ?? "", infos, context), value: flag[2] });
    } else {
      const negated = negatedFlag(flag[1] ?? "", infos);
      const name = negated ?? optionName(flag[1] ?? "", infos, context);
      const known = findOption(infos, name);
      const optionalValue = known?.kind === "boolean" || (known === undefined && name !== "config");
      if (negated !== undefined) {
        assignments.push({ name, value: false });
      } else if (optionalValue && !isValueOfFlag(following, known !== undefined)) {
        assignments.push({ name, value: true });
      } else if (known?.kind === "flagOrText" && !isFurtherItem(following)) {
        assignments.push({ name, value: true });
      } else {
        if (following === undefined || /^--[A-Za-z]/.test(following)) {
          throw new ConfigError(
            `option "${word}" needs a value: ${known ? expectedOf(known) : "a YAML or JSON file"}.`,
          );
        }
        index++;
        if (known === undefined && name !== "config" && isFurtherItem(args[index + 1])) {
          // An option that this project does not have keeps its list as one value.
          const items = [following];
          while (isFurtherItem(args[index + 1])) items.push(args[++index] ?? "");
          assignments.push({ name, value: items });
          continue;
        }
        assignments.push({ name, value: following });
        // `--lora_target_modules q_proj v_proj`, as Python's argument parsers read a list.
        while (known?.kind === "strings" && isFurtherItem(args[index + 1])) {
          assignments.push({ name, value: args[index + 1] });
          index++;
        }
      }
    }
  }
  return assignments;
}

/** Whether a word after an item of a list is the next one, and neither an option nor a configuration file. */
function isFurtherItem(word: string | undefined): boolean {
  return word !== undefined && !/^--[A-Za-z]|^[A-Za-z_][\w-]*=|\.(ya?ml|json)$/.test(word);
}

/** Whether the word after a flag is its value; an option that the schema lacks may or may not be a flag. */
function isValueOfFlag(word: string | undefined, known: boolean): boolean {
  if (word === undefined) return false;
  if (known) return booleanWord(word) !== undefined;
  return !word.startsWith("--") && !word.includes("=");
}

/** `--no_shuffle_dataset`, as transformers writes it. */
function negatedFlag(written: string, infos: readonly OptionInfo[]): string | undefined {
  const name = normalName(written);
  if (!name.startsWith("no_")) return undefined;
  const info = findOption(infos, name.slice(3));
  return info?.kind === "boolean" ? info.name : undefined;
}

/** The canonical name; "config" is the file's. */
function optionName(written: string, infos: readonly OptionInfo[], context: ParseContext): string {
  return normalName(written) === "config" ? "config" : knownName(written, infos, context);
}
