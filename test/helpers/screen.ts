/** A terminal's screen, as far as the display uses one: what stands on it after text and its escape sequences. */
export class Screen {
  readonly #columns: number;
  #rows: string[][] = [[]];
  #row = 0;
  #column = 0;

  constructor(columns: number) {
    this.#columns = columns;
  }

  /** The lines that stand there, without spaces at their ends, those that are empty at the end left out. */
  get lines(): string[] {
    const lines = this.#rows.map((row) =>
      Array.from(row, (cell) => cell ?? " ")
        .join("")
        .trimEnd(),
    );
    while (lines.at(-1) === "") lines.pop();
    return lines;
  }

  write(text: string): void {
    // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what is looked for
    for (const [token] of text.matchAll(/\x1b\[(\d*)([A-Za-z])|\x1b\[[\d;]*m|[\s\S]/gu)) this.#take(token);
  }

  #take(token: string): void {
    const row = this.#rows[this.#row] ?? [];
    if (token === "\r") this.#column = 0;
    else if (token === "\n") {
      this.#row++;
      this.#column = 0;
      this.#rows[this.#row] ??= [];
    } else if (token === "\x1b[A") this.#row = Math.max(0, this.#row - 1);
    else if (token === "\x1b[K") row.length = Math.min(row.length, this.#column);
    else if (token === "\x1b[J") {
      row.length = Math.min(row.length, this.#column);
      this.#rows.length = this.#row + 1;
    } else if (token.startsWith("\x1b")) {
      if (!token.endsWith("m")) throw new Error(`the display wrote ${JSON.stringify(token)}, which is not known here`);
    } else {
      if (this.#column === this.#columns) {
        this.#row++;
        this.#column = 0;
        this.#rows[this.#row] ??= [];
      }
      const at = this.#rows[this.#row] ?? [];
      at[this.#column++] = token;
    }
  }
}
