/**
 * Whether a process of this machine still runs, told by its number and, since numbers are given again, by its start.
 * What it holds, and what becomes of that, is up to the held files and to the cache of downloads.
 */
import { readFileSync } from "node:fs";
import { errorCode } from "./node-errors.ts";

/** What a file says of the process that wrote it. */
interface WrittenBy {
  /** See `startOf`; undefined where the file does not say. */
  readonly started?: string | undefined;
  /** When it was written, ISO 8601; looked at only where a start is missing. */
  readonly since?: string | undefined;
}

/**
 * Names the start of a process among all of this machine: the boot, and the clock ticks after it.
 *
 * @returns undefined where the system does not tell, which only Linux does
 */
export function startOf(id: number): string | undefined {
  try {
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
    const stat = readFileSync(`/proc/${id}/stat`, "utf8");
    // The second field is the program's name in parentheses, which may hold spaces and parentheses itself.
    const ticks = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
    return ticks === undefined ? undefined : `${boot}.${ticks}`;
  } catch {
    return undefined;
  }
}

/** Whether the process that had this number when it wrote a file has ended, so that the number is free or another's. */
export function hasEnded(id: number, { started, since }: WrittenBy = {}): boolean {
  try {
    process.kill(id, 0);
  } catch (error) {
    return errorCode(error) === "ESRCH"; // else it is another user's
  }
  const now = startOf(id);
  if (started !== undefined && now !== undefined) return started !== now;
  // A container that is started again gives its processes the same numbers.
  if (id !== process.pid || since === undefined) return false;
  return Date.parse(since) < Date.now() - 1000 * process.uptime();
}
