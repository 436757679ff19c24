/** Which records of a split are asked for, in the notation of Hugging Face's datasets. */
import { ConfigError } from "../../errors.ts";

/** One end of a slice: a number of records, or a share of them; negative ones count from the end. */
export interface SliceEnd {
  readonly value: number;
  readonly percent: boolean;
}

/** From here to before there; an end that is absent is the data's own. */
export interface Slice {
  readonly from?: SliceEnd;
  readonly to?: SliceEnd;
}

/**
 * "train", "test[:100]", "train[10%:20%]".
 *
 * @param optionName for the message
 * @throws ConfigError for what is not a name, or a name with a slice
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

/** Whether the ends cannot be told without counting the records first. */
export function needsCount({ from, to }: Slice): boolean {
  return [from, to].some((end) => end !== undefined && (end.percent || end.value < 0));
}

/** The records from `begin` to before `end`, of `count` in all (looked at where `needsCount`). Shares are rounded. */
export function sliceBounds({ from, to }: Slice, count: number): { begin: number; end: number } {
  const bound = (end: SliceEnd | undefined, fallback: number) => {
    if (end === undefined) return fallback;
    const value = end.percent ? Math.round((end.value / 100) * count) : end.value;
    return Math.max(0, value < 0 ? count + value : value);
  };
  return { begin: bound(from, 0), end: bound(to, Number.POSITIVE_INFINITY) };
}
