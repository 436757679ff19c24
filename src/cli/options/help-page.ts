/**
 * The text of a help page for a width. Pages are plain data, which the build writes into dist/help, so that a help
 * text waits for no table of options (src/cli/quick-help.ts). What is on them is help.ts's and descriptions/.
 */

/** What `--help` shows, from top to bottom. */
export interface HelpPage {
  /** What follows "Usage: ". */
  readonly usage: string;
  readonly description: string;
  readonly sections: readonly HelpSection[];
  /** Shown as it is, under everything. */
  readonly end: string;
}

export interface HelpSection {
  readonly heading: string;
  /** Terms, such as "--beta <n>", and what is said of each. */
  readonly entries: readonly (readonly [term: string, text: string])[];
}

/** Columns in front of terms, and between the longest and the texts. */
const MARGIN = 2;
/** Where texts would have fewer columns than this, the terminal breaks their lines. */
const LEAST_WIDTH = 20;
/** Longer lines are hard to read; also the width where there is no terminal. */
const MOST_WIDTH = 120;

/** The page in lines of at most `columns` characters, with a newline at its end. */
export function helpText({ usage, description, sections, end }: HelpPage, columns = MOST_WIDTH): string {
  const width = Math.min(columns, MOST_WIDTH);
  const terms = sections.flatMap(({ entries }) => entries.map(([term]) => term.length));
  const indent = MARGIN + Math.max(...terms) + MARGIN;
  const lists = sections.map(({ heading, entries }) => {
    const items = entries.map(([term, text]) => {
      const lines = linesOf(text, width - indent).join(`\n${" ".repeat(indent)}`);
      return `${" ".repeat(MARGIN)}${term}`.padEnd(indent) + lines;
    });
    return `${heading}\n${items.join("\n")}`;
  });
  const parts = [`Usage: ${usage}`, linesOf(description, width).join("\n"), ...lists, end];
  return `${parts.join("\n\n")}\n`;
}

/** A word that is too long has a line for itself. Steps from line to line, since words are many. */
function linesOf(text: string, width: number): string[] {
  if (width < LEAST_WIDTH) return [text];
  const lines: string[] = [];
  let at = 0;
  while (text.length - at > width) {
    const last = text.lastIndexOf(" ", at + width);
    const end = last > at ? last : text.indexOf(" ", at + width);
    if (end < 0) break;
    lines.push(text.slice(at, end));
    at = end + 1;
  }
  return [...lines, text.slice(at)];
}
