/**
 * What Python's str does beneath its methods: white space, stripping, splitting, cutting, words. Positions are code
 * points.
 */
import { characters, isPlain, textLength } from "./values.ts";

/**
 * The characters to which Python's str.isspace() says yes, as a class of a regular expression; unlike JavaScript's \s it has U+001C to U+001F
 * and U+0085, and no byte order mark.
 */
export const spaces = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
export const whitespace = new RegExp(`[${spaces}]`);
const onlySpace = new RegExp(`^[${spaces}]+$`);
const wordRuns = new RegExp(`[^${spaces}]+`, "g");
const spaceRuns = new RegExp(`[${spaces}]+`, "g");

export function isSpace(text: string): boolean {
  return onlySpace.test(text);
}

export type Side = "left" | "right" | "both";

/** str.strip, lstrip, rstrip: of white space, or of the given characters. */
export function strip(text: string, side: Side, chars?: string): string {
  const given = chars === undefined ? undefined : new Set(Array.from(chars));
  const goes = (character: string | undefined) =>
    character !== undefined && (given === undefined ? whitespace.test(character) : given.has(character));
  // White space is never a half of a character.
  const parts = given === undefined || isPlain(text) ? text : characters(text);
  let start = 0;
  let end = parts.length;
  if (side !== "right") while (start < end && goes(parts[start])) start++;
  if (side !== "left") while (end > start && goes(parts[end - 1])) end--;
  if (start === 0 && end === parts.length) return text;
  return typeof parts === "string" ? parts.slice(start, end) : parts.slice(start, end).join("");
}

/** str.split; most < 0 splits everywhere. */
export function split(text: string, separator: string | undefined, most: number): string[] {
  if (separator !== undefined) return most < 0 ? text.split(separator) : splitOff(text, separator, most);
  const rest = strip(text, "left");
  if (rest === "") return [];
  const words: string[] = [];
  let from = 0;
  spaceRuns.lastIndex = 0;
  for (const run of rest.matchAll(spaceRuns)) {
    if (most >= 0 && words.length >= most) break;
    words.push(rest.slice(from, run.index));
    from = run.index + run[0].length;
  }
  if (from < rest.length) {
    words.push(most >= 0 && words.length >= most ? rest.slice(from) : strip(rest.slice(from), "right"));
  }
  return words;
}

/** At most so many times from the left. */
function splitOff(text: string, separator: string, most: number): string[] {
  const parts: string[] = [];
  let from = 0;
  while (parts.length < most) {
    const at = text.indexOf(separator, from);
    if (at < 0) break;
    parts.push(text.slice(from, at));
    from = at + separator.length;
  }
  return [...parts, text.slice(from)];
}

/** str.rsplit */
export function splitFromRight(text: string, separator: string | undefined, most: number): string[] {
  if (separator === undefined) {
    const words = [...text.matchAll(wordRuns)];
    if (most < 0 || words.length <= most) return words.map(([word]) => word);
    const first = words.length - most;
    const last = words[first - 1];
    const rest = last === undefined ? [] : [text.slice(0, last.index + last[0].length)];
    return [...rest, ...words.slice(first).map(([word]) => word)];
  }
  // From the right, so that overlapping separators are found there.
  const parts: string[] = [];
  let end = text.length;
  while (most < 0 || parts.length < most) {
    const at = end < separator.length ? -1 : text.lastIndexOf(separator, end - separator.length);
    if (at < 0) break;
    parts.push(text.slice(at + separator.length, end));
    end = at;
  }
  parts.push(text.slice(0, end));
  return parts.reverse();
}

/** What ends a line for str.splitlines. */
const lineEnds = "\\n\\r\\v\\f\\x1c-\\x1e\\x85\\u2028\\u2029";
const lines = new RegExp(`[^${lineEnds}]*(?:\\r\\n|[${lineEnds}]|$)`, "g");
const lineEnd = new RegExp(`(?:\\r\\n|[${lineEnds}])$`);

