/**
 * Files that say which process has something, such as the folder of a run: made by one process at a time, removed at
 * its end, taken over where the process was killed. Whether a process of another machine, or of another container,
 * lives is told by the file's time alone, which its holder sets again and again.
 */
import { createHash, randomBytes } from "node:crypto";
import { readFileSync, rmSync, utimesSync } from "node:fs";
import { readFile, realpath, rename, rm, stat, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { basename, dirname, join } from "node:path";
import { errorCode, fileError } from "./node-errors.ts";
import { hasEnded, startOf } from "./node-processes.ts";
import type { FileHolder, HeldFile } from "./platform.ts";

/** What this process holds, by absolute path without links, and what it wrote there. */
const held = new Map<string, string>();
let releasesAtExit = false;

/** A file without a name in it is being written, unless it is older. */
const LONGEST_WRITE_MS = 60_000;

/** How often a holder sets the time of its file. */
export const HEARTBEAT_MS = 30_000;

/**
 * A file of another machine whose time is older was left. Long, since the clocks of two machines differ, and a process
 * that writes a large model to a slow disk may not get to its heartbeat.
 */
export const LONGEST_SILENCE_MS = 10 * 60_000;

/** The time, and work at intervals of it that does not keep the process alive. */
export interface Clock {
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** Calls `work` each time `ms` have passed, until the returned function is called. */
  readonly every: (ms: number, work: () => void) => () => void;
}

const systemClock: Clock = {
  now: () => Date.now(),
  every: (ms, work) => {
    const timer = setInterval(work, ms).unref();
    return () => clearInterval(timer);
  },
};

/** A file that is gone when it is read is made again so often; after that somebody else was quicker each time. */
const MOST_TRIES = 3;

/** What a file says: who holds it, when that process started, and a token that no other holding of it has. */
interface Written extends FileHolder {
  readonly started?: string | undefined;
}

/**
 * @param clock another one in tests
 * @throws FileError if the file cannot be made
 */
export async function holdFile(path: string, clock: Clock = systemClock): Promise<HeldFile> {
  const own = `${JSON.stringify({
    process: process.pid,
    host: hostname(),
    since: new Date(clock.now()).toISOString(),
    started: startOf(process.pid),
    token: randomBytes(12).toString("hex"),
  })}\n`;
  let key: string;
  try {
    key = join(await realpath(dirname(path)), basename(path));
  } catch (error) {
    throw fileError("write", path, error);
  }
  const mine = held.get(key);
  if (mine !== undefined) return { holder: parse(mine) };
  held.set(key, own); // now, so that of two calls of this process one has it
  let others: string | undefined = "";
  try {
    others = await acquire(key, own, clock);
    return others === undefined ? { release: keep(key, own, clock) } : { holder: parse(others) };
  } catch (error) {
    throw fileError("write", path, error);
  } finally {
    if (others !== undefined) held.delete(key);
  }
}

/**
 * Makes a file that says `own`, or puts that in the place of one that was left.
 *
 * @returns undefined where the file is this process's now, else what it says
 */
async function acquire(path: string, own: string, clock: Clock): Promise<string | undefined> {
  for (let tries = 0; tries < MOST_TRIES; tries++) {
    if (await created(path, own)) return undefined;
    const text = await readFile(path, "utf8").catch(() => undefined);
    if (text === undefined) continue; // released meanwhile
    if ((await wasLeft(text, path, clock)) && (await takeOver(path, text, own, clock))) return undefined;
    return await readFile(path, "utf8").catch(() => text);
  }
  return await readFile(path, "utf8").catch(() => "");
}

/**
 * Replaces a file that was left. Of all processes that found this text in it, only one at a time may, the holder of a
 * second file whose name is made of the text; and none once the text is another. Nobody therefore takes a file away
 * that another process has just taken over. A second file that was left itself is taken over in the same way.
 *
 * @returns false where another process is doing so, or has done so
 */
async function takeOver(path: string, text: string, own: string, clock: Clock): Promise<boolean> {
  const turn = `${path}.${createHash("sha256").update(text).digest("hex").slice(0, 16)}.tmp`;
  if ((await acquire(turn, own, clock)) !== undefined) return false;
  const next = `${turn}.next`;
  try {
    const now = await readFile(path, "utf8").catch(() => undefined);
    if (now !== text || !(await wasLeft(now, path, clock))) return false;
    await writeFile(next, own);
    await rename(next, path);
    return true;
  } finally {
    await rm(next, { force: true });
    await rm(turn, { force: true });
  }
}

/** Keeps a file alive that was made. Returns what ends that, once; the process does so at its end. */
function keep(path: string, own: string, clock: Clock): () => void {
  if (!releasesAtExit) process.once("exit", releaseAll);
  releasesAtExit = true;
  const silence = clock.every(HEARTBEAT_MS, () => beat(path, own, clock));
  return () => {
    silence();
    release(path, own);
  };
}

async function created(path: string, text: string): Promise<boolean> {
  try {
    await writeFile(path, text, { flag: "wx" });
    return true;
  } catch (error) {
    if (errorCode(error) === "EEXIST") return false;
    throw error;
  }
}

/** Whether the process that made a file with this text has ended, as far as can be told from here. */
async function wasLeft(text: string, path: string, clock: Clock): Promise<boolean> {
  const { process: id, host, since, started } = parse(text);
  if (id !== undefined && host === hostname()) return hasEnded(id, { started, since });
  const found = await stat(path).catch(() => undefined);
  if (found === undefined) return false; // released meanwhile
  return clock.now() - found.mtimeMs > (id === undefined ? LONGEST_WRITE_MS : LONGEST_SILENCE_MS);
}

function parse(text: string): Written {
  try {
    const { process: id, host, since, started } = JSON.parse(text) as Record<string, unknown>;
    if (Number.isSafeInteger(id) && Number(id) > 0 && typeof host === "string" && typeof since === "string") {
      return { process: Number(id), host, since, ...(typeof started === "string" ? { started } : {}) };
    }
  } catch {
    // Half written, or of another program.
  }
  return { process: undefined, host: undefined, since: undefined };
}

/** Says that the holder lives; a file that is another's by now is left as it is. */
function beat(path: string, own: string, clock: Clock): void {
  const now = clock.now() / 1000;
  try {
    if (readFileSync(path, "utf8") === own) utimesSync(path, now, now);
  } catch {
    // The next one may succeed, as on a network's disk that is away for a moment.
  }
}

/** Removes what this holder wrote; the file of a later one, in this process or another, is left as it is. */
function release(path: string, own: string): void {
  if (held.get(path) !== own) return;
  held.delete(path);
  try {
    // Whoever removed the file by hand may have let another process have it.
    if (readFileSync(path, "utf8") === own) rmSync(path, { force: true });
  } catch {
    // What cannot be removed is taken over by the next run.
  }
}

function releaseAll(): void {
  for (const [path, own] of [...held]) release(path, own);
}
