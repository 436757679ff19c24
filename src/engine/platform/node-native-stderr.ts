/**
 * Keeps what Dawn and the Vulkan loader write straight to file descriptor 2 while they look for adapters away from the
 * user of a command: limits "artificially reduced" for every software adapter, drivers that do not fit this machine.
 * What concerns a user is said by an AdapterError. Dawn has no switch for these lines.
 *
 * There is no dup2 in Node (under mpirun koffi has it), but the lowest free descriptor is the one that open() gives, so closing 2 and opening
 * another file puts that file in its place. Another thread that opens a file in between would get descriptor 2. So this
 * is for commands, which open no files while they look for an adapter, and never for programs that use the library.
 */
import { closeSync, constants, fstatSync, openSync, readdirSync, readFileSync, type Stats, statSync } from "node:fs";
import { relayStderr } from "./node-stderr-relay.ts";

let isCommand = false;

/** The system's calls of these names, for a process whose other threads open files: MPI's. */
export interface Duplicating {
  readonly dup: (descriptor: number) => number;
  readonly dup2: (from: number, to: number) => number;
}

let duplicating: Duplicating | undefined;

/** From now on descriptor 2 is replaced by one call, which no thread can come between. */
export function duplicateBy(calls: Duplicating): void {
  duplicating = calls;
}

/** Says that this process is the `kto` command: nothing else in it opens files while adapters are looked for. */
export function ownProcess(): void {
  isCommand = true;
}

/** Silences descriptor 2; the function returned brings it back. undefined where nothing is silenced. */
export function silenceNativeStderr(): (() => void) | undefined {
  // KTO_DEBUG, which --debug sets, shows the lines.
  if (!isCommand || process.platform !== "linux" || process.env.KTO_DEBUG !== undefined) return undefined;
  if (duplicating !== undefined) return silenceByDuplicating(duplicating);
  let saved: number;
  try {
    // A socket cannot be opened again; what a program that Node starts writes goes into one.
    const relay = fstatSync(2).isSocket() ? relayStderr() : undefined;
    if (relay !== undefined) {
      replaceStderr(`/proc/self/fd/${relay}`);
      closeSync(relay);
    }
    // A file is opened again only where all writing goes to its end: it would lose its place.
    const kind = fstatSync(2);
    if (!kind.isCharacterDevice() && !kind.isFIFO() && !(kind.isFile() && isWrittenAtItsEnd(kind))) return undefined;
    // A pipe whose reader is gone would block for ever, or fails here with NONBLOCK: then nothing is silenced.
    saved = openSync(
      "/proc/self/fd/2",
      constants.O_WRONLY | constants.O_NOCTTY | constants.O_APPEND | constants.O_NONBLOCK,
    );
  } catch {
    return undefined;
  }
  replaceStderr("/dev/null");
  return () => {
    replaceStderr(`/proc/self/fd/${saved}`);
    closeSync(saved);
  };
}

function silenceByDuplicating({ dup, dup2 }: Duplicating): () => void {
  const [saved, nothing] = [dup(2), openSync("/dev/null", constants.O_WRONLY)];
  dup2(nothing, 2);
  closeSync(nothing);
  return () => {
    dup2(saved, 2);
    closeSync(saved);
  };
}

/**
 * Whether what is written to descriptor 2, now and later, belongs to the end of its file: it is opened for appending, or
 * it stands at the end and no other process writes from the place where this one stands, as the shell of a script does.
 */
function isWrittenAtItsEnd(file: Stats): boolean {
  const facts = readFileSync("/proc/self/fdinfo/2", "utf8");
  const [, flags = ""] = /^flags:\s+(\d+)/m.exec(facts) ?? [];
  if ((Number.parseInt(flags, 8) & constants.O_APPEND) !== 0) return true;
  const [, place = ""] = /^pos:\s+(\d+)/m.exec(facts) ?? [];
  return Number(place) === file.size && !isOpenAbove(file);
}

/** Whether a process that this one descends from has the file open. Those of other users cannot be looked at. */
function isOpenAbove({ dev, ino }: Stats): boolean {
  for (let pid = process.ppid; pid > 1; ) {
    const folder = `/proc/${pid}`;
    let descriptors: string[];
    try {
      descriptors = readdirSync(`${folder}/fd`);
    } catch {
      return false;
    }
    const isIt = (descriptor: string) => {
      const found = statSync(`${folder}/fd/${descriptor}`, { throwIfNoEntry: false });
      return found?.dev === dev && found.ino === ino;
    };
    if (descriptors.some(isIt)) return true;
    // The name in parentheses may hold spaces; its state and its parent stand behind it.
    const [, parent = "0"] = /\) \S+ (\d+)/.exec(readFileSync(`${folder}/stat`, "utf8")) ?? [];
    pid = Number(parent);
  }
  return false;
}

function replaceStderr(path: string): void {
  closeSync(2);
  let got: number | undefined;
  try {
    got = openSync(path, constants.O_WRONLY | constants.O_NOCTTY | constants.O_APPEND);
  } catch {
    // The reader of a pipe went away meanwhile: nobody reads stderr any more.
    got = openSync("/dev/null", constants.O_WRONLY);
  }
  if (got === 2) return;
  // Descriptor 2 is another file's now. Words for stderr must not get into it.
  closeSync(got);
  process.stderr.destroy();
}
