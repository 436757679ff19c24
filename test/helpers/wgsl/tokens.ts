/** The words of a WGSL text, and a place among them. */

const WORD =
  /\s+|\/\/[^\n]*|(0x[0-9a-fA-F]+[ui]?|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[fhui]?|[A-Za-z_]\w*|->|\+\+|--|&&|\|\||[=!<>]=|<<|>>|[-+*/%&|^]=|[-+*/%&|^~!<>=.,;:(){}[\]@])/y;

export class Tokens {
  readonly #words: string[] = [];
  at = 0;

  constructor(text: string) {
    WORD.lastIndex = 0;
    while (WORD.lastIndex < text.length) {
      const from = WORD.lastIndex;
      const found = WORD.exec(text);
      if (found === null) throw new Error(`"${text.slice(from, from + 20)}" is not understood`);
      if (found[1] !== undefined) this.#words.push(found[1]);
    }
  }

  /** The word here, or the one so many behind it; empty past the end. */
  peek(ahead = 0): string {
    return this.#words[this.at + ahead] ?? "";
  }

  next(): string {
    return this.#words[this.at++] ?? "";
  }

  /** Steps over a word if it is the one here. */
  take(word: string): boolean {
    if (this.peek() !== word) return false;
    this.at++;
    return true;
  }

  expect(word: string): void {
    if (!this.take(word)) throw new Error(`"${this.around()}", where "${word}" should stand`);
  }

  /** The words from here on, for a message. */
  around(): string {
    return this.#words.slice(this.at, this.at + 12).join(" ");
  }

  /** Steps over a bracket and all that it holds. */
  skip(open: string, close: string): void {
    this.expect(open);
    for (let depth = 1; depth > 0; ) {
      const word = this.next();
      if (word === "") throw new Error(`a "${open}" without "${close}"`);
      depth += word === open ? 1 : word === close ? -1 : 0;
    }
  }
}
