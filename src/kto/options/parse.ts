/**
 * Options in general: a zod schema whose fields carry what a person needs to know (group, description, range), and the
 * way from loosely typed values (YAML, command line, JavaScript) to checked ones. Which options there are stands in
 * `config.ts` and in the files of `src/cli`; how they are spelled on a command line, in `src/cli/options/command-line.ts`.
 */
import * as z from "zod";
import { ConfigError, shown } from "../../errors.ts";
import { nearest } from "./nearest.ts";

/** What a person is told about one option. */
export interface OptionAbout {
  /** Heading in the help text. */
  readonly group: string;
  /** One line, without a full stop. */
  readonly description: string;
  /** The range in words, to follow "it must be". */
  readonly expects: string;
  /** What stands for the value in the help text; derived from the type when absent. */
  readonly placeholder?: string;
  /** Other names of the same option. */
  readonly aliases?: readonly string[];
  /** Other names of values. */
  readonly valueAliases?: Readonly<Record<string, string>>;
  /** What null or "none" stands for; without it they are refused unless the option has no default. */
  readonly nullMeans?: string | number | boolean;
}

export type OptionKind =
  | "number"
  | "boolean"
  | "string"
  | "choice"
  | "numberOrWord"
  | "flagOrText"
  | "strings"
  | "object";

export interface OptionInfo {
  readonly name: string;
  readonly kind: OptionKind;
  readonly about: OptionAbout;
  /** undefined when there is none: the option is then required or simply absent. */
  readonly defaultValue: unknown;
  readonly required: boolean;
  /** The words accepted by a choice, or beside the number by a numberOrWord. */
  readonly words: readonly string[];
}

/** An option of TRL that has no counterpart here; `harmless` are the values that ask for nothing that is not done. */
export interface ForeignOption {
  readonly harmless: "any" | readonly unknown[];
  /** Why other values are refused, a clause after "which"; default that it is not implemented yet. */
  readonly reason?: string;
  /** The remedy, a clause after "so". */
  readonly remedy?: string;
}

export interface ParseContext {
  /** Options to be accepted or refused by value though the schema lacks them. */
  readonly foreign?: ReadonlyMap<string, ForeignOption>;
  /** Names that people bring from other products, and ours for each. */
  readonly otherProducts?: Readonly<Record<string, string>>;
  /** Where an option was set, to follow its name in messages, e.g. " in run.yaml". */
  readonly where?: (name: string) => string;
}

/** Attaches the description; types and defaults stay zod's. */
export function option<S extends z.ZodType>(schema: S, about: OptionAbout): S {
  return schema.meta({ ...about });
}

/** The same option with another text or another default. */
export function reuse<S extends z.ZodType>(schema: S, about: Partial<OptionAbout>, own: z.ZodType = schema): S {
  return option(schema, { ...(own.meta() as unknown as OptionAbout), ...about });
}

/** The options of a schema, in its order. */
export function optionInfos(schema: z.ZodObject): OptionInfo[] {
  return Object.entries(schema.shape).map(([name, field]) => describe(name, field as z.ZodType));
}

/** `--Learning-Rate` and `learning_rate` are one name. */
export function normalName(name: string): string {
  return name.trim().toLowerCase().replaceAll("-", "_");
}

/** The option that a name or alias stands for. */
export function findOption(infos: readonly OptionInfo[], name: string): OptionInfo | undefined {
  const wanted = normalName(name);
  return infos.find((info) => info.name === wanted || info.about.aliases?.includes(wanted));
}

/**
 * Values as written by people to values as the schema wants them: names in any spelling, numbers and booleans as text,
 * null or "none" for "not set", defaults filled in.
 *
 * @throws ConfigError, one sentence naming the option, the value and the range; for an unknown option, the nearest one.
 */
