/**
 * The text of a continuation while its tokens arrive: each piece is returned once it can no longer change, and the text
 * ends before a stop string. It does not produce the tokens (src/engine/model/generate/generate.ts).
 */
import type { Tokenizer } from "./tokenizer.ts";

/**
 * At most so many tokens are decoded again with each new one. When there are more, only the last few are kept as
 * context.
 */
const MOST_DECODED = 48;
const CONTEXT = 8;

/**
 * How many characters back a space may still be removed by the tokenizer's clean-up (" n't", and another one before
 * it).
 */
const TIDIED_REACH = 6;

export class TextStream {
  readonly #tokenizer: Tokenizer;
  readonly #stopStrings: readonly string[];
  readonly #tidiesSpaces: boolean;
  /** The last tokens of prompt and continuation. */
  #ids: number[];
  /** How many characters of their text belong to the prompt or have been taken. */
  #taken: number;
  /** Text that is taken but not returned yet, since it may be the beginning of a stop string. */
  #held = "";
  #stopped = false;

  /**
   * @param promptIds the tokens that are continued; their text is not returned
   * @param options.stopStrings the text ends before the first occurrence of one of these; none may be empty
   */
  constructor(
    tokenizer: Tokenizer,
    promptIds: readonly number[],
    options: { readonly stopStrings?: readonly string[] } = {},
  ) {
    this.#tokenizer = tokenizer;
    this.#stopStrings = options.stopStrings ?? [];
    this.#tidiesSpaces = !tokenizer.decode(tokenizer.encode("a .", { addSpecialTokens: false })).endsWith(" .");
    this.#ids = [...promptIds];
    this.#taken = this.#decode(this.#ids).length;
  }

  /** Whether a stop string has come; no text is returned after it. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** Takes the next token. Returns the text that has become certain, which is often empty. */
  push(id: number): string {
    if (this.#stopped) return "";
    this.#ids.push(id);
    const text = this.#decode(this.#ids);
    const piece = this.#take(text, this.#stableLength(text));
    this.#shorten(text);
    return this.#untilStop(piece, false);
  }

  /** Returns the rest of the text; no token may follow. */
  end(): string {
    if (this.#stopped) return "";
    const text = this.#decode(this.#ids);
    return this.#untilStop(this.#take(text, text.length), true);
  }

  #decode(ids: readonly number[]): string {
    return this.#tokenizer.decode(ids, { skipSpecialTokens: true });
  }

  #take(text: string, until: number): string {
    const piece = text.slice(this.#taken, until);
    this.#taken = Math.max(this.#taken, until);
    return piece;
  }

  /** How many characters no further token can change: a U+FFFD at the end may be the beginning of a character. */
  #stableLength(text: string): number {
    let length = text.length;
    while (text[length - 1] === "\uFFFD") length--;
    if (!this.#tidiesSpaces) return length;
    const space = text.indexOf(" ", Math.max(0, length - TIDIED_REACH));
    return space === -1 ? length : Math.min(length, space);
  }

  /** Forgets old tokens, unless the text of the others would change without them, as that of half a character does. */
  #shorten(text: string): void {
    if (this.#ids.length <= MOST_DECODED) return;
    const rest = this.#ids.slice(-CONTEXT);
    const restText = this.#decode(rest);
    const forgotten = text.length - restText.length;
    if (restText === "" || forgotten > this.#taken || !text.endsWith(restText)) return;
    this.#ids = rest;
    this.#taken -= forgotten;
  }

  #untilStop(piece: string, last: boolean): string {
    const text = this.#held + piece;
    const starts = this.#stopStrings.map((stop) => text.indexOf(stop)).filter((start) => start >= 0);
    if (starts.length > 0) {
      this.#stopped = true;
      this.#held = "";
      return text.slice(0, Math.min(...starts));
    }
    const kept = last ? 0 : Math.max(0, ...this.#stopStrings.map((stop) => overlap(text, stop)));
    this.#held = text.slice(text.length - kept);
    return text.slice(0, text.length - kept);
  }
}

/** The length of the longest end of a text with which `stop` begins. */
function overlap(text: string, stop: string): number {
  for (let length = Math.min(text.length, stop.length - 1); length > 0; length--) {
    if (text.endsWith(stop.slice(0, length))) return length;
  }
  return 0;
}
