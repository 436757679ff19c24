/**
 * The methods of Python's str, with their arguments. Those that make bytes or tables (encode, translate) are not here.
 */
import { bind, integerArgument, noArguments, type Signature, textArgument } from "./arguments.ts";
import { TemplateError, typeError, valueError } from "./errors.ts";
import { braceFormat, type FieldLookup } from "./format.ts";
import { capitalized, caseFolded, isLower, isTitle, isUpper, swapped, titled } from "./letters.ts";
import type { Budget } from "./limits.ts";
import {
  codePointIndex,
  countOf,
  cutText,
  isSpace,
  padText,
  replaced,
  replacedLength,
  type Side,
  sliceIndices,
  split,
  splitFromRight,
  splitLines,
  strip,
} from "./strings.ts";
import { type Arguments, asText, Dict, isTrue, iterate, Tuple, textLength, typeName, type Value } from "./values.ts";

interface Call {
  readonly text: string;
  /** The arguments by position of the parameters; undefined where one was not given. */
  readonly values: readonly (Value | undefined)[];
  readonly budget: Budget;
}

interface Method extends Signature {
  readonly run: (call: Call) => Value;
}

/** A method all of whose arguments are positional. */
function method(parameters: readonly string[], required: number, run: Method["run"]): Method {
  return { parameters, required, positionalOnly: parameters.length, run };
}

/** A method that answers whether all characters are of a kind. */
function every(kind: RegExp, ofEmpty = false): Method {
  return method([], 0, ({ text, budget }) => {
    budget.letters(text);
    return text === "" ? ofEmpty : Array.from(text).every((character) => kind.test(character));
  });
}

function optionalText(value: Value | undefined, name: string): string | undefined {
  return value === undefined || value === null ? undefined : textArgument(value, name);
}

const count = (value: Value | undefined, otherwise: number) =>
  value === undefined ? otherwise : integerArgument(value);
const bound = (value: Value | undefined) =>
  value === undefined || value === null ? undefined : integerArgument(value);

function stripping(side: Side): Method {
  return method(["chars"], 0, ({ text, values: [chars], budget }) => {
    const given = optionalText(chars, "strip arg");
    budget.letters(given ?? "");
    return strip(text, side, given);
  });
}

function splitting(run: typeof split): Method {
  return {
    parameters: ["sep", "maxsplit"],
    run({ text, values: [sep, most], budget }) {
      const separator = optionalText(sep, "sep");
      if (separator === "") throw valueError("empty separator");
      if (separator !== undefined) {
        if (run === splitFromRight) budget.searchFromRight(text, separator);
        else budget.search(text, separator);
      }
      const parts = run(text, separator, count(most, -1));
      budget.spend(parts.length);
      return parts;
    },
  };
}

/** The part of a text between two positions in code points, and where it starts. */
function within(text: string, start: Value | undefined, stop: Value | undefined) {
  const count = textLength(text);
  const { from, length } = sliceIndices(count, bound(start), bound(stop), 1);
  return { part: cutText(text, from, from + length, 1), from, beyond: (bound(start) ?? 0) > count };
}

function finding(fromRight: boolean, refuses: boolean): Method {
  return method(["sub", "start", "end"], 1, ({ text, values: [sub, start, stop], budget }) => {
    const { part, from, beyond } = within(text, start, stop);
    const wanted = textArgument(sub, "must");
    if (fromRight) budget.searchFromRight(part, wanted);
    else budget.search(part, wanted);
    const at = beyond ? -1 : codePointIndex(part, fromRight ? part.lastIndexOf(wanted) : part.indexOf(wanted));
    if (at < 0 && refuses) throw valueError("substring not found");
    return BigInt(at < 0 ? -1 : at + from);
  });
}

