/**
 * The text of a continuation while its tokens come: each piece is handed out once it can no longer change, and text is
 * ended before a stop string. Not the tokens (src/engine/model/generate/generate.ts).
 */
import type { Tokenizer } from "./tokenizer.ts";

/** Tokens decoded anew with each one that comes; of these, as many are kept as context when they grow too many. */
const MOST_DECODED = 48;
const CONTEXT = 8;

/** Characters that what a tokenizer tidies away (" n't") may still reach back over, with a neighbour that is tidied too. */
const TIDIED_REACH = 6;

export class TextStream {
  readonly #tokenizer: Tokenizer;
  readonly #stopStrings: readonly string[];
  readonly #tidiesSpaces: boolean;
  /** The last tokens of prompt and continuation. */
  #ids: number[];
  /** The characters of their text that are the prompt's or have been taken. */
  #taken: number;
  /** Taken but not handed out: it may begin a stop string. */
  #held = "";
  #stopped = false;

  /**
   * @param promptIds what is continued; its text is not handed out
   * @param options.stopStrings texts, none of them empty, before whose first occurrence the text ends
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

  /** Whether a stop string has come; nothing is handed out after it. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** Takes the next token; returns the text that is certain now and was not before, often none. */
  push(id: number): string {
    if (this.#stopped) return "";
    this.#ids.push(id);
    const text = this.#decode(this.#ids);
    const piece = this.#take(text, this.#stableLength(text));
    this.#shorten(text);
    return this.#untilStop(piece, false);
  }

  /** Returns the text that was still held back; no token follows. */
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

  /** Characters that no further token changes: a U+FFFD at the end may be the beginning of a character. */
  #stableLength(text: string): number {
    let length = text.length;
    while (text[length - 1] === "\uFFFD") length--;
    if (!this.#tidiesSpaces) return length;
    const space = text.indexOf(" ", Math.max(0, length - TIDIED_REACH));
    return space === -1 ? length : Math.min(length, space);
  }

  /** Forgets tokens whose absence does not change the text of the others, as that of a first one or half a character may. */
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

/** The longest end of a text that begins `stop`. */
function overlap(text: string, stop: string): number {
  for (let length = Math.min(text.length, stop.length - 1); length > 0; length--) {
    if (text.endsWith(stop.slice(0, length))) return length;
  }
  return 0;
}
