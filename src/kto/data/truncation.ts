/**
 * How many tokens of a row that is longer than the limit are kept, of its prompt and of its completion. TRL up to 0.24
 * cut the prompt first, LLaMA-Factory cuts both by their shares; TRL now cuts completions alone, the default here. In
 * all of them special tokens count as what they are, and no EOS follows a cut.
 */

import { ConfigError } from "../../errors.ts";

export interface TruncationRules {
  /** Longest prompt + completion. */
  readonly maxLength: number;
  /** Tokens that a prompt is cut to in a row that is too long; default 512 with keep_end or keep_start, else all. */
  readonly maxPromptLength?: number | undefined;
  /** The end of the prompt that is kept, or "proportional"; default "keep_end". */
  readonly truncationMode?: "keep_end" | "keep_start" | "proportional" | undefined;
}

/** What is kept: the first `head` tokens of the prompt and its last `tail`, and the first `completion` tokens. */
export interface Kept {
  readonly head: number;
  readonly tail: number;
  readonly completion: number;
}

/** TRL's default where it had the option. */
const DEFAULT_PROMPT = 512;

/** @throws ConfigError for limits that leave no room for a completion */
export function checkTruncation({ maxLength, maxPromptLength, truncationMode }: TruncationRules): void {
  if (truncationMode === "proportional" && maxPromptLength !== undefined) {
    throw new ConfigError(
      'option "max_prompt_length" has no use beside truncation_mode "proportional", which gives prompts their share of max_length: keep one.',
    );
  }
  const most =
    maxPromptLength ?? (truncationMode === undefined || truncationMode === "proportional" ? 0 : DEFAULT_PROMPT);
  if (most < maxLength) return;
  throw new ConfigError(
    `prompts are cut to max_prompt_length ${most}, which leaves nothing of max_length ${maxLength} to completions: set max_prompt_length below it.`,
  );
}

/**
 * @param promptLength tokens
 * @param completionLength tokens
 * @param beginsWithBos a prompt that is cut at its beginning keeps its BOS, which is one of its tokens
 */
export function keptTokens(
  promptLength: number,
  completionLength: number,
  beginsWithBos: boolean,
  { maxLength, maxPromptLength, truncationMode }: TruncationRules,
): Kept {
  const whole = { head: promptLength, tail: 0, completion: completionLength };
  if (promptLength + completionLength <= maxLength) return whole;
  if (truncationMode === "proportional") return byShares(promptLength, completionLength, maxLength);
  if (maxPromptLength === undefined && truncationMode === undefined) {
    return { ...whole, completion: maxLength - promptLength };
  }
  const most = maxPromptLength ?? DEFAULT_PROMPT;
  const kept = Math.min(promptLength, most);
  const prompt =
    truncationMode === "keep_start" ? { head: kept, tail: 0 } : fromTheEnd(promptLength, kept, beginsWithBos);
  // As in TRL: a short prompt leaves its share of the length unused.
  const completion = kept + completionLength > maxLength ? maxLength - most : completionLength;
  return { ...prompt, completion: Math.min(completionLength, completion) };
}

function fromTheEnd(length: number, kept: number, beginsWithBos: boolean): { head: number; tail: number } {
  if (kept === length) return { head: length, tail: 0 };
  return beginsWithBos ? { head: 1, tail: kept - 1 } : { head: 0, tail: kept };
}

/** LLaMA-Factory's rule: the shorter half is kept whole, else both are cut by the same share. */
function byShares(promptLength: number, completionLength: number, maxLength: number): Kept {
  let most = Math.floor(maxLength * (completionLength / (promptLength + completionLength)));
  if (completionLength * 2 < maxLength) most = maxLength;
  else if (promptLength * 2 < maxLength) most = maxLength - promptLength;
  const completion = Math.min(most, completionLength);
  return { head: Math.min(promptLength, Math.max(0, maxLength - completion)), tail: 0, completion };
}
