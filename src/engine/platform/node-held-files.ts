/**
 * Files that say which process has something, such as the folder of a run: made by one process at a time, removed at its
 * end, taken over where the process was killed. Whether a process on another machine lives cannot be known.
 */
import { randomBytes } from "node:crypto";
import { readFileSync, rmSync } from "node:fs";
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

/** A file that was left is removed and made so often; after that somebody else was quicker each time. */
const MOST_TRIES = 3;

export async function holdFile(path: string): Promise<HeldFile> {
  const own = `${JSON.stringify({ process: process.pid, host: hostname(), since: new Date().toISOString() })}\n`;
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
        return { release: () => release(key) };
      }
      const found = await readFile(path, "utf8").catch(() => undefined);
      if (found === undefined) continue; // released meanwhile
      const holder = parseHolder(found);
      if (!(await hasEnded(holder, path))) return { holder };
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

async function hasEnded({ process: id, host }: FileHolder, path: string): Promise<boolean> {
  if (id === undefined) {
    const { mtimeMs } = await stat(path);
    return Date.now() - mtimeMs > LONGEST_WRITE_MS;
  }
  if (host !== hostname()) return false;
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
