/**
 * Turns loosely typed values (YAML, command line, JavaScript) into checked ones, or into the sentence that refuses
 * them. How options are spelled on a command line stands in `src/cli/options/command-line.ts`.
 */
import type * as z from "zod";
import { ConfigError, shown } from "../../errors.ts";
import { findOption, nearest, normalName } from "./names.ts";
import { expectedOf, type OptionInfo, optionInfos } from "./option.ts";
import { coerce, isOff, sameValue } from "./values.ts";

/**
 * An option of TRL's that does not exist here. `harmless` are the values that ask for nothing beyond what is done
 * anyway.
 */
export interface ForeignOption {
  readonly harmless: "any" | readonly unknown[];
  /** If the value is a mapping: the only keys that it may have. */
  readonly keys?: readonly string[];
  /** It asks for other arithmetic, at most coarser than what is done; else for speed, memory or reporting. */
  readonly concernsNumbers?: true;
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
  /** What was found wrong before, to be told together with what is found here; whole sentences. */
  readonly problems?: readonly string[];
  /** Called with a sentence about options that are accepted and have no effect here. */
  readonly onNote?: (sentence: string) => void;
}

/**
 * Reads values as people write them (names in any spelling, numbers and booleans as text, null or "none" for "not set")
 * and fills in the defaults.
 *
 * @throws ConfigError with a sentence for each option that is refused, all at once: its name, its value and its range;
 * for an unknown option, the nearest one
 */
export function parseOptions<S extends z.ZodObject>(
  schema: S,
  input: Readonly<Record<string, unknown>>,
  context: ParseContext = {},
): z.output<S> {
  const infos = optionInfos(schema);
  const where = context.where ?? (() => "");
  const problems = [...(context.problems ?? [])];
  const accepted: { readonly as: string; readonly foreign: ForeignOption }[] = [];
  const given = new Map<string, { written: unknown; as: string }>();
  const values: Record<string, unknown> = {};
  for (const [as, written] of Object.entries(input)) {
    if (written === undefined) continue;
    const info = findOption(infos, as);
    if (info === undefined) {
      const problem = foreignProblem(as, written, infos, context);
      if (problem !== undefined) problems.push(problem);
      const foreign = context.foreign?.get(normalName(as));
      if (problem === undefined && foreign !== undefined && !isOff(written)) accepted.push({ as, foreign });
      continue;
    }
    const value = coerce(info, written);
    if (info.kind === "object" && typeof value === "object" && value !== null && Object.hasOwn(value, "__proto__")) {
      // zod leaves this key out without a word.
      problems.push(`option "${as}"${where(info.name)} has the key "__proto__", which it cannot have: remove it.`);
      continue;
    }
    const earlier = given.get(info.name);
    if (
      earlier !== undefined &&
      shown(values[info.name], Number.POSITIVE_INFINITY) !== shown(value, Number.POSITIVE_INFINITY)
    ) {
      problems.push(
        `options "${earlier.as}" and "${as}" are the same option but say ${show(earlier.written)} and ${show(written)}: keep one.`,
      );
      continue;
    }
    given.set(info.name, { written, as });
    if (value !== undefined) values[info.name] = value;
  }
  const refused = new Set<string>();
  for (const info of infos) {
    const problem = valueProblem(info, values[info.name], given.get(info.name)?.as ?? info.name, where);
    if (problem === undefined) continue;
    problems.push(problem);
    refused.add(info.name);
  }
  const result = schema.safeParse(values);
  for (const issue of result.success ? [] : result.error.issues) {
    const name = String(issue.path[0] ?? "");
    if (refused.has(name)) continue;
    refused.add(name);
    const info = findOption(infos, name);
    const set = given.get(name);
    if (info === undefined) problems.push(`the options cannot be used: ${issue.message}.`);
    else if (set === undefined || values[name] === undefined) {
      problems.push(`option "${name}"${where(name)} is required: ${expectedOf(info)}.`);
    } else {
      // A number that came as text is shown as a number; what is not one is shown as it was written.
      const found = typeof values[name] === "number" ? values[name] : set.written;
      problems.push(`option "${set.as}"${where(name)} is ${show(found)}; it must be ${expectedOf(info)}.`);
    }
  }
  if (problems.length > 0) throw inOneError(problems);
  if (!result.success) throw result.error; // every issue was told above
  tellAccepted(accepted, context.onNote);
  return result.data;
}

