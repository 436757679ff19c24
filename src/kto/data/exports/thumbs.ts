/** Thumbs as programs write them, and majorities of raters. */
import type { Thumb } from "./types.ts";

/** How a user says which values are thumbs, where the program lets its users choose them. */
export interface ThumbScale {
  readonly up?: readonly unknown[] | undefined;
  readonly down?: readonly unknown[] | undefined;
  /** Numbers from here on are up, smaller ones down. */
  readonly threshold?: number | undefined;
}

/** Words for thumbs in lower case, without what stands between their parts. */
const upWords: readonly string[] = ["up", "thumbsup", "like", "liked", "good", "positive", "yes", "true", "1", "👍"];
const downWords: readonly string[] = [
  ...["down", "thumbsdown", "dislike", "disliked", "bad", "negative", "no", "false", "0", "-1", "👎"],
];

/**
 * A function that reads thumbs of which the program does not say what stands for them: 1 or true is up; 0, -1 or false
 * is down, and so are the usual words. Where the user names values or a threshold, nothing else counts.
 */
export function thumbReader({ up, down, threshold }: ThumbScale): (value: unknown) => boolean | undefined {
  const named = (values: readonly unknown[], value: unknown) =>
    values.some((one) => one === value || String(one).toLowerCase() === String(value).toLowerCase());
  return (value) => {
    if (threshold !== undefined) {
      const number = typeof value === "string" && value.trim() !== "" ? Number(value) : value;
      return typeof number === "number" && Number.isFinite(number) ? number >= threshold : undefined;
    }
    if (value === null || value === undefined || typeof value === "object") return undefined;
    if (up !== undefined || down !== undefined) {
      if (named(up ?? [], value)) return true;
      return named(down ?? [], value) ? false : undefined;
    }
    const word = String(value)
      .toLowerCase()
      .replace(/[\s_-]+(?=[a-z])/g, "")
      .trim();
    return upWords.includes(word) ? true : downWords.includes(word) ? false : undefined;
  };
}

/** The value's place among the program's own two thumbs. */
export function thumbAmong(value: unknown, up: readonly unknown[], down: readonly unknown[]): Thumb {
  return up.includes(value) ? true : down.includes(value) ? false : "no-rating";
}

/** What several raters say together; undefined stands for one who said neither. */
export function majority(votes: readonly (boolean | undefined)[]): Thumb {
  const ups = votes.filter((vote) => vote === true).length;
  const downs = votes.filter((vote) => vote === false).length;
  if (ups + downs === 0) return "no-rating";
  return ups === downs ? "disagree" : ups > downs;
}
