/** The argument `attribute` of filters: "name", "a.b.0", a position, or several of them with commas between. */
import { compare } from "./compare.ts";
import type { Budget } from "./limits.ts";
import { getItem } from "./members.ts";
import { asText, Undefined, type Value } from "./values.ts";

export type Getter = (item: Value) => Value;

/** Steps of a dotted name; none for None. */
function steps(attribute: Value): Value[] {
  if (attribute === null) return [];
  const text = asText(attribute);
  if (text === undefined) return [attribute];
  return text.split(".").map((part) => (/^\d+$/.test(part) ? BigInt(part) : part));
}

/** What an item has under an attribute, or the item itself; `otherwise` where it has nothing there. */
export function getter(attribute: Value, budget: Budget, otherwise: Value = null, ignoresCase = false): Getter {
  budget.text(asText(attribute)?.length ?? 0);
  const path = steps(attribute);
  budget.spend(path.length);
  return (item) => {
    budget.spend(1 + path.length);
    let value = item;
    for (const step of path) value = getItem(value, step, budget);
    if (otherwise !== null && value instanceof Undefined) value = otherwise;
    return ignoresCase ? lowered(value, budget) : value;
  };
}

/** Like `getter` for several attributes with commas between them: gives the list of their values. */
export function getters(attributes: Value, budget: Budget, ignoresCase: boolean): (item: Value) => readonly Value[] {
  const text = asText(attributes);
  const each = (text === undefined ? [attributes] : text.split(",")).map((one) =>
    getter(one, budget, null, ignoresCase),
  );
  return (item) => each.map((get) => get(item));
}

function lowered(value: Value, budget: Budget): Value {
  const text = asText(value);
  return text === undefined ? value : budget.made(text.toLowerCase());
}

/** Items in the order of their keys; equal ones stay in their order, also where it is reversed. */
export function sortedBy<T>(items: readonly T[], key: (item: T) => Value, reverse: boolean, budget: Budget): T[] {
  const keyed = items.map((item) => ({ item, key: key(item) }));
  const order = reverse ? -1 : 1;
  keyed.sort((a, b) => {
    if (compare(a.key, b.key, "<", budget) < 0) return -order;
    return compare(b.key, a.key, "<", budget) < 0 ? order : 0;
  });
  return keyed.map(({ item }) => item);
}
