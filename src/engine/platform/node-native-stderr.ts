/**
 * Keeps what Dawn and the Vulkan loader write straight to file descriptor 2 while they look for adapters away from the
 * user of a command: limits "artificially reduced" for every software adapter, drivers that do not fit this machine.
 * What concerns a user is said by an AdapterError. Dawn has no switch for these lines.
 *
 * There is no dup2 in Node, but the lowest free descriptor is the one that open() gives, so closing 2 and opening
 * another file puts that file in its place. Another thread that opens a file in between would get descriptor 2. So this
 * is for commands, which open no files while they look for an adapter, and never for programs that use the library.
 */
import { closeSync, constants, fstatSync, openSync, readFileSync } from "node:fs";

let isCommand = false;

/** Says that this process is the `kto` command: nothing else in it opens files while adapters are looked for. */
export function ownProcess(): void {
  isCommand = true;
}

/** Silences descriptor 2; the function returned brings it back. undefined where nothing is silenced. */
export function silenceNativeStderr(): (() => void) | undefined {
  // KTO_DEBUG, which --debug sets, shows the lines.
  if (!isCommand || process.platform !== "linux" || process.env.KTO_DEBUG !== undefined) return undefined;
  let saved: number;
  try {
    // A socket cannot be opened again, and a file only where all writing goes to its end: it would lose its place.
    const kind = fstatSync(2);
    if (!kind.isCharacterDevice() && !kind.isFIFO() && !(kind.isFile() && isAppendedTo(2))) return undefined;
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

function isAppendedTo(descriptor: number): boolean {
  const [, flags = ""] = /^flags:\s+(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${descriptor}`, "utf8")) ?? [];
  return (Number.parseInt(flags, 8) & constants.O_APPEND) !== 0;
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
