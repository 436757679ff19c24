/**
 * Translates a configuration that was written for another product into the options of this one, by a table of that
 * product: what each of its options becomes here, which of them have no effect, and its defaults where they differ from
 * ours. An option that cannot be translated gives a sentence, and all these sentences are shown together. TRL's names
 * are ours, so TRL has no such table (`trl.ts`).
 */
import { shown } from "../../../errors.ts";
import { booleanWord, isOff } from "../values.ts";

/** Options by their names, as a file has them; null stands for an option that is not set. */
export type OptionsInFile = Readonly<Record<string, unknown>>;

/** Why an option cannot be done, a clause after "which", and what to do, the end of the sentence. */
export class Refused {
  readonly reason: string;
  readonly remedy: string;

  constructor(reason: string, remedy = "leave it out") {
    this.reason = reason;
    this.remedy = remedy;
  }
}

/**
 * What an option of the product becomes: the name of our option, which gets the same value, or a function that makes
 * values of our options from it, or refuses it.
 */
export type Rule = string | Making;

type Making = (value: unknown, all: OptionsInFile) => OptionsInFile | Refused;

/** One of our options in a translation. */
export interface Entry {
  readonly name: string;
  readonly value: unknown;
  /** The option that it was written as; undefined for a default of the product. */
  readonly from: string | undefined;
}

export interface Translation {
  readonly entries: readonly Entry[];
  /** Options that were given and have no effect here. */
  readonly withoutEffect: readonly string[];
  /** Whole sentences. */
  readonly problems: readonly string[];
}

/** The name of the option of ours, or of TRL's, that a spelling stands for; undefined where there is none. */
export type OurName = (written: string) => string | undefined;

/** A product whose configurations are read. */
export interface Dialect {
  readonly product: string;
  /** Whether a file with these options was written for the product. */
  readonly recognises: (values: OptionsInFile) => boolean;
  /** Whether an option on a command line can only mean the product's. */
  readonly knows: (name: string) => boolean;
  readonly translate: (values: OptionsInFile, ourName: OurName) => Promise<Translation>;
}

export interface Table {
  readonly rules: Readonly<Record<string, Rule>>;
  /**
   * The product's options that stand for a required option of ours. Where such an option is refused, ours is given its
   * value as text, so that the user is not told as well that ours is missing. Nothing runs with this value, since a
   * refusal ends the command.
   */
  readonly stands?: Readonly<Record<string, string>>;
  /**
   * Whether an option has no effect here: it concerns speed, memory or reporting, or belongs to a feature whose own flag
   * is refused.
   */
  readonly isIdle: (name: string) => boolean;
  /** Values of options that the file does not set, where the product's defaults are not ours. */
  readonly defaults: (values: OptionsInFile) => OptionsInFile;
}

/** Reads the options of a file by a product's table. Names that it does not have are ours, or must be switched off. */
export function translated(
  given: OptionsInFile,
  { rules, stands = {}, isIdle, defaults }: Table,
  ourName: OurName,
): Translation {
  const values = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== null && value !== undefined));
  const entries = new Map<string, Entry>();
  const problems: string[] = [];
  const idle: string[] = [];
  const add = (name: string, value: unknown, from: string | undefined) => {
    const earlier = entries.get(name);
    if (earlier === undefined || earlier.from === from) entries.set(name, { name, value, from });
    else if (shown(earlier.value) !== shown(value)) {
      problems.push(
        `options "${earlier.from}" and "${from}" both set ${name}, to ${shown(earlier.value)} and ${shown(value)}: keep one.`,
      );
    }
  };
  for (const [from, value] of Object.entries(values)) {
    const rule = Object.hasOwn(rules, from) ? rules[from] : undefined;
    const own = ourName(from);
    if (typeof rule === "string") add(rule, value, from);
    else if (rule !== undefined) {
      const outcome = rule(value, values);
      if (outcome instanceof Refused) {
        problems.push(refusal(from, value, outcome));
        const ours = stands[from];
        if (ours !== undefined && !Object.hasOwn(values, ours)) add(ours, shown(value), from);
      } else for (const [name, made] of Object.entries(outcome)) add(name, made, from);
    } else if (isIdle(from)) {
      if (!isOff(value)) idle.push(from);
    } else if (own !== undefined) add(own, value, from);
    else if (!isOff(value)) problems.push(refusal(from, value, new Refused("has no counterpart here")));
  }
  for (const [name, value] of Object.entries(defaults(values))) {
    if (!entries.has(name)) add(name, value, undefined);
  }
  return { entries: [...entries.values()], withoutEffect: idle, problems };
}

function refusal(name: string, value: unknown, { reason, remedy }: Refused): string {
  return `option "${name}" is ${shown(value)}, which ${reason}: ${remedy}.`;
}

/** A rule for an option that must have one of these values, which ask for nothing more. */
export function only(values: readonly unknown[], reason: string, remedy?: string): Rule {
  return (value) => (values.includes(value) ? {} : new Refused(reason, remedy));
}

/** Whether a value says yes or no; undefined for one that says neither. */
export function yesOrNo(value: unknown): boolean | undefined {
  if (isOff(value)) return false;
  return typeof value === "object" ? undefined : booleanWord(String(value));
}

/** A rule for an option that says yes or no, and nothing else. */
export function onOff(made: (isOn: boolean, all: OptionsInFile) => OptionsInFile | Refused): Making {
  return (value, all) => {
    const isOn = yesOrNo(value);
    return isOn === undefined ? new Refused("is neither true nor false", "use one of them") : made(isOn, all);
  };
}

/** A rule for a flag that turns one of ours on. */
export function flag(name: string, values: { readonly whenTrue: unknown; readonly whenFalse?: unknown }): Making {
  return onOff((isOn) => {
    const made = isOn ? values.whenTrue : values.whenFalse;
    return made === undefined ? {} : { [name]: made };
  });
}
