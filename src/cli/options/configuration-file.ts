/**
 * A YAML or JSON file of options. One that was written for another product is translated into ours
 * (src/kto/options/dialects), and what it became can be shown.
 */
import { parse, parseDocument, stringify } from "yaml";
import { fromTypedNumbers } from "../../engine/files/exact-json.ts";
import { ConfigError, errorMessage } from "../../errors.ts";
import type { Dialect, Entry, OptionsInFile, Translation } from "../../kto/options/dialects/dialect.ts";
import { findOption, normalName } from "../../kto/options/names.ts";
import type { OptionInfo } from "../../kto/options/option.ts";
import { ourName, type ParseContext } from "../../kto/options/parse.ts";
import { readTextFile } from "../terminal/files.ts";

/** Brackets within brackets in a configuration file. */
const DEEPEST = 100;

/** The options of a file, ready to be checked. */
export interface ConfigurationFile {
  readonly values: ReadonlyMap<string, unknown>;
  /** What follows an option's name in messages, e.g. " in run.yaml". */
  readonly where: (name: string) => string;
  /** What of it cannot be done, whole sentences. */
  readonly problems: readonly string[];
  /** Given where the file was written for another product. */
  readonly translated?: TranslatedFile;
  /** Options of the command line that are the product's, and went into the translation. */
  readonly taken: ReadonlySet<string>;
}

/** A file in the words of another product, and in ours. */
export interface TranslatedFile {
  readonly path: string;
  readonly product: string;
  readonly entries: readonly Entry[];
  readonly withoutEffect: readonly string[];
}

/** What is known of a command's options. */
interface Known {
  readonly infos: readonly OptionInfo[];
  readonly context: ParseContext;
  readonly dialects: readonly Dialect[];
}

/**
 * Reads a file of options.
 *
 * @param overrides options of the command line that are not known here; where the file was written for another product,
 *   they may be options of that product
 * @throws ConfigError for a malformed file; FileError for one that cannot be read
 */
export async function readConfigurationFile(
  path: string,
  overrides: OptionsInFile,
  { infos, context, dialects }: Known,
): Promise<ConfigurationFile> {
  const members = await membersOf(path);
  const plain = Object.fromEntries(members.map(([name, value]) => [name, fromTypedNumbers(value, false)]));
  const dialect = dialects.find(({ recognises }) => recognises(plain));
  const exactly = (name: string, value: unknown) =>
    fromTypedNumbers(value, findOption(infos, name)?.about.exact === true);
  if (dialect === undefined) {
    const values = new Map<string, unknown>();
    for (const [written, value] of members) {
      const name = knownName(written, infos, context);
      if (values.has(name)) {
        throw new ConfigError(`option "${name}" stands twice in ${path}, once as "${written}": keep one.`);
      }
      values.set(name, exactly(name, value));
    }
    return { values, where: () => ` in ${path}`, problems: [], taken: new Set() };
  }
  const own = Object.entries(overrides).filter(([name]) => dialect.knows(normalName(name)));
  const given = { ...plain, ...Object.fromEntries(own.map(([name, value]) => [normalName(name), typed(value)])) };
  const translation = await dialect.translate(given, (written) => ourName(written, infos, context));
  const raw = new Map(members);
  const values = translation.entries.map(({ name, value, from }): [string, unknown] => {
    const untouched = from !== undefined && given[from] === value && raw.has(from) && plain[from] === value;
    return [name, untouched ? exactly(name, raw.get(from)) : value];
  });
  return {
    values: new Map(values),
    where: placeIn(path, dialect.product, translation),
    problems: translation.problems.map((problem) => problem.replace(/^(option "[^"]*")/, `$1 in ${path}`)),
    translated: { path, product: dialect.product, ...translation },
    taken: new Set(own.map(([name]) => name)),
  };
}

/** The canonical name of an option, or its spelling where there is no such option. */
export function knownName(written: string, infos: readonly OptionInfo[], context: ParseContext): string {
  return ourName(written, infos, context) ?? written;
}

/** A translated file in our words, as lines of YAML with what each of them was. */
export function translationLines({ path, product, entries, withoutEffect }: TranslatedFile): string[] {
  const lines = entries.map(({ name, value, from }) => {
    const written = stringify({ [name]: value }, { flowCollectionPadding: false, lineWidth: 0 }).trimEnd();
    const flat = written.includes("\n") ? `${name}: ${JSON.stringify(value)}` : written;
    const why = from === undefined ? `${product}'s default` : from;
    return from === name ? flat : `${flat}  # ${why}`;
  });
  const idle = withoutEffect.length === 0 ? [] : [`# without effect here: ${withoutEffect.join(", ")}`];
  return [`# ${path}, written for ${product}, is read as:`, ...lines, ...idle];
}

/** A value of a command line as YAML reads it, or as it is where it is no YAML. */
function typed(value: unknown): unknown {
  if (typeof value !== "string") return value;
  try {
    return parse(value) as unknown;
  } catch {
    return value;
  }
}

function placeIn(path: string, product: string, { entries }: Translation): (name: string) => string {
  const sources = new Map(entries.map(({ name, from }) => [name, from]));
  return (name) => {
    const from = sources.get(name);
    if (from === undefined) return sources.has(name) ? ` (${product}'s default)` : ` in ${path}`;
    return from === name ? ` in ${path}` : ` (${from} in ${path})`;
  };
}

/** The members of the mapping that a YAML or JSON file holds, their values as `fromTypedNumbers` takes them. */
async function membersOf(path: string): Promise<[name: string, value: unknown][]> {
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
