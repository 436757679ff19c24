/**
 * The errors that a user can cause or meet. Each message is one or two sentences: what was found, where, what to do. An
 * error that is not a KtoError is a bug in this program. The exit codes are part of the command line's contract.
 */

/** Characters of a message. A name from a damaged file, which a message repeats, can be as long as the file. */
const LONGEST_MESSAGE = 4000;

/** The base of all expected failures. `exitCode` is the exit code of `kto`. */
export class KtoError extends Error {
  readonly exitCode: number;

  constructor(message: string, exitCode: number, options?: { cause?: unknown }) {
    super(shortened(message, LONGEST_MESSAGE), options);
    this.name = new.target.name;
    this.exitCode = exitCode;
  }
}

/** An option is unknown, malformed or out of range, or two options contradict each other. Exit code 2. */
export class ConfigError extends KtoError {
  /** The sentences of a message that tells several things at once; empty for others. */
  readonly problems: readonly string[];

  constructor(message: string, options?: { cause?: unknown; problems?: readonly string[] }) {
    super(message, 2, options);
    this.problems = options?.problems ?? [];
  }
}

/** The feedback file cannot be used as it is; the message names file and line. Exit code 3. */
export class DatasetError extends KtoError {
  constructor(message: string, options?: { cause?: unknown }) {
    super(message, 3, options);
  }
}

/** The model folder cannot be used as it is; the message names file and tensor or key. Exit code 4. */
export class ModelFormatError extends KtoError {
  constructor(message: string, options?: { cause?: unknown }) {
    super(message, 4, options);
  }
}

/** There is no WebGPU adapter, or it cannot do what is asked of it. Exit code 5. */
export class AdapterError extends KtoError {
  constructor(message: string, options?: { cause?: unknown }) {
    super(message, 5, options);
  }
}

/** The device was lost or refused work; nothing more can run on it. Exit code 6. */
export class DeviceLostError extends KtoError {
  constructor(message: string, options?: { cause?: unknown }) {
    super(message, 6, options);
  }
}

/** A file or folder cannot be read or written. Exit code 7. */
export class FileError extends KtoError {
  constructor(message: string, options?: { cause?: unknown }) {
    super(message, 7, options);
  }
}

/** Numbers came out wrong: a gradient check failed, or a loss is not finite. Exit code 8. */
export class NumericError extends KtoError {
  constructor(message: string, options?: { cause?: unknown }) {
    super(message, 8, options);
  }
}

/** A judge of answers cannot be asked: its server or module fails. Exit code 9. */
export class JudgeError extends KtoError {
  constructor(message: string, options?: { cause?: unknown }) {
    super(message, 9, options);
  }
}

/** The system gives the process too little: memory, open files, or a package that is not installed. Exit code 10. */
export class ResourceError extends KtoError {
  constructor(message: string, options?: { cause?: unknown }) {
    super(message, 10, options);
  }
}

/**
 * Another rank of a run of several processes died, hangs or does not agree with this one; the message names it. Exit
 * code 11. Where the other rank failed with an error of its own, its exit code is that of all.
 */
export class RankError extends KtoError {
  constructor(message: string, options?: { cause?: unknown; exitCode?: number }) {
    super(message, options?.exitCode ?? 11, options);
  }
}

/** What each exit code of `kto` means; docs/reference/exit-codes.md is made of it. */
export const EXIT_CODES: Readonly<Record<number, string>> = {
  0: "done",
  1: "an internal error of kto-webgpu: please report it",
  2: "an option is unknown, malformed or out of range",
  3: "what the feedback file holds cannot be used; the sentence names the line",
  4: "what the model folder holds cannot be used; the sentence names the tensor or key",
  5: "there is no usable adapter, or it cannot hold the run",
  6: "the device was lost",
  7: "a file or folder is not there, or cannot be read or written",
  8: "numbers came out wrong: a gradient check failed, or nothing is finite any more",
  9: "the judge cannot be asked: its server or its module fails or does not answer",
  10: "the system gives the process too little: memory, or open files",
  11: "another rank of `mpirun` died, hangs or differs",
  129: "stopped by SIGHUP (the terminal was closed), after a checkpoint",
  130: "stopped by SIGINT (Ctrl-C), after a checkpoint; a second one stops at once",
  143: "the same by SIGTERM (through `npx` only npx itself ends)",
};

/** Exit codes of a command that was ended by a signal: 128 plus the signal's number, as in shells. */
export const SIGNAL_CODES = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;

/**
 * A signal asked a run to end, and it did, in good order. Exit code 129 for SIGHUP, 130 for SIGINT, 143 for SIGTERM.
 */
export class InterruptedError extends KtoError {
  constructor(message: string, signal: keyof typeof SIGNAL_CODES = "SIGINT", options?: { cause?: unknown }) {
    super(message, SIGNAL_CODES[signal], options);
  }
}

/**
 * A foreign value as a message shows it: as JSON, without the middle if it has more than `most` characters. A value
 * that cannot be written as JSON, for example because it is nested too deeply, is named by its kind.
 */
export function shown(value: unknown, most = 200): string {
  // JSON has null for these.
  if (typeof value === "number" && !Number.isFinite(value)) return String(value);
  let json: string;
  try {
    json = JSON.stringify(value) ?? String(value);
  } catch {
    return Array.isArray(value) ? "a list" : typeof value === "bigint" ? `${value}n` : "an object";
  }
  return shortened(json, most);
}

/** A text of at most `most` characters: the middle of a longer one is left out. */
export function shortened(text: string, most: number): string {
  if (text.length <= most) return text;
  const end = Math.floor(most / 4);
  return `${text.slice(0, most - end - 3)}...${text.slice(-end)}`;
}

/** "1 row", "2 rows". */
export function counted(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}

/** "1.5 MiB". */
export function mebibytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}

/** The sentence to show for anything thrown. */
export function errorMessage(error: unknown): string {
  if (typeof error === "string") return error;
  return error instanceof Error ? String(error.message) : shown(error);
}

/** Foreign words, which may have several lines or none, as the end of a sentence, without its full stop. */
export function asPhrase(words: string): string {
  return (
    words
      .replace(/[\s\p{Cc}]+/gu, " ")
      .trim()
      .replace(/\.$/, "") || "no reason is given"
  );
}