export function parseOptions<S extends z.ZodObject>(
  schema: S,
  input: Readonly<Record<string, unknown>>,
  context: ParseContext = {},
): z.output<S> {
  const infos = optionInfos(schema);
  const where = context.where ?? (() => "");
  const given = new Map<string, { written: unknown; as: string }>();
  const values: Record<string, unknown> = {};
  for (const [as, written] of Object.entries(input)) {
    if (written === undefined) continue;
    const info = findOption(infos, as);
    if (info === undefined) {
      checkForeign(as, written, infos, context);
      continue;
    }
    const value = coerce(info, written);
    const earlier = given.get(info.name);
    if (
      earlier !== undefined &&
      shown(values[info.name], Number.POSITIVE_INFINITY) !== shown(value, Number.POSITIVE_INFINITY)
    ) {
      throw new ConfigError(
        `options "${earlier.as}" and "${as}" are the same option but say ${show(earlier.written)} and ${show(written)}: keep one.`,
      );
    }
    given.set(info.name, { written, as });
    if (value !== undefined) values[info.name] = value;
  }
  const result = schema.safeParse(values);
  if (result.success) return result.data;
  const name = String(result.error.issues[0]?.path[0] ?? "");
  const info = findOption(infos, name);
  if (info === undefined) throw new ConfigError(`the options cannot be used: ${result.error.issues[0]?.message}.`);
  const set = given.get(name);
  if (set === undefined || values[name] === undefined) {
    throw new ConfigError(`option "${name}" is required: ${info.about.expects}.`);
  }
  // A number that came as text is shown as a number; what is not one is shown as it was written.
  const found = typeof values[name] === "number" ? values[name] : set.written;
  throw new ConfigError(`option "${set.as}"${where(name)} is ${show(found)}; it must be ${info.about.expects}.`);
}

/** The sentence for a name that is nobody's option. */
export function unknownOption(
  name: string,
  infos: readonly OptionInfo[],
  context: Pick<ParseContext, "foreign" | "otherProducts" | "where"> = {},
): ConfigError {
  const wanted = normalName(name);
  const ours = infos.flatMap((info) => [info.name, ...(info.about.aliases ?? [])]);
  const translated = context.otherProducts?.[wanted];
  const near = translated !== undefined && ours.includes(translated) ? translated : nearest(wanted, ours);
  const hint = near === undefined ? "--help lists the options." : `did you mean "${near}"?`;
  return new ConfigError(`unknown option "${name}"${context.where?.(name) ?? ""}: ${hint}`);
}

/** "yes", "True", "1", ... as YAML 1.1 and Python's argument parsers read them; undefined for any other text. */
export function booleanWord(text: string): boolean | undefined {
  const word = text.trim().toLowerCase();
  if (["true", "yes", "on", "1", "y", "t"].includes(word)) return true;
  if (["false", "no", "off", "0", "n", "f"].includes(word)) return false;
  return undefined;
}

function describe(name: string, field: z.ZodType): OptionInfo {
  const about = field.meta() as unknown as OptionAbout | undefined;
  if (about?.expects === undefined) throw new Error(`option ${name} lacks its description`);
  let inner: z.ZodType = field;
  let defaultValue: unknown;
  let required = true;
  while (inner instanceof z.ZodDefault || inner instanceof z.ZodOptional) {
    if (inner instanceof z.ZodDefault) defaultValue = inner.def.defaultValue;
    required = false;
    inner = inner.unwrap() as z.ZodType;
  }
  return { name, ...kindOf(name, inner), about, defaultValue, required };
}