/** str.splitlines */
export function splitLines(text: string, keepEnds = false): string[] {
  const found = text.match(lines) ?? [];
  if (found.at(-1) === "") found.pop();
  return keepEnds ? found : found.map((line) => line.replace(lineEnd, ""));
}

/** Which positions start:stop:step takes of so many items: Python's slice.indices. */
export function sliceIndices(
  count: number,
  start: number | undefined,
  stop: number | undefined,
  step: number,
): { readonly from: number; readonly to: number; readonly length: number } {
  const [low, high] = step > 0 ? [0, count] : [-1, count - 1];
  const clamp = (at: number) => (at < 0 ? Math.max(at + count, low) : Math.min(at, high));
  const from = start === undefined ? (step > 0 ? low : high) : clamp(start);
  const to = stop === undefined ? (step > 0 ? high : low) : clamp(stop);
  return { from, to, length: Math.max(0, Math.ceil((to - from) / step)) };
}

export function slice<T>(items: readonly T[], start: number | undefined, stop: number | undefined, step: number): T[] {
  const { from, length } = sliceIndices(items.length, start, stop, step);
  if (step === 1) return items.slice(from, from + length);
  return Array.from({ length }, (_, i) => items[from + i * step] as T);
}

/** A slice of a text. */
export function cutText(text: string, start: number | undefined, stop: number | undefined, step: number): string {
  if (step !== 1) return slice(characters(text), start, stop, step).join("");
  const { from, length } = sliceIndices(textLength(text), start, stop, 1);
  const at = unitIndex(text, from);
  return text.slice(at, unitIndex(text, length, at));
}

/** Position in UTF-16 units of so many code points after another such position. */
function unitIndex(text: string, points: number, from = 0): number {
  if (isPlain(text)) return from + points;
  let at = from;
  for (let i = 0; i < points && at < text.length; i++) at += (text.codePointAt(at) ?? 0) > 0xffff ? 2 : 1;
  return at;
}

/** The character at a position in code points, from the end if it is below 0. */
export function characterAt(text: string, index: number): string | undefined {
  const from = index < 0 ? index + textLength(text) : index;
  const cut = from < 0 ? "" : cutText(text, from, from + 1, 1);
  return cut === "" ? undefined : cut;
}

/** Position in code points of a position in UTF-16 units. */
export function codePointIndex(text: string, at: number): number {
  return at < 0 ? -1 : textLength(text.slice(0, at));
}

/** str.replace, at most so many times; all if below 0. */
export function replaced(text: string, old: string, by: string, most: number): string {
  if (most < 0 && old !== "") return text.split(old).join(by);
  const parts = old === "" ? ["", ...characters(text), ""] : text.split(old);
  const joints = most < 0 ? parts.length - 1 : Math.min(most, parts.length - 1);
  if (joints === 0) return text;
  const tail = parts.slice(joints).join(old);
  return [...parts.slice(0, joints), tail].join(by);
}

/** Length of what `replaced` makes, without making it. */
export function replacedLength(text: string, old: string, by: string, most: number): number {
  const found = old === "" ? textLength(text) + 1 : countOf(text, old);
  return text.length + (most < 0 ? found : Math.min(most, found)) * (by.length - old.length);
}

/** Occurrences that do not overlap. */
export function countOf(text: string, part: string): number {
  if (part === "") return textLength(text) + 1;
  let count = 0;
  for (let at = text.indexOf(part); at >= 0; at = text.indexOf(part, at + part.length)) count++;
  return count;
}

/** Fills up to a width in code points. */
export function padText(text: string, width: number, fill: string, side: "left" | "right" | "center"): string {
  const missing = Math.max(0, width - textLength(text));
  if (side === "left") return fill.repeat(missing) + text;
  if (side === "right") return text + fill.repeat(missing);
  // As str.center: the odd one goes to the left where the width is odd.
  const left = Math.floor(missing / 2) + (missing & width & 1);
  return fill.repeat(left) + text + fill.repeat(missing - left);
}
