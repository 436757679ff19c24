/**
 * JSON whose numbers and keys a chat template must see as they stand there: Python tells 1.0 from 1, has integers of
 * any length and keeps the order of keys like "2" and "1", and JavaScript does none of that. The values are
 * JSON.parse's; what would be lost is noted beside them, where only templates look.
 */

/** What JavaScript does not keep of an object or list. */
interface Notes {
  /** Numbers by key or position, as they stand in the text. */
  readonly numbers: ReadonlyMap<string, string>;
  /** Keys in the order of the text; undefined where JavaScript has the same. */
  readonly order: readonly string[] | undefined;
}

/** An enumerable symbol, so that a copy made by spreading an object keeps the notes. */
const notes = Symbol("exact JSON");

/** A number that JavaScript would write otherwise, or a key that it would move. */
const mayLose = /[-+:,[\s]-?\d+(?:\.\d*)?[eE.]|\d{16}|"\d+"\s*:/;

/**
 * Reads JSON as JSON.parse does, and notes how numbers were written where a value alone would not tell.
 *
 * @throws SyntaxError
 */
export function parseExactJson(text: string): unknown {
  const value: unknown = JSON.parse(text);
  if (mayLose.test(text)) addNotes(text, value);
  return value;
}

/**
 * A value as `parseExactJson` gives it, from one whose ints are bigints, whose floats are numbers and whose objects are
 * Maps, as YAML readers give it. A key that is not text becomes its text.
 *
 * @param keepsNotes false for what JSON.parse would give
 */
export function fromTypedNumbers(value: unknown, keepsNotes: boolean): unknown {
  if (typeof value === "bigint") return Number(value);
  const entries = value instanceof Map ? [...(value as Map<unknown, unknown>)] : undefined;
  if (entries === undefined && !Array.isArray(value)) return value;
  const pairs = (entries ?? [...(value as unknown[]).entries()]).map(
    ([key, member]) => [String(key ?? ""), member] as const,
  );
  const members = pairs.map(([key, member]) => [key, fromTypedNumbers(member, keepsNotes)] as const);
  const plain = entries === undefined ? members.map(([, member]) => member) : Object.fromEntries(members);
  const texts = pairs.flatMap(([key, member]) => {
    const text =
      typeof member === "bigint" ? String(member) : typeof member === "number" ? floatText(member) : undefined;
    return text === undefined || isKept(text) ? [] : [[key, text] as const];
  });
  if (keepsNotes) noteWhereNeeded(plain, new Map(texts), entries === undefined ? [] : pairs.map(([key]) => key));
  return plain;
}

/** Which numbers of a value are floats: all that are in it, or those of these members. Lists are passed through. */
export type FloatPlaces = true | { readonly [member: string]: FloatPlaces };

/** Notes in a value, in place, that the numbers at these places are floats: 1 is 1.0 there. */
export function noteFloats(value: unknown, places: FloatPlaces): void {
  if (typeof value !== "object" || value === null) return;
  const numbers = new Map<string, string>();
  for (const [key, member] of Object.entries(value)) {
    const inside =
      Array.isArray(value) || places === true ? places : Object.hasOwn(places, key) ? places[key] : undefined;
    if (inside === undefined) continue;
    if (typeof member !== "number") noteFloats(member, inside);
    else if (inside === true && Number.isInteger(member)) numbers.set(key, floatText(member));
  }
  noteWhereNeeded(value, numbers, []);
}

/** A float as Python's JSON has it: 1.0, 1e+30. */
function floatText(value: number): string {
  const text = Object.is(value, -0) ? "-0" : String(value);
  return /^-?\d+$/.test(text) ? `${text}.0` : text;
}

/** The text of a number in an object or list, where JavaScript's number does not say it all; undefined elsewhere. */
export function sourceNumber(holder: object, key: string, value: number): string | undefined {
  const text = notesOf(holder)?.numbers.get(key);
  // A number that was changed since is not the one that was read.
  return text !== undefined && Object.is(Number(text), value) ? text : undefined;
}

/** The keys of an object in the order of the text that it was read from. */
export function sourceOrder(object: object): readonly string[] {
  const keys = Object.keys(object);
  const order = notesOf(object)?.order;
  if (order === undefined) return keys;
  const own = new Set(keys);
  const known = order.filter((key) => own.has(key));
  for (const key of known) own.delete(key);
  return [...known, ...own];
}

/**
 * An object of some members of another one, with their notes.
 *
 * @param names of the members in the new object and in the old one
 */
export function picked(
  object: Readonly<Record<string, unknown>>,
  names: ReadonlyMap<string, string>,
): Record<string, unknown> {
  const texts = notesOf(object)?.numbers;
  const numbers = [...names].flatMap(([name, from]) => {
    const text = texts?.get(from);
    return text === undefined ? [] : [[name, text] as const];
  });
  const whole = Object.fromEntries([...names].map(([name, from]) => [name, object[from]]));
  noteWhereNeeded(whole, new Map(numbers), []);
  return whole;
}

/** One object of two; where both have a member, the second's counts, with its notes. */
export function overridden(
  object: Readonly<Record<string, unknown>>,
  by: Readonly<Record<string, unknown>>,
): Readonly<Record<string, unknown>> {
  const kept = [...(notesOf(object)?.numbers ?? [])].filter(([key]) => !Object.hasOwn(by, key));
  const numbers = new Map([...kept, ...(notesOf(by)?.numbers ?? [])]);
  const whole = Object.fromEntries([...Object.entries(object), ...Object.entries(by)]);
  noteWhereNeeded(whole, numbers, [...new Set([...sourceOrder(object), ...sourceOrder(by)])]);
  return whole;
}

/**
 * A value as JSON, as JSON.stringify writes it except that numbers and the order of keys are those of the text that it
 * was read from. Values with the same text are rendered alike.
 */
export function exactText(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map((_, i) => exactMember(value as object, String(i))).join(",")}]`;
  if (typeof value !== "object" || value === null || "toJSON" in value) return JSON.stringify(value) ?? "null";
  const object = value as Readonly<Record<string, unknown>>;
  const keys = sourceOrder(object).filter((key) => object[key] !== undefined);
  return `{${keys.map((key) => `${JSON.stringify(key)}:${exactMember(object, key)}`).join(",")}}`;
}

/** A member of an object or list, as `exactText` writes it. */
export function exactMember(holder: object, key: string): string {
  const member = (holder as Readonly<Record<string, unknown>>)[key];
  return (typeof member === "number" ? sourceNumber(holder, key, member) : undefined) ?? exactText(member);
}

function notesOf(holder: object): Notes | undefined {
  return (holder as { [notes]?: Notes })[notes];
}

const token = /\s*(?:("(?:[^"\\]|\\.)*")|(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)|([[\]{},:])|(true|false|null))/y;

/** Goes through a text that JSON.parse has accepted, beside the value that it gave, and leaves notes in that. */
function addNotes(text: string, value: unknown): void {
  let at = 0;
  const next = () => {
    token.lastIndex = at;
    const [whole = "", string, number, mark] = token.exec(text) ?? [];
    at += whole.length;
    return { string, number, mark };
  };
  /** Goes past this mark if it is next. */
  const skips = (mark: string): boolean => {
    const before = at;
    if (next().mark === mark) return true;
    at = before;
    return false;
  };
  /** Past the value; the text of a number that JavaScript does not keep. */
  const passValue = (value: unknown): string | undefined => {
    const { number, mark } = next();
    const holder = typeof value === "object" && value !== null ? value : {};
    if (mark === "[") passList(Array.isArray(value) ? value : []);
    else if (mark === "{") passObject(holder as Readonly<Record<string, unknown>>);
    return number !== undefined && !isKept(number) ? number : undefined;
  };
  const passList = (list: readonly unknown[]): void => {
    const numbers = new Map<string, string>();
    for (let i = 0; !skips("]"); i++) {
      if (i > 0) next();
      const number = passValue(list[i]);
      if (number !== undefined) numbers.set(String(i), number);
    }
    noteWhereNeeded(list, numbers, []);
  };
  const passObject = (object: Readonly<Record<string, unknown>>): void => {
    const numbers = new Map<string, string>();
    const order = new Set<string>();
    for (let i = 0; !skips("}"); i++) {
      if (i > 0) next();
      const key = String(JSON.parse(next().string ?? '""'));
      next();
      const number = passValue(Object.hasOwn(object, key) ? object[key] : undefined);
      // Where a key stands twice, the last value counts, in the place of the first.
      if (number === undefined) numbers.delete(key);
      else numbers.set(key, number);
      order.add(key);
    }
    noteWhereNeeded(object, numbers, [...order]);
  };
  passValue(value);
}

/** JavaScript's number is written as an int of Python's exactly where the text is one. */
function isKept(number: string): boolean {
  const value = Number(number);
  if (/^-?\d+$/.test(number)) return Number.isSafeInteger(value) && !Object.is(value, -0);
  // JSON.stringify would write null for a number beyond all floats.
  return !Number.isInteger(value) && Number.isFinite(value);
}

/** @param order the keys in the order of the text, as far as it matters */
function noteWhereNeeded(holder: object, numbers: ReadonlyMap<string, string>, order: readonly string[]): void {
  const keys = Object.keys(holder);
  const moved = order.some((key, i) => keys[i] !== key);
  if (numbers.size === 0 && !moved) return;
  const noted: Notes = { numbers, order: moved ? order : undefined };
  Object.defineProperty(holder, notes, { value: noted, enumerable: true, configurable: true, writable: true });
}