function kindOf(name: string, schema: z.ZodType): Pick<OptionInfo, "kind" | "words"> {
  if (schema instanceof z.ZodNumber) return { kind: "number", words: [] };
  if (schema instanceof z.ZodBoolean) return { kind: "boolean", words: [] };
  if (schema instanceof z.ZodString) return { kind: "string", words: [] };
  if (schema instanceof z.ZodArray) return { kind: "strings", words: [] };
  if (schema instanceof z.ZodRecord) return { kind: "object", words: [] };
  if (schema instanceof z.ZodEnum) return { kind: "choice", words: schema.options.map(String) };
  if (schema instanceof z.ZodUnion) {
    if (schema.options.some((part) => part instanceof z.ZodBoolean)) return { kind: "flagOrText", words: [] };
    const words = schema.options.flatMap((part) => (part instanceof z.ZodLiteral ? [...part.values].map(String) : []));
    return { kind: "numberOrWord", words };
  }
  throw new Error(`option ${name} has a type that options cannot have`);
}

/** The value in the option's own type where its text allows it; whatever else comes is left for the schema to refuse. */
function coerce(info: OptionInfo, written: unknown): unknown {
  if (info.kind === "strings" && written !== null) {
    return Array.isArray(written) ? written.map((item) => (isScalar(item) ? String(item) : item)) : [String(written)];
  }
  if (isNull(written) && !(typeof written === "string" && info.words.includes(written))) {
    if (info.about.nullMeans !== undefined) return info.about.nullMeans;
    return !info.required && info.defaultValue === undefined ? undefined : written;
  }
  if (!isScalar(written)) return written;
  const text = String(written).trim();
  switch (info.kind) {
    case "number":
      return typeof written === "number" ? written : (numberFromText(text, written) ?? written);
    case "boolean":
      return booleanWord(text) ?? written;
    case "flagOrText":
      return booleanWord(text) ?? text;
    case "choice": {
      const word = text.toLowerCase();
      return info.about.valueAliases?.[word] ?? word;
    }
    case "numberOrWord":
      return typeof written === "number" ? written : (numberFromText(text, written) ?? text.toLowerCase());
    case "string":
      return String(written);
    case "object":
      return jsonFromText(text) ?? written;
    case "strings":
      return written;
  }
}

/** As from a command line; a file's mapping is an object already. */
function jsonFromText(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isScalar(value: unknown): value is string | number | boolean | bigint {
  return ["string", "number", "boolean", "bigint"].includes(typeof value);
}

/** Python's and YAML's ways to say that there is no value. */
function isNull(value: unknown): boolean {
  return value === null || (typeof value === "string" && /^(none|null|~)$/i.test(value.trim()));
}

/** Decimal numbers as Python writes them ("1e-4", "1_000", ".5"); true is not 1. */
function numberFromText(text: string, written: unknown): number | undefined {
  if (typeof written === "boolean") return undefined;
  return /^[+-]?(\d[\d_]*\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text.replaceAll("_", "")) : undefined;
}

function checkForeign(as: string, written: unknown, infos: readonly OptionInfo[], context: ParseContext): void {
  const name = normalName(as);
  const foreign = context.foreign?.get(name);
  if (foreign === undefined) throw unknownOption(as, infos, context);
  if (foreign.harmless === "any" || foreign.harmless.some((value) => sameValue(value, written))) return;
  const remedy = foreign.remedy === undefined ? "leave it out" : foreign.remedy;
  throw new ConfigError(
    `option "${as}"${context.where?.(name) ?? ""} is ${show(written)}, which ${foreign.reason ?? "is not implemented yet"}: ${remedy}.`,
  );
}

/** Equality across the spellings of a value: false, "False" and "no" are one, and so are null and "none". */
function sameValue(harmless: unknown, written: unknown): boolean {
  if (harmless === null) return isNull(written) || written === "";
  if (typeof harmless === "boolean") return isScalar(written) && booleanWord(String(written)) === harmless;
  if (typeof harmless === "number") return isScalar(written) && Number(written) === harmless;
  if (typeof harmless === "string") return isScalar(written) && String(written).trim().toLowerCase() === harmless;
  return shown(harmless) === shown(written, Number.POSITIVE_INFINITY);
}

function show(value: unknown): string {
  return typeof value === "number" ? String(value) : shown(value);
}
