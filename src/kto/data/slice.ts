/** Parses which records of a split to read, in the notation of Hugging Face's datasets. */
import { ConfigError } from "../../errors.ts";

/** One end of a slice, as a number of records or a percentage of them. Negative values count from the end. */
export interface SliceEnd {
  readonly value: number;
  readonly percent: boolean;
}

/** A slice from one end up to, but not including, the other. A missing end means the beginning or end of the data. */
export interface Slice {
  readonly from?: SliceEnd;
  readonly to?: SliceEnd;
}

/**
 * Parses a split such as "train", "test[:100]" or "train[10%:20%]".
 *
 * @param optionName the option's name, for the error message
 * @throws ConfigError if the text is neither a name nor a name with a slice
 */
export function parseSplit(written: string, optionName = "dataset_train_split"): { name: string; slice?: Slice } {
  const match = /^([\w.-]+)(\[\s*(-?\d+%?)?\s*:\s*(-?\d+%?)?\s*\])?$/.exec(written.trim());
  const name = match?.[1];
  if (name === undefined) {
    throw new ConfigError(
      `option "${optionName}" is "${written}"; it must be the name of a split, such as train, or a slice of one, such as train[:100] or train[10%:].`,
    );
  }
  if (match?.[2] === undefined) return { name };
  const end = (text: string | undefined): SliceEnd | undefined =>
    text === undefined ? undefined : { value: Number(text.replace("%", "")), percent: text.endsWith("%") };
  const [from, to] = [end(match[3]), end(match[4])];
  return { name, slice: { ...(from ? { from } : {}), ...(to ? { to } : {}) } };
}

/** Whether the records have to be counted before the slice's bounds are known. */
export function needsCount({ from, to }: Slice): boolean {
  return [from, to].some((end) => end !== undefined && (end.percent || end.value < 0));
}

/**
 * The bounds of a slice: records `begin` to `end` - 1. `count` matters only if `needsCount`; percentages are rounded.
 */
export function sliceBounds({ from, to }: Slice, count: number): { begin: number; end: number } {
  const bound = (end: SliceEnd | undefined, fallback: number) => {
    if (end === undefined) return fallback;
    const value = end.percent ? Math.round((end.value / 100) * count) : end.value;
    return Math.max(0, value < 0 ? count + value : value);
  };
  return { begin: bound(from, 0), end: bound(to, Number.POSITIVE_INFINITY) };
}
