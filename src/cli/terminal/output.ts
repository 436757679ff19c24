/**
 * Where text goes: results to stdout, everything else to stderr, so that results can be piped. Keeps the live progress
 * line out of the way of other lines on stderr.
 */
import pc from "picocolors";

/** The part of a Node stream that is used; tests give their own. */
export interface TextStream {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
}

export interface Streams {
  readonly stdout: TextStream;
  readonly stderr: TextStream;
  /** What chat reads. */
  readonly stdin?: NodeJS.ReadableStream;
}

/** A line that is redrawn in place; it is wiped before another line is written and drawn again after it. */
export interface LiveLine {
  clear(): void;
  redraw(): void;
}

const levels = ["debug", "info", "warning", "error"] as const;

/** What every command's options hold. */
export interface OutputOptions {
  readonly json: boolean;
  readonly log_level: (typeof levels)[number];
}

export class Output {
  readonly streams: Streams;
  /** Whether results are wanted as JSON. */
  readonly json: boolean;
  readonly #level: number;
  #live: LiveLine | undefined;

  constructor(streams: Streams, options: OutputOptions) {
    this.streams = streams;
    this.json = options.json;
    this.#level = levels.indexOf(options.log_level);
  }

  /** A line of the result, on stdout. */
  result(text: string): void {
    this.#write(this.streams.stdout, text);
  }

  /** A part of a result's line, on stdout. */
  piece(text: string): void {
    this.streams.stdout.write(text);
  }

  /** One JSON value on one line of stdout; numbers that are not finite become null. */
  jsonLine(value: unknown): void {
    this.result(JSON.stringify(value));
  }

  debug(text: string): void {
    this.#log("debug", text);
  }

  info(text: string): void {
    this.#log("info", text);
  }

  warning(text: string): void {
    const colors = colorsFor(this.streams.stderr);
    this.#log("warning", `${colors.yellow("warning:")} ${text}`);
  }

  /** Whether messages of this level are shown. */
  tells(level: (typeof levels)[number]): boolean {
    return levels.indexOf(level) >= this.#level;
  }

  /** Puts a live line under the control of this output; undefined lets it go. */
  setLive(line: LiveLine | undefined): void {
    this.#live = line;
  }

  #log(level: (typeof levels)[number], text: string): void {
    if (this.tells(level)) this.#write(this.streams.stderr, text);
  }

  #write(stream: TextStream, text: string): void {
    this.#live?.clear();
    stream.write(`${text}\n`);
    this.#live?.redraw();
  }
}

/** Colours for a terminal, none for a pipe or under NO_COLOR. */
export function colorsFor(stream: TextStream): ReturnType<typeof pc.createColors> {
  const wanted = stream.isTTY === true && process.env.TERM !== "dumb";
  return pc.createColors((wanted || Boolean(process.env.FORCE_COLOR)) && !process.env.NO_COLOR);
}
