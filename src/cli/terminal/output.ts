/**
 * Where text goes: results to stdout, everything else to stderr, so that results can be piped. Keeps the display of what
 * goes on out of the way of other lines.
 */

import isUnicodeSupported from "is-unicode-supported";
import { ConfigError } from "../../errors.ts";
import { colorsFor, isLive, wantsColors } from "./colors.ts";
import { Display, type DisplayOptions } from "./display.ts";
import type { Streams, TextSink } from "./streams.ts";
import { type Line, painted, type Theme } from "./styled.ts";

const levels = ["debug", "info", "warning", "error"] as const;

/** The options of every command that decide what is written. */
export interface OutputOptions {
  readonly json: boolean;
  readonly log_level: (typeof levels)[number];
  readonly quiet?: boolean;
}

export class Output {
  readonly streams: Streams;
  /** Whether results are written as JSON. */
  readonly json: boolean;
  /** Shows what goes on; undefined where nobody wants to see that. */
  readonly display: Display | undefined;
  /** Is given every message and warning, whether or not it is shown. */
  listener: ((level: "info" | "warning", text: string) => void) | undefined;
  readonly #level: number;

  constructor(streams: Streams, options: OutputOptions) {
    this.streams = streams;
    this.json = options.json;
    const least = options.quiet ? levels.indexOf("warning") : 0;
    this.#level = Math.max(least, levels.indexOf(options.log_level));
    this.display = this.tells("info")
      ? new Display(streams.stderr, themeOf(streams.stderr), {
          live: isLive(streams.stderr),
          // The clock of `performance` begins with the process, which takes a moment to load.
          silentSince: streams.stderr === process.stderr || streams.stderr === process.stdout ? 0 : undefined,
          ...longestSilence(),
        })
      : undefined;
  }

  /** A line of the result, on stdout. */
  result(text: string): void {
    this.#write(this.streams.stdout, text);
  }

  /** A part of a result's line, on stdout. The display waits until the line is ended by a result. */
  piece(text: string): void {
    if (this.streams.stdout.isTTY) this.display?.hold();
    this.streams.stdout.write(text);
  }

  /** One JSON value on one line of stdout; numbers that are not finite become null. */
  jsonLine(value: unknown): void {
    this.result(JSON.stringify(value));
  }

  /** Lines of the result, on stdout, as its terminal shows them. */
  report(lines: readonly Line[]): void {
    const theme = themeOf(this.streams.stdout);
    for (const line of lines) this.result(painted(line, theme));
  }

  /** Columns of stdout for a report; without a terminal as many as files are easily read in. */
  get columns(): number {
    const { isTTY, columns } = this.streams.stdout;
    return isTTY ? (columns ?? 80) : 100;
  }

  debug(text: string): void {
    this.#log("debug", text);
  }

  info(text: string): void {
    this.listener?.("info", text);
    this.#log("info", text);
  }

  warning(text: string): void {
    this.listener?.("warning", text);
    const colors = colorsFor(this.streams.stderr);
    this.#log("warning", `${colors.yellow("warning:")} ${text}`);
  }

  /** Whether messages of this level are shown. */
  tells(level: (typeof levels)[number]): boolean {
    return levels.indexOf(level) >= this.#level;
  }

  #log(level: (typeof levels)[number], text: string): void {
    if (this.tells(level)) this.#write(this.streams.stderr, text);
  }

  #write(stream: TextSink, text: string): void {
    this.display?.clear();
    stream.write(`${text}\n`);
    this.display?.release();
  }
}

/** How long a command without a terminal may say nothing while it works: KTO_SILENCE, in seconds. */
function longestSilence(): Pick<DisplayOptions, "longestSilenceMs"> {
  const { KTO_SILENCE: asked } = process.env;
  if (asked === undefined || asked === "") return {};
  const seconds = Number(asked);
  if (seconds > 0) return { longestSilenceMs: 1000 * seconds };
  throw new ConfigError(`the variable KTO_SILENCE is ${JSON.stringify(asked)}; use a number of seconds above 0.`);
}

/**
 * How a terminal shows things. Whether it is light is said by KTO_THEME, or else by COLORFGBG, which some terminals set
 * to the numbers of their colours, the background's last; 7 and those above 8 are light.
 */
export function themeOf(stream: TextSink): Theme {
  const { KTO_THEME: asked, COLORFGBG: told = "" } = process.env;
  if (asked !== undefined && asked !== "light" && asked !== "dark") {
    throw new ConfigError(`the variable KTO_THEME is ${JSON.stringify(asked)}; use light or dark.`);
  }
  const background = asked ?? (/;(7|9|1\d)$/.test(told) ? "light" : "dark");
  return { background, colors: wantsColors(stream), unicode: isUnicodeSupported() };
}