function affixed(name: "startswith" | "endswith"): Method {
  return method(["affix", "start", "end"], 1, ({ text, values: [affix, start, stop] }) => {
    const wanted = affix instanceof Tuple ? affix.items : [affix];
    const { part, beyond } = within(text, start, stop);
    const texts = wanted.map((one) => {
      const given = asText(one);
      if (given !== undefined) return given;
      throw typeError(`${name} first arg must be str or a tuple of str, not ${typeName(one ?? null)}`);
    });
    return !beyond && texts.some((one) => (name === "startswith" ? part.startsWith(one) : part.endsWith(one)));
  });
}

function padding(side: "left" | "right" | "center"): Method {
  return method(["width", "fillchar"], 1, ({ text, values: [width, fill], budget }) => {
    const character = fill === undefined ? " " : textArgument(fill, "The fill character");
    if (textLength(character) !== 1) throw typeError("The fill character must be exactly one character long");
    const columns = Math.max(0, count(width, 0));
    budget.text(columns);
    return padText(text, columns, character, side);
  });
}

function partition(fromRight: boolean): Method {
  return method(["sep"], 1, ({ text, values: [sep], budget }) => {
    const separator = textArgument(sep, "sep");
    if (separator === "") throw valueError("empty separator");
    if (fromRight) budget.searchFromRight(text, separator);
    else budget.search(text, separator);
    const at = fromRight ? text.lastIndexOf(separator) : text.indexOf(separator);
    if (at < 0) return new Tuple(fromRight ? ["", "", text] : [text, "", ""]);
    return new Tuple([text.slice(0, at), separator, text.slice(at + separator.length)]);
  });
}

/** A method that answers a question about the letters of a text. */
const asked = (holds: (text: string) => boolean) =>
  method([], 0, ({ text, budget }) => {
    budget.letters(text);
    return holds(text);
  });

/** A method that makes a text letter by letter. */
const lettered = (way: (text: string) => string) =>
  method([], 0, ({ text, budget }) => {
    budget.letters(text);
    return way(text);
  });
const plain = (way: (text: string) => string) => method([], 0, ({ text }) => way(text));

