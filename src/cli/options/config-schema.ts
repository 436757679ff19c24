/**
 * The JSON schema of a configuration file, from the table of options: editors complete names and values by it, show
 * what an option does, and mark what a run would refuse. It knows one spelling of a name; the command line knows more.
 */
import * as z from "zod";
import { type OptionInfo, optionInfos } from "../../kto/options/option.ts";
import type { KnownOptions } from "./description.ts";

type JsonSchema = Readonly<Record<string, unknown>>;

const FOREIGN = { description: "an option of TRL's that is not one here: taken where it asks for nothing" };

/** @param title what the options are for, in a line */
export function configSchema({ schema, context }: KnownOptions, title: string): JsonSchema {
  const infos = optionInfos(schema);
  const own = infos.map((info) => [info.name, propertyOf(info)] as const);
  const aliases = infos.flatMap(({ name, about }) =>
    (about.aliases ?? []).map((alias) => [alias, { allOf: [{ $ref: `#/properties/${name}` }] }] as const),
  );
  const foreign = [...(context.foreign?.keys() ?? [])].map((name) => [name, FOREIGN] as const);
  return {
    $schema: "http://json-schema.org/draft-07/schema#",
    title,
    type: "object",
    properties: { ...Object.fromEntries([...own, ...aliases]), ...Object.fromEntries(foreign) },
    additionalProperties: false,
  };
}

function propertyOf(info: OptionInfo): JsonSchema {
  const { about, defaultValue, required } = info;
  const shapes = [...valuesOf(info), ...(isNullable(info) ? [{ type: "null" }] : [])];
  return {
    description: required ? `${about.description} (required)` : about.description,
    ...(shapes.length === 1 ? shapes[0] : { anyOf: shapes }),
    ...(defaultValue === undefined ? {} : { default: defaultValue }),
  };
}

/** null stands for "not set" where there is such a thing. */
function isNullable({ about, defaultValue, required }: OptionInfo): boolean {
  return about.nullMeans !== undefined || (!required && defaultValue === undefined);
}

function valuesOf({ kind, about, schema }: OptionInfo): JsonSchema[] {
  const { $schema: _, ...values } = z.toJSONSchema(schema, { target: "draft-7", unrepresentable: "any", io: "input" });
  const own = withoutIntegerBounds(values);
  if (kind === "strings") return [own, { type: "string" }];
  const others = Object.keys(about.valueAliases ?? {});
  return others.length === 0 ? [own] : [own, { enum: others }];
}

/** zod bounds whole numbers by what JavaScript counts exactly, which is no news to whoever writes a file. */
function withoutIntegerBounds(schema: JsonSchema): JsonSchema {
  const { minimum, maximum, ...rest } = schema;
  return {
    ...rest,
    ...(minimum === undefined || minimum === Number.MIN_SAFE_INTEGER ? {} : { minimum }),
    ...(maximum === undefined || maximum === Number.MAX_SAFE_INTEGER ? {} : { maximum }),
  };
}
