/** The streams that a command reads and writes; tests give their own. */

/** The part of a Node stream that is used; tests give their own. */
export interface TextSink {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
  readonly rows?: number;
}

export interface Streams {
  readonly stdout: TextSink;
  readonly stderr: TextSink;
  /** Input of `kto chat`. */
  readonly stdin?: NodeJS.ReadableStream;
}
