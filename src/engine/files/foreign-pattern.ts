/**
 * Regular expressions that come from a user or from a file. A bad one can take for ever on a short text, so each is
 * given a time limit (none in a browser, which cannot break off what runs; a page may end its worker).
 */
import { ConfigError, counted } from "../../errors.ts";
import { OutOfTimeError, platform } from "../platform/index.ts";

/** For all texts together; a harmless pattern takes a few milliseconds. */
const TIME_LIMIT_MS = 5000;

/**
 * The texts in which the pattern is found.
 *
 * @param what names the pattern and where it comes from, at the beginning of a sentence: `freeze_parameters "(a+)+"`
 * @param advice ends the sentence
 * @throws ConfigError if the pattern is no regular expression or takes too long
 */
export function textsMatching(
  pattern: string,
  texts: readonly string[],
  what: string,
  { advice = "", timeLimitMs = TIME_LIMIT_MS } = {},
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
    throw new ConfigError(`${what} ${fault}${advice}.`, { cause: error });
  }
}
