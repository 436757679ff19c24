/**
 * Regular expressions that come from a user or from a file. A bad one can take for ever on a short text, so each is
 * given a time limit (none in a browser, which cannot break off what runs; a page may end its worker).
 */
import { ConfigError, counted, type DatasetError } from "../../errors.ts";
import { OutOfTimeError, platform } from "../platform/index.ts";

/** For all texts together; a harmless pattern takes a few milliseconds. */
const TIME_LIMIT_MS = 5000;

interface PatternOptions {
  /** The end of the sentence of a refusal. */
  readonly advice?: string;
  readonly timeLimitMs?: number;
  /** The class of a refusal, by where the pattern comes from. ConfigError if left out. */
  readonly refusal?: typeof ConfigError | typeof DatasetError;
}

/**
 * A pattern of Python's `re` as JavaScript writes it: the ends of a text, which JavaScript would take for the letters A
 * and Z, and named groups. Whatever else JavaScript lacks is an error when the pattern is used.
 */
export function fromPython(pattern: string): string {
  return pattern.replace(/\\.|\(\?P</gs, (found) => ({ "\\A": "^", "\\Z": "$", "(?P<": "(?<" })[found] ?? found);
}

/**
 * The texts in which the pattern is found.
 *
 * @param what names the pattern and where it comes from, at the beginning of a sentence: `freeze_parameters "(a+)+"`
 * @throws `refusal` if the pattern is no regular expression or takes too long
 */
export function textsMatching(
  pattern: string,
  texts: readonly string[],
  what: string,
  { advice = "", timeLimitMs = TIME_LIMIT_MS, refusal = ConfigError }: PatternOptions = {},
): string[] {
  try {
    const expression = new RegExp(pattern);
    return platform.withinTime(timeLimitMs, () => texts.filter((text) => expression.test(text)));
  } catch (error) {
    if (!(error instanceof SyntaxError || error instanceof OutOfTimeError)) throw error;
    const fault =
      error instanceof SyntaxError
        ? "is no regular expression"
        : `takes longer than ${timeLimitMs / 1000} s to compare with ${counted(texts.length, "name")}; write it without a repetition inside a repetition`;
    throw new refusal(`${what} ${fault}${advice}.`, { cause: error });
  }
}
