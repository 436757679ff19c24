/**
 * Lines for a terminal as data: spans of text, each with what it means. A theme turns meanings into colours, for a
 * dark terminal, a light one or none, and the width is that of the characters on the screen. Nothing is written here.
 */

import stringWidth from "fast-string-width";
import pc from "picocolors";

/** What a span is to the reader. */
export type Tone = "plain" | "strong" | "faint" | "accent" | "good" | "bad" | "caution";

export interface Span {
  readonly text: string;
  readonly tone: Tone;
}

export type Line = readonly Span[];

/** How a terminal shows things. */
export interface Theme {
  readonly background: "dark" | "light";
  readonly colors: boolean;
  /** Whether it draws block and line characters; ASCII stands for them otherwise. */
  readonly unicode: boolean;
}

export function span(text: string, tone: Tone = "plain"): Span {
  return { text, tone };
}

/** The text as the terminal gets it. */
export function painted(line: Line, { background, colors }: Theme): string {
  const paint = colors ? PAINTS[background] : undefined;
  return line.map(({ text, tone }) => (paint === undefined || text.trim() === "" ? text : paint[tone](text))).join("");
}

const as = pc.createColors(true);
const plain = (text: string) => text;
/**
 * How each tone is painted with the sixteen colours that every terminal has. Bright ones cannot be read on white, the
 * plain blue and red hardly on black; yellow only serves a dark terminal.
 */
const PAINTS: Readonly<Record<Theme["background"], Readonly<Record<Tone, (text: string) => string>>>> = {
  dark: {
    plain,
    ...{ strong: as.bold, faint: as.dim, accent: as.cyan },
    ...{ good: as.green, bad: as.redBright, caution: as.yellow },
  },
  light: {
    plain,
    ...{ strong: as.bold, faint: as.dim, accent: as.blue },
    ...{ good: as.green, bad: as.red, caution: as.magenta },
  },
};

/** Columns that a line takes on the screen. */
export function widthOf(line: Line): number {
  return line.reduce((sum, { text }) => sum + stringWidth(text), 0);
}

/** The line with spaces behind it up to so many columns. */
export function padded(line: Line, width: number): Line {
  const missing = width - widthOf(line);
  return missing > 0 ? [...line, span(" ".repeat(missing))] : line;
}

/** The beginning of a line that fits so many columns; a character that is two columns wide is not halved. */
export function clipped(line: Line, width: number): Line {
  let left = Math.max(0, width);
  const kept: Span[] = [];
  for (const { text, tone } of line) {
    const size = stringWidth(text);
    if (size <= left) {
      kept.push({ text, tone });
      left -= size;
      continue;
    }
    let part = "";
    for (const { segment } of new Intl.Segmenter().segment(text)) {
      const wide = stringWidth(segment);
      if (wide > left) break;
      part += segment;
      left -= wide;
    }
    return [...kept, { text: part, tone }];
  }
  return kept;
}

/** A sentence in lines of so many columns, broken at spaces; a longer word, such as a path, stands alone, whole. */
export function wrapped(sentence: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of sentence.split(" ")) {
    const longer = line === "" ? word : `${line} ${word}`;
    if (line !== "" && stringWidth(longer) > width) {
      lines.push(line);
      line = word;
    } else line = longer;
  }
  return [...lines, line];
}
