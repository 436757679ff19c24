/**
 * Where text goes: results to stdout, everything else to stderr, so that results can be piped. Keeps the live progress
 * line out of the way of other lines on stderr.
 */
import pc from "picocolors";

/** The part of a Node stream that is used; tests give their own. */
export interface TextSink {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
}

export interface Streams {
  readonly stdout: TextSink;
  readonly stderr: TextSink;
  /** Input of `kto chat`. */
  readonly stdin?: NodeJS.ReadableStream;
}

/** A line that is redrawn in place. It is cleared before another line is written, and drawn again after that. */
export interface LiveLine {
  clear(): void;
  redraw(): void;
}

const levels = ["debug", "info", "warning", "error"] as const;

/** The options of every command that decide what is written. */
export interface OutputOptions {
  readonly json: boolean;
  readonly log_level: (typeof levels)[number];
}

export class Output {
  readonly streams: Streams;
  /** Whether results are written as JSON. */
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

  /** Sets the live line that this output keeps out of the way of other lines; undefined for none. */
  setLive(line: LiveLine | undefined): void {
    this.#live = line;
  }

  #log(level: (typeof levels)[number], text: string): void {
    if (this.tells(level)) this.#write(this.streams.stderr, text);
  }

  #write(stream: TextSink, text: string): void {
    this.#live?.clear();
    stream.write(`${text}\n`);
    this.#live?.redraw();
  }
}

/** Colours for a terminal, none for a pipe or under NO_COLOR. */
export function colorsFor(stream: TextSink): ReturnType<typeof pc.createColors> {
  const wanted = stream.isTTY === true && process.env.TERM !== "dumb";
  return pc.createColors((wanted || Boolean(process.env.FORCE_COLOR)) && !process.env.NO_COLOR);
}
