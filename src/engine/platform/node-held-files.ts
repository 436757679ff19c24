/**
 * Files that say which process has something, such as the folder of a run: made by one process at a time, removed at
 * its end, taken over where the process was killed. Whether a process of another machine, or of another container,
 * lives is told by the file's time alone, which its holder sets again and again.
 */
import { randomBytes } from "node:crypto";
import { readFileSync, rmSync, utimesSync } from "node:fs";
import { readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { resolve } from "node:path";
import { errorCode, fileError } from "./node-errors.ts";
import type { FileHolder, HeldFile } from "./platform.ts";

/** What this process holds, by absolute path, and what it wrote there. */
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

/** A file that was left is removed and made so often; after that somebody else was quicker each time. */
const MOST_TRIES = 3;

/**
 * @param clock another one in tests
 * @throws FileError if the file cannot be made
 */
export async function holdFile(path: string, clock: Clock = systemClock): Promise<HeldFile> {
  const own = `${JSON.stringify({ process: process.pid, host: hostname(), since: new Date(clock.now()).toISOString() })}\n`;
  const key = resolve(path);
  const mine = held.get(key);
  if (mine !== undefined) return { holder: parseHolder(mine) };
  held.set(key, own); // now, so that of two calls of this process one has it
  let has = false;
  try {
    for (let tries = 0; tries < MOST_TRIES; tries++) {
      has = await created(path, own);
      if (has) {
        if (!releasesAtExit) process.once("exit", releaseAll);
        releasesAtExit = true;
        const silence = clock.every(HEARTBEAT_MS, () => beat(key, clock));
        return {
          release: () => {
            silence();
            release(key);
          },
        };
      }
      const found = await readFile(path, "utf8").catch(() => undefined);
      if (found === undefined) continue; // released meanwhile
      const holder = parseHolder(found);
      if (!(await hasEnded(holder, path, clock))) return { holder };
      await takeAway(path, found);
    }
    return { holder: parseHolder(await readFile(path, "utf8").catch(() => "")) };
  } catch (error) {
    throw fileError("write", path, error);
  } finally {
    if (!has) held.delete(key);
  }
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

async function hasEnded({ process: id, host }: FileHolder, path: string, clock: Clock): Promise<boolean> {
  if (id === undefined || host !== hostname()) {
    const { mtimeMs } = await stat(path);
    return clock.now() - mtimeMs > (id === undefined ? LONGEST_WRITE_MS : LONGEST_SILENCE_MS);
  }
  // This process does not have it: another one had its number, as in a container that was started again.
  if (id === process.pid) return true;
  try {
    process.kill(id, 0);
    return false;
  } catch (error) {
    return errorCode(error) === "ESRCH";
  }
}

/** Removes a file that was left, but not one that another process put in its place meanwhile. */
async function takeAway(path: string, text: string): Promise<void> {
  const aside = `${path}.${randomBytes(6).toString("hex")}.tmp`;
  try {
    await rename(path, aside);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return;
    throw error;
  }
  if ((await readFile(aside, "utf8")) === text) await rm(aside, { force: true });
  else await rename(aside, path);
}

function parseHolder(text: string): FileHolder {
  try {
    const { process: id, host, since } = JSON.parse(text) as Record<string, unknown>;
    if (Number.isSafeInteger(id) && Number(id) > 0 && typeof host === "string" && typeof since === "string") {
      return { process: Number(id), host, since };
    }
  } catch {
    // Half written, or of another program.
  }
  return { process: undefined, host: undefined, since: undefined };
}

/** Says that the holder lives; a file that is another's by now is left as it is. */
function beat(path: string, clock: Clock): void {
  const own = held.get(path);
  const now = clock.now() / 1000;
  try {
    if (own !== undefined && readFileSync(path, "utf8") === own) utimesSync(path, now, now);
  } catch {
    // The next one may succeed, as on a network's disk that is away for a moment.
  }
}

function release(path: string): void {
  const own = held.get(path);
  held.delete(path);
  try {
    // Whoever removed the file by hand may have let another process have it.
    if (own !== undefined && readFileSync(path, "utf8") === own) rmSync(path, { force: true });
  } catch {
    // What cannot be removed is taken over by the next run.
  }
}

function releaseAll(): void {
  for (const path of [...held.keys()]) release(path);
}
