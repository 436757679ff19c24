/**
 * The spellings of options on a command line: --snake_case, --kebab-case, --name=value, --flag, --no_flag, name=value,
 * and a YAML or JSON file. Later ones win; the file loses against all of them, wherever it stands. Types and ranges are
 * not looked at here, except to tell a flag from an option that takes a value. commander prints the help and picks the
 * command; it cannot read the values, because it loses the order between --name and name=value.
 */
import { parseDocument } from "yaml";
import { fromTypedNumbers } from "../../engine/files/exact-json.ts";
import { ConfigError, errorMessage } from "../../errors.ts";
import { findOption, normalName } from "../../kto/options/names.ts";
import { expectedOf, type OptionInfo, optionInfos } from "../../kto/options/option.ts";
import { type ParseContext, unknownOption } from "../../kto/options/parse.ts";
import { booleanWord } from "../../kto/options/values.ts";
import { readTextFile } from "../terminal/files.ts";
import type { KnownOptions, OptionInput } from "./description.ts";

/** Brackets within brackets in a configuration file. */
const DEEPEST = 100;

interface Assignment {
  /** The option's name, or the normalised spelling of a name that the schema lacks. */
  readonly name: string;
  readonly value: unknown;
}

/**
 * Everything after the command's name, and the configuration file that it may name, as one record of values.
 *
 * @throws ConfigError for an unknown option, an option without its value, a stray word or a malformed file
 * @throws FileError if the configuration file cannot be read
 */
export async function readOptions(
  args: readonly string[],
  { schema, context, positional }: KnownOptions,
): Promise<OptionInput> {
  const infos = optionInfos(schema);
  const assignments = readArguments(args, infos, context, positional);
  const file = assignments.findLast((assignment) => assignment.name === "config")?.value;
  const values: Record<string, unknown> = {};
  const inFile = new Set<string>();
  const whereInFile = ` in ${String(file)}`;
  if (file !== undefined) {
    for (const [written, value] of await readConfigFile(String(file))) {
      const name = knownName(written, infos, context, whereInFile);
      if (Object.hasOwn(values, name)) {
        throw new ConfigError(`option "${name}" stands twice${whereInFile}, once as "${written}": keep one.`);
      }
      values[name] = fromTypedNumbers(value, findOption(infos, name)?.about.exact === true);
      inFile.add(name);
    }
  }
  const repeated = new Set<string>();
  for (const { name, value } of assignments) {
    if (name === "config") continue;
    if (findOption(infos, name)?.kind === "strings") {
      const earlier = repeated.has(name) ? (values[name] as unknown[]) : [];
      values[name] = [...earlier, value];
      repeated.add(name);
    } else {
      values[name] = value;
    }
    inFile.delete(name);
  }
  return { values, where: (name) => (inFile.has(name) ? whereInFile : "") };
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
      assignments.push({ name: knownName(override[1] ?? "", infos, context), value: override[2] ?? "" });
    } else if (flag === null && positional !== undefined && assignments.every(({ name }) => name !== positional)) {
      assignments.push({ name: positional, value: word });
    } else if (flag === null) {
      if (!/\.(ya?ml|json)$/i.test(word)) {
        throw new ConfigError(`unexpected "${word}": options are written --name value or name=value.`);
      }
      assignments.push({ name: "config", value: word });
    } else if (flag[2] !== undefined) {
      assignments.push({ name: knownName(flag[1] ?? "", infos, context), value: flag[2] });
    } else {
      const negated = negatedFlag(flag[1] ?? "", infos);
      const name = negated ?? knownName(flag[1] ?? "", infos, context);
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
        assignments.push({ name, value: following });
        index++;
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

/** The canonical name, also of options that are known only in order to be refused by their value. */
function knownName(written: string, infos: readonly OptionInfo[], context: ParseContext, place = ""): string {
  const name = normalName(written);
  if (name === "config" && place === "") return name;
  const info = findOption(infos, name);
  if (info !== undefined) return info.name;
  if (context.foreign?.has(name)) return name;
  throw unknownOption(written, infos, { ...context, where: () => place });
}

/** The members of the mapping that a YAML or JSON file holds, their values as `fromTypedNumbers` takes them. */
async function readConfigFile(path: string): Promise<[name: string, value: unknown][]> {
  const text = await readTextFile(path, "configuration file");
  checkNesting(path, text);
  const document = parseDocument(text, { prettyErrors: true, intAsBigInt: true });
  const fault = document.errors[0];
  if (fault !== undefined) {
    const line = fault.linePos?.[0].line;
    const reason = (fault.message.split("\n")[0] ?? "").replace(/ at line \d+, column \d+:?$/, "");
    throw new ConfigError(`${path}${line === undefined ? "" : `:${line}`} cannot be parsed: ${reason}.`);
  }
  let value: unknown;
  try {
    value = document.toJS({ mapAsMap: true });
  } catch (error) {
    throw new ConfigError(`${path} cannot be read: ${errorMessage(error)}.`, { cause: error });
  }
  if (value === null || value === undefined) return [];
  if (!(value instanceof Map)) {
    throw new ConfigError(`${path} does not hold options: expected lines of "name: value".`);
  }
  return [...(value as Map<unknown, unknown>)].map(([name, held]) => [String(name ?? ""), held]);
}

/** The parser's time grows with the square of the depth, and no option holds more than a list. */
function checkNesting(path: string, text: string): void {
  let depth = 0;
  for (const [bracket] of text.matchAll(/[[\]{}]/g)) {
    depth = bracket === "[" || bracket === "{" ? depth + 1 : Math.max(0, depth - 1);
    if (depth > DEEPEST) {
      throw new ConfigError(
        `${path} cannot be read: its values nest more than ${DEEPEST} deep; options are plain values and lists of them.`,
      );
    }
  }
}
