/**
 * The limits within which a template renders. A template comes with a model from anywhere, and Jinja is a language in
 * which loops, recursion and growing texts can take all time and memory. Python's sandbox limits only `range`.
 */
import { counted, ModelFormatError } from "../../../errors.ts";

export interface TemplateLimits {
  /** Evaluated nodes, produced list items, and 16 characters of text that is read or made, each count as one. */
  readonly steps: number;
  /** Characters (UTF-16 units) of the output, and of any text on the way to it. */
  readonly characters: number;
  /** Macros and recursive loops within one another. */
  readonly depth: number;
}

/** Several times what the longest chats need; reached within about two seconds. */
export const defaultLimits: TemplateLimits = { steps: 5_000_000, characters: 1 << 24, depth: 150 };

/** A template exceeds a limit: the fault is the template's, not the row's. Exit code 4. */
export class TemplateLimitError extends ModelFormatError {}

const charactersPerStep = 16;
/** Comparisons of two characters that take about the time of a step. */
const comparisonsPerStep = 64;
/** The longest text that is searched for in time that grows with the other text only. */
const shortSearch = 32;
/** Python prints no integers of more than 4,300 digits, which are 14,285 bits. */
const mostIntegerBits = 1 << 16;

/** What one rendering may still use. */
export class Budget {
  readonly #source: string;
  readonly #limits: TemplateLimits;
  #steps: number;
  #depth = 0;

  /** @param source the template's file, for messages */
  constructor(source: string, limits: TemplateLimits) {
    this.#source = source;
    this.#limits = limits;
    this.#steps = limits.steps;
  }

  /**
   * Takes steps before the work that they stand for is done. Steps below zero would give some back and NaN would end
   * the limit, so both are refused as too many.
   */
  spend(steps: number): void {
    if (!(steps >= 0 && steps <= this.#steps)) throw this.#exceeded(`more than ${counted(this.#limits.steps, "step")}`);
    this.#steps -= steps;
  }

  /** Takes the steps of reading or making this many characters, and refuses a text that is too long to be made. */
  text(characters: number): void {
    if (!(characters >= 0 && characters <= this.#limits.characters)) {
      throw this.#exceeded(`a text of more than ${counted(this.#limits.characters, "character")}`);
    }
    this.spend(characters / charactersPerStep);
  }

  /** Takes the steps of writing, and refuses an output that has grown too long. */
  output(added: number, total: number): void {
    this.text(total > this.#limits.characters ? total : added);
  }

  /** Takes the steps of work on each character alone, which is a list of as many texts: one step each. */
  letters(text: string): void {
    this.text(text.length);
    this.spend(text.length);
  }

  /**
   * Takes the steps of searching a text from its end. JavaScript's search from the right compares again at every place,
   * so its time grows with the product of both lengths.
   */
  searchFromRight(text: string, wanted: string): void {
    this.spend((text.length * wanted.length) / comparisonsPerStep);
  }

  /**
   * Takes the steps of searching a text for another one. V8 compares a long text again at every place where it repeats
   * itself, so its time can grow with the product of both lengths.
   */
  search(text: string, wanted: string): void {
    this.text(text.length);
    this.spend((text.length * Math.max(0, wanted.length - shortSearch)) / comparisonsPerStep);
  }

  /** Charges a text that has just been made. */
  made(text: string): string {
    this.text(text.length);
    return text;
  }

  /** Refuses an integer too large to be printed before it is computed. */
  integer(bits: number): void {
    if (!(bits >= 0 && bits <= mostIntegerBits))
      throw this.#exceeded(`an integer of more than ${mostIntegerBits} bits`);
    this.spend(bits / charactersPerStep);
  }

  /** Runs the body of a macro or of a recursive loop. */
  nested<T>(run: () => T): T {
    if (this.#depth >= this.#limits.depth) {
      throw this.#exceeded(`more than ${this.#limits.depth} macros or loops within one another`);
    }
    // A scope, and arguments by name.
    this.spend(4);
    this.#depth++;
    try {
      return run();
    } finally {
      this.#depth--;
    }
  }

  /** Text or data is nested so deeply that the machine's stack ends, or a key of a dict is too long. */
  stackEnded(cause: RangeError): TemplateLimitError {
    const message = `${this.#source}: the chat template, or what it is given, nests too deeply to be rendered.`;
    return new TemplateLimitError(message, { cause });
  }

  #exceeded(what: string): TemplateLimitError {
    return new TemplateLimitError(
      `${this.#source}: the chat template needs ${what}, which is the limit of a rendering; check its loops, or give another template (chat_template_path).`,
    );
  }
}
