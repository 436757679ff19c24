/**
 * Methods of text marked as HTML, as MarkupSafe has them: what they put in is escaped, and what they give is marked.
 * The methods themselves are those of any text (string-methods.ts).
 */
import type { Budget } from "./limits.ts";
import { escapeHtml } from "./numbers.ts";
import { type Arguments, asText, isList, iterate, Markup, Tuple, type Value } from "./values.ts";

/** Methods that give marked text, or lists and tuples of it. */
const marking: ReadonlySet<string> = new Set(
  "capitalize casefold center expandtabs format format_map join ljust lower lstrip partition removeprefix removesuffix replace rjust rpartition rsplit rstrip split splitlines strip swapcase title upper zfill".split(
    " ",
  ),
);
/** Which argument of a method is put into the text. */
const inserted: Readonly<Record<string, number>> = { replace: 1, ljust: 1, rjust: 1, center: 1 };

/** A text in marked text: escaped, unless it is marked itself. */
export function escaped(value: Value, budget: Budget): Value {
  return typeof value === "string" ? budget.made(escapeHtml(value)) : value;
}

/** The method of a marked text, from that of the same text without a mark. */
export function markedMethod(
  name: string,
  run: (args: Arguments) => Value,
  budget: Budget,
): (args: Arguments) => Value {
  if (!marking.has(name)) return run;
  return ({ positional, keywords }) => {
    const given = positional.map((value, i) => {
      if (name === "join" && i === 0) return Array.from(iterate(value), (item) => escaped(item, budget));
      return inserted[name] === i ? escaped(value, budget) : value;
    });
    return marked(run({ positional: given, keywords }));
  };
}

function marked(value: Value): Value {
  if (typeof value === "string") return new Markup(value);
  if (value instanceof Tuple) return new Tuple(value.items.map(marked));
  return isList(value) ? value.map(marked) : value;
}

/** A text made of another one, which stays marked if that was. */
export function asMarked(source: Value, text: string): string | Markup {
  return source instanceof Markup ? new Markup(text) : text;
}

/** The text of a value within marked text. */
export function escapedText(value: Value, text: string, budget: Budget): string {
  return value instanceof Markup ? (asText(value) ?? text) : budget.made(escapeHtml(text));
}