/** The canonical name of an option of ours, or of TRL's; undefined where there is no such option. */
export function ourName(written: string, infos: readonly OptionInfo[], context: ParseContext): string | undefined {
  const name = normalName(written);
  return findOption(infos, name)?.name ?? (context.foreign?.has(name) ? name : undefined);
}

/** A problem as it is; several in one error, so that a person mends all of them before the next try. */
function inOneError(problems: readonly string[]): ConfigError {
  const [first = "", ...more] = problems;
  if (more.length === 0) return new ConfigError(first);
  return new ConfigError(`${problems.length} things must be changed: ${problems.join(" ")}`, { problems });
}

/** Tells in two sentences what was accepted and is not done as it was asked for. */
function tellAccepted(
  accepted: readonly { readonly as: string; readonly foreign: ForeignOption }[],
  onNote: (sentence: string) => void = () => undefined,
): void {
  const numbers = accepted.filter(({ foreign }) => foreign.concernsNumbers);
  const others = accepted.filter(({ foreign }) => !foreign.concernsNumbers);
  const names = (list: typeof accepted) => list.map(({ as }) => as).join(", ");
  if (numbers.length > 0) {
    onNote(
      `${names(numbers)}: what is computed is exact attention, in the precision that fp16 and bf16 say (float32 without them).`,
    );
  }
  if (others.length > 0) onNote(`without effect here (speed, memory and reporting elsewhere): ${names(others)}.`);
}

/** What a schema cannot refuse: a value that is known but not supported, and a number that kernels cannot hold. */
function valueProblem(
  { about, name }: OptionInfo,
  value: unknown,
  as: string,
  where: (name: string) => string,
): string | undefined {
  const reason = typeof value === "string" ? about.refused?.[value] : undefined;
  if (reason !== undefined) return `option "${as}"${where(name)} is "${value}", which ${reason}.`;
  if (!about.float32 || typeof value !== "number" || !Number.isFinite(value)) return undefined;
  const rounded = Math.fround(value);
  if (Number.isFinite(rounded) && (value === 0 || Math.abs(rounded) >= 2 ** -126)) return undefined;
  return `option "${as}"${where(name)} is ${value}, which 32-bit floating point cannot hold; its numbers lie between 1.2e-38 and 3.4e38.`;
}

/** The sentence for a name that is nobody's option. */
function unknownOption(name: string, infos: readonly OptionInfo[], context: ParseContext): string {
  const wanted = normalName(name);
  const ours = infos.flatMap((info) => [info.name, ...(info.about.aliases ?? [])]);
  const translated = context.otherProducts?.[wanted];
  const near = translated !== undefined && ours.includes(translated) ? translated : nearest(wanted, ours);
  const hint = near === undefined ? "--help lists the options." : `did you mean "${near}"?`;
  return `unknown option "${name}"${context.where?.(name) ?? ""}: ${hint}`;
}

/** Why an option that the schema lacks is refused; undefined where its value asks for nothing more than is done. */
function foreignProblem(
  as: string,
  written: unknown,
  infos: readonly OptionInfo[],
  context: ParseContext,
): string | undefined {
  const foreign = context.foreign?.get(normalName(as));
  if (foreign === undefined) return unknownOption(as, infos, context);
  if (isHarmless(foreign, written)) return undefined;
  const { reason = "is not implemented yet", remedy = "leave it out" } = foreign;
  return `option "${as}"${context.where?.(as) ?? ""} is ${show(written)}, which ${reason}: ${remedy}.`;
}

function isHarmless({ harmless, keys }: ForeignOption, written: unknown): boolean {
  if (isOff(written) && (harmless === "any" || keys !== undefined)) return true;
  if (keys !== undefined) {
    const given = typeof written === "object" && written !== null ? Object.keys(written) : undefined;
    return given?.every((key) => keys.includes(key)) ?? false;
  }
  return harmless === "any" || harmless.some((value) => sameValue(value, written));
}

function show(value: unknown): string {
  return typeof value === "number" ? String(value) : shown(value);
}
