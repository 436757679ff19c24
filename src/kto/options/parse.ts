/**
 * Turns loosely typed values (YAML, command line, JavaScript) into checked ones, or into the sentence that refuses
 * them. How options are spelled on a command line stands in `src/cli/options/command-line.ts`.
 */
import type * as z from "zod";
import { ConfigError, shown } from "../../errors.ts";
import { findOption, nearest, normalName } from "./names.ts";
import { expectedOf, type OptionInfo, optionInfos } from "./option.ts";
import { coerce, sameValue } from "./values.ts";

/**
 * An option of TRL's that does not exist here. `harmless` are the values that ask for nothing beyond what is done
 * anyway.
 */
export interface ForeignOption {
  readonly harmless: "any" | readonly unknown[];
  /** Why other values are refused, a clause after "which"; default "is not implemented yet". */
  readonly reason?: string;
  /** What to do, the end of the sentence; default "leave it out". */
  readonly remedy?: string;
}

export interface ParseContext {
  /** Options that the schema lacks and that are accepted or refused by their value. */
  readonly foreign?: ReadonlyMap<string, ForeignOption>;
  /** Names that people bring from other products, and ours for each. */
  readonly otherProducts?: Readonly<Record<string, string>>;
  /** Where an option was set, to follow its name in messages, e.g. " in run.yaml". */
  readonly where?: (name: string) => string;
}

/**
 * Reads values as people write them (names in any spelling, numbers and booleans as text, null or "none" for "not set")
 * and fills in the defaults.
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
    if (info.kind === "object" && typeof value === "object" && value !== null && Object.hasOwn(value, "__proto__")) {
      // zod leaves this key out without a word.
      throw new ConfigError(
        `option "${as}"${where(info.name)} has the key "__proto__", which it cannot have: remove it.`,
      );
    }
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
  for (const info of infos) checkValue(info, values[info.name], given.get(info.name)?.as ?? info.name, where);
  const result = schema.safeParse(values);
  if (result.success) return result.data;
  const name = String(result.error.issues[0]?.path[0] ?? "");
  const info = findOption(infos, name);
  if (info === undefined) throw new ConfigError(`the options cannot be used: ${result.error.issues[0]?.message}.`);
  const set = given.get(name);
  if (set === undefined || values[name] === undefined) {
    throw new ConfigError(`option "${name}"${where(name)} is required: ${expectedOf(info)}.`);
  }
  // A number that came as text is shown as a number; what is not one is shown as it was written.
  const found = typeof values[name] === "number" ? values[name] : set.written;
  throw new ConfigError(`option "${set.as}"${where(name)} is ${show(found)}; it must be ${expectedOf(info)}.`);
}

/** Refuses what a schema cannot: a value that is known but not supported, and a number that kernels cannot hold. */
function checkValue({ about, name }: OptionInfo, value: unknown, as: string, where: (name: string) => string): void {
  const reason = typeof value === "string" ? about.refused?.[value] : undefined;
  if (reason !== undefined) throw new ConfigError(`option "${as}"${where(name)} is "${value}", which ${reason}.`);
  if (!about.float32 || typeof value !== "number" || !Number.isFinite(value)) return;
  const rounded = Math.fround(value);
  if (Number.isFinite(rounded) && (value === 0 || Math.abs(rounded) >= 2 ** -126)) return;
  throw new ConfigError(
    `option "${as}"${where(name)} is ${value}, which 32-bit floating point cannot hold; its numbers lie between 1.2e-38 and 3.4e38.`,
  );
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

function checkForeign(as: string, written: unknown, infos: readonly OptionInfo[], context: ParseContext): void {
  const name = normalName(as);
  const foreign = context.foreign?.get(name);
  if (foreign === undefined) throw unknownOption(as, infos, context);
  if (foreign.harmless === "any" || foreign.harmless.some((value) => sameValue(value, written))) return;
  const { reason = "is not implemented yet", remedy = "leave it out" } = foreign;
  throw new ConfigError(
    `option "${as}"${context.where?.(name) ?? ""} is ${show(written)}, which ${reason}: ${remedy}.`,
  );
}

function show(value: unknown): string {
  return typeof value === "number" ? String(value) : shown(value);
}
