/** The functions that a chat template can call: Jinja2's own, and those that transformers adds. */

import { bind, integerArgument, textArgument } from "./arguments.ts";
import { charged } from "./compare.ts";
import { TemplateError, typeError, valueError } from "./errors.ts";
import type { Budget } from "./limits.ts";
import { str } from "./print.ts";
import { strftime } from "./strftime.ts";
import { type Arguments, Dict, Func, iterate, Namespace, ObjectValue, Range, Undefined, type Value } from "./values.ts";

/** The longest range that the sandbox of Jinja makes. */
const longestRange = 100_000;

function range({ positional, keywords }: Arguments): Value {
  if (keywords.size > 0) throw typeError("range() takes no keyword arguments");
  if (positional.length === 0 || positional.length > 3) {
    throw typeError(`range expected 1 to 3 arguments, got ${positional.length}`);
  }
  const [first = 0, second, step = 1] = positional.map((value) => {
    if (value instanceof Undefined) throw typeError("'Undefined' object cannot be interpreted as an integer");
    return integerArgument(value);
  });
  if (step === 0) throw valueError("range() arg 3 must not be zero");
  const made = second === undefined ? new Range(0, first, 1) : new Range(first, second, step);
  if (made.length <= longestRange) return made;
  throw new TemplateError(
    "OverflowError",
    `Range too big. The sandbox blocks ranges larger than MAX_RANGE (${longestRange}).`,
  );
}

/** dict(mapping or pairs, **more) */
function dict({ positional, keywords }: Arguments, budget: Budget): Dict {
  if (positional.length > 1) throw typeError(`dict expected at most 1 argument, got ${positional.length}`);
  const [from] = positional;
  if (from instanceof Dict) budget.spend(from.size);
  const made = new Dict(from instanceof Dict ? from.entries() : []);
  if (from !== undefined && !(from instanceof Dict)) {
    for (const pair of iterate(from)) {
      budget.spend(1);
      const [key, value, ...more] = iterate(pair);
      if (key === undefined || value === undefined || more.length > 0) {
        throw valueError("dictionary update sequence element has not length 2");
      }
      made.set(charged(key, budget), value);
    }
  }
  budget.spend(keywords.size);
  for (const [name, value] of keywords) made.set(name, value);
  return made;
}

/** cycler(*items): one after another, and from the beginning again. */
class Cycler extends ObjectValue {
  readonly typeName = "Cycler";
  readonly shown = "<Cycler>";
  readonly #items: readonly Value[];
  #at = 0;

  constructor(items: readonly Value[]) {
    super();
    if (items.length === 0) throw new TemplateError("RuntimeError", "at least one item has to be provided");
    this.#items = items;
  }

  override attribute(name: string): Value | undefined {
    const current = this.#items[this.#at] ?? null;
    switch (name) {
      case "current":
        return current;
      case "next":
        return new Func("next", () => {
          const item = this.#items[this.#at] ?? null;
          this.#at = (this.#at + 1) % this.#items.length;
          return item;
        });
      case "reset":
        return new Func("reset", () => {
          this.#at = 0;
          return null;
        });
    }
    return undefined;
  }
}

function joiner(args: Arguments): Value {
  const [separator = ", "] = bind("joiner", args, { parameters: ["sep"] });
  let used = false;
  return new Func("joiner", () => {
    if (used) return separator;
    used = true;
    return "";
  });
}

/** `self`: the blocks of a template by name, of which a chat template has none. */
export class Blocks extends ObjectValue {
  readonly typeName = "TemplateReference";
  readonly shown = "<TemplateReference None>";
}

/** The functions by name. `now` is the date that strftime_now writes. */
export function globalFunctions(now: () => Date, budget: Budget): [name: string, value: Value][] {
  const functions: Readonly<Record<string, (args: Arguments) => Value>> = {
    range: (args) => range(args),
    dict: (args) => dict(args, budget),
    namespace: (args) => new Namespace(dict(args, budget)),
    cycler: ({ positional }) => new Cycler(positional),
    joiner,
    raise_exception(args) {
      const [message = null] = bind("raise_exception", args, { parameters: ["message"], required: 1 });
      throw new TemplateError("TemplateError", str(message, budget));
    },
    strftime_now(args) {
      const [format] = bind("strftime_now", args, { parameters: ["format"], required: 1 });
      const text = textArgument(format, "strftime() argument 1");
      // A directive of two characters may be a whole date.
      budget.spend(8 * text.length);
      return strftime(now(), text);
    },
  };
  return Object.entries(functions).map(([name, run]) => [name, new Func(name, run, "function")]);
}
