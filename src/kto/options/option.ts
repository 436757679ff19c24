/**
 * What an option is: a zod schema, which has its type, range and default, and what a person is told of it. Which
 * options there are stands in the other files of this folder and of `src/cli`; how values are read, in `parse.ts`.
 */
import * as z from "zod";

/** What a person is told about one option, and what a schema cannot say. */
export interface OptionAbout {
  /** Heading in the help text. */
  readonly group: string;
  /** One line, without a full stop. */
  readonly description: string;
  /** The range in words, to follow "it must be"; follows from the schema where it is absent. */
  readonly expects?: string;
  /** What stands for the value in the help text; follows from the type where it is absent. */
  readonly placeholder?: string;
  /** Other names of the same option. */
  readonly aliases?: readonly string[];
  /** Other names of values. */
  readonly valueAliases?: Readonly<Record<string, string>>;
  /** Values that people know and that are refused, each with the reason, a clause after "which". */
  readonly refused?: Readonly<Record<string, string>>;
  /** What null or "none" stands for; without it they are refused unless the option has no default. */
  readonly nullMeans?: string | number | boolean | Readonly<Record<string, never>>;
  /** Chat templates see it: what JSON tells apart and JavaScript does not, as 1.0 and 1, is kept (exact-json.ts). */
  readonly exact?: true;
  /** Kernels compute with it: it must be a number of 32 bits. */
  readonly float32?: true;
  /** A trainer takes it; the other options are the command line's. */
  readonly trainer?: true;
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
  /** Checks a value that is given; the default is not a part of it. */
  readonly schema: z.ZodType;
  /** undefined when there is none: the option is then required or simply absent. */
  readonly defaultValue: unknown;
  readonly required: boolean;
  /** The words accepted by a choice, or beside the number by a numberOrWord. */
  readonly words: readonly string[];
}

const abouts = z.registry<OptionAbout>();

/** Attaches the description to a schema of the option's own; types and defaults stay zod's. */
export function option<S extends z.ZodType>(schema: S, about: OptionAbout): S {
  if (abouts.has(schema)) throw new Error(`a schema of two options; one is to ${about.description}`);
  abouts.add(schema as z.ZodType, about);
  return schema;
}

declare const ofTrainer: unique symbol;
/** Tells the compiler what `OptionAbout.trainer` tells at run time. */
export interface OfTrainer {
  readonly [ofTrainer]: true;
}

/** Makes the options of one heading; `trainerOption` makes those that a trainer takes. */
export function optionGroup(group: string) {
  type About = Omit<OptionAbout, "group" | "trainer">;
  return {
    option: <S extends z.ZodType>(schema: S, about: About): S => option(schema, { group, ...about }),
    trainerOption: <S extends z.ZodType>(schema: S, about: About) =>
      option(schema, { group, trainer: true, ...about }) as S & OfTrainer,
  };
}

/** An option like a given one, with another text or another default; its values and their checks stay. */
export function reuse<S extends z.ZodType>(
  schema: S,
  { default: value, ...about }: Partial<OptionAbout> & { readonly default?: z.output<S> },
): S {
  const own =
    value !== undefined && schema instanceof z.ZodDefault
      ? (schema.unwrap() as z.ZodType).default(value)
      : schema.clone();
  return option(own as z.ZodType as S, { ...aboutOf(schema), ...about });
}

/** An option like a given one that this command's trainer takes, where the given one's trainer does not. */
export function reuseForTrainer<S extends z.ZodType>(schema: S, about: Partial<OptionAbout>): S & OfTrainer {
  return reuse(schema, { ...about, trainer: true }) as S & OfTrainer;
}

type Shape = Readonly<Record<string, z.ZodType>>;

/** Options as their schemas type them once they are checked. */
export type OptionsOf<S extends Shape> = Readonly<z.output<z.ZodObject<S>>>;

/** The options of a trainer among those of a command. */
export type TrainerShape<S extends Shape> = {
  [Name in keyof S as S[Name] extends OfTrainer ? Name : never]: S[Name];
};

export function trainerShape<S extends Shape>(shape: S): TrainerShape<S> {
  const own = Object.entries(shape).filter(([, field]) => aboutOf(field).trainer);
  return Object.fromEntries(own) as TrainerShape<S>;
}

/** The options of a schema, in its order. */
export function optionInfos(schema: z.ZodObject): OptionInfo[] {
  return Object.entries(schema.shape).map(([name, field]) => describe(name, field as z.ZodType));
}

/** What a value must be, in words to follow "it must be". */
export function expectedOf({ about, schema }: OptionInfo): string {
  return about.expects ?? inWords(z.toJSONSchema(schema));
}

function inWords(schema: z.core.JSONSchema._JSONSchema): string {
  if (typeof schema === "boolean") return "a value";
  if (schema.anyOf) return listed(schema.anyOf.map(inWords));
  if (schema.enum) return listed(schema.enum.map((word) => JSON.stringify(word)));
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.type === "boolean") return "true or false";
  if (schema.type === "object") return "a JSON object or a mapping";
  if (schema.type === "integer") return `a whole number${rangeInWords(schema)}`;
  return schema.type === "number" ? `a number${rangeInWords(schema)}` : "text";
}

/** "a, b or c". */
function listed(words: readonly string[]): string {
  return [words.slice(0, -1).join(", "), ...words.slice(-1)].filter((part) => part !== "").join(" or ");
}

function rangeInWords(schema: z.core.JSONSchema.BaseSchema): string {
  const { minimum: least, exclusiveMinimum: above, exclusiveMaximum: below } = schema;
  const most = schema.maximum === Number.MAX_SAFE_INTEGER ? undefined : schema.maximum; // that of every whole number
  if (above !== undefined && below !== undefined) return ` between ${above} and ${below}`;
  if (above !== undefined) return ` above ${above}${most === undefined ? "" : ` and at most ${most}`}`;
  if (least === undefined || least === Number.MIN_SAFE_INTEGER) return most === undefined ? "" : ` of at most ${most}`;
  if (below !== undefined) return ` from ${least} to below ${below}`;
  return most === undefined ? ` of at least ${least}` : ` from ${least} to ${most}`;
}

function aboutOf(field: z.ZodType): OptionAbout {
  const about = abouts.get(field);
  if (about === undefined) throw new Error("an option lacks its description");
  return about;
}

function describe(name: string, field: z.ZodType): OptionInfo {
  let inner = field;
  let defaultValue: unknown;
  let required = true;
  while (inner instanceof z.ZodDefault || inner instanceof z.ZodOptional) {
    if (inner instanceof z.ZodDefault) defaultValue = inner.def.defaultValue;
    required = false;
    inner = inner.unwrap() as z.ZodType;
  }
  return { name, ...kindOf(name, inner), about: aboutOf(field), schema: inner, defaultValue, required };
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