const methods: Readonly<Record<string, Method>> = {
  capitalize: lettered(capitalized),
  casefold: lettered(caseFolded),
  center: padding("center"),
  count: method(["sub", "start", "end"], 1, ({ text, values: [sub, start, stop], budget }) => {
    const { part, beyond } = within(text, start, stop);
    const wanted = textArgument(sub, "must");
    budget.search(part, wanted);
    return beyond ? 0n : BigInt(countOf(part, wanted));
  }),
  endswith: affixed("endswith"),
  expandtabs: {
    parameters: ["tabsize"],
    run({ text, values: [tabsize], budget }) {
      const size = Math.max(0, count(tabsize, 8));
      budget.letters(text);
      budget.text(text.length + countOf(text, "\t") * size);
      let column = 0;
      return Array.from(text, (character) => {
        if (character === "\t") {
          const fill = size === 0 ? 0 : size - (column % size);
          column += fill;
          return " ".repeat(fill);
        }
        column = character === "\n" || character === "\r" ? 0 : column + 1;
        return character;
      }).join("");
    },
  },
  find: finding(false, false),
  index: finding(false, true),
  isalnum: every(/[\p{L}\p{Nd}\p{No}\p{Nl}]/u),
  isalpha: every(/\p{L}/u),
  isascii: every(/[\0-\x7f]/, true),
  isdecimal: every(/\p{Nd}/u),
  isdigit: every(/[\p{Nd}\u00b2\u00b3\u00b9\u2070\u2074-\u2079\u2080-\u2089\u2460-\u2468]/u),
  isidentifier: asked((text) => /^[\p{XID_Start}_]\p{XID_Continue}*$/u.test(text)),
  islower: asked(isLower),
  isnumeric: every(/[\p{Nd}\p{No}\p{Nl}]/u),
  isprintable: every(/[^\p{C}\p{Z}]| /u, true),
  isspace: asked(isSpace),
  istitle: asked(isTitle),
  isupper: asked(isUpper),
  join: method(["iterable"], 1, ({ text, values: [items], budget }) => {
    let size = 0;
    const parts: string[] = [];
    for (const item of iterate(items ?? null)) {
      const part = asText(item);
      if (part === undefined) {
        throw typeError(`sequence item ${parts.length}: expected str instance, ${typeName(item)} found`);
      }
      size += part.length + text.length;
      budget.output(part.length + text.length, size);
      budget.spend(1);
      parts.push(part);
    }
    return parts.join(text);
  }),
  ljust: padding("right"),
  lower: plain((text) => text.toLowerCase()),
  lstrip: stripping("left"),
  partition: partition(false),
  removeprefix: method(["prefix"], 1, ({ text, values: [prefix] }) => {
    const part = textArgument(prefix, "removeprefix() argument");
    return text.startsWith(part) ? text.slice(part.length) : text;
  }),
  removesuffix: method(["suffix"], 1, ({ text, values: [suffix] }) => {
    const part = textArgument(suffix, "removesuffix() argument");
    return text.endsWith(part) ? text.slice(0, text.length - part.length) : text;
  }),
  replace: method(["old", "new", "count"], 2, ({ text, values: [old, by, most], budget }) => {
    const [from, to] = [textArgument(old, "replace() argument 1"), textArgument(by, "replace() argument 2")];
    budget.search(text, from);
    budget.text(replacedLength(text, from, to, count(most, -1)));
    return replaced(text, from, to, count(most, -1));
  }),
  rfind: finding(true, false),
  rindex: finding(true, true),
  rjust: padding("left"),
  rpartition: partition(true),
  rsplit: splitting(splitFromRight),
  rstrip: stripping("right"),
  split: splitting(split),
  splitlines: {
    parameters: ["keepends"],
    run({ text, values: [keepEnds], budget }) {
      const lines = splitLines(text, isTrue(keepEnds ?? false));
      budget.spend(lines.length);
      return lines;
    },
  },
  startswith: affixed("startswith"),
  strip: stripping("both"),
  swapcase: lettered(swapped),
  title: lettered(titled),
  upper: plain((text) => text.toUpperCase()),
  zfill: method(["width"], 1, ({ text, values: [width], budget }) => {
    const columns = Math.max(0, count(width, 0));
    budget.text(columns);
    const sign = /^[-+]/.exec(text)?.[0] ?? "";
    return sign + padText(text.slice(sign.length), columns - sign.length, "0", "left");
  }),
};

/** Methods of str that Python has and templates here have not. */
const notHere = new Set(["encode", "maketrans", "translate"]);

/**
 * The bound method of that name; undefined if str has no such method.
 *
 * @param isMarked whether the text is marked as HTML, so that `format` escapes what it puts in
 */
export function stringMethod(
  text: string,
  name: string,
  lookup: FieldLookup,
  budget: Budget,
  isMarked: boolean,
): ((args: Arguments) => Value) | undefined {
  if (name === "format") return (args) => braceFormat(text, args, lookup, budget, isMarked);
  if (name === "format_map") {
    return (args) => {
      const [mapping] = bind(name, args, { parameters: ["mapping"], required: 1, positionalOnly: 1 });
      if (!(mapping instanceof Dict)) throw typeError("format_map() argument must be a mapping");
      const keywords = new Map<string, Value>();
      for (const [key, value] of mapping.entries()) if (typeof key === "string") keywords.set(key, value);
      return braceFormat(text, { ...noArguments, keywords }, lookup, budget, isMarked);
    };
  }
  if (notHere.has(name)) {
    return () => {
      throw new TemplateError("NotImplementedError", `the method str.${name} is not supported in chat templates here`);
    };
  }
  const found = Object.hasOwn(methods, name) ? methods[name] : undefined;
  if (found === undefined) return undefined;
  return (args) => {
    // Read once, and made once.
    budget.text(text.length);
    budget.text(text.length);
    return found.run({ text, values: bind(name, args, found), budget });
  };
}
