/** A held file of another machine: its holder's heartbeat keeps it, and after minutes without one it is taken over. */
import { mkdirSync, readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import {
  type Clock,
  HEARTBEAT_MS,
  holdFile,
  LONGEST_SILENCE_MS,
} from "../../../src/engine/platform/node-held-files.ts";
import { freshPath, temporaryFolder } from "../../helpers/folders.ts";

const folder = temporaryFolder();
const start = Date.parse("2026-11-30T10:00:00Z");

/** A clock that a test moves. */
function movedClock() {
  let now = start;
  const work = new Set<{ readonly ms: number; readonly work: () => void; next: number }>();
  const clock: Clock = {
    now: () => now,
    every: (ms, task) => {
      const entry = { ms, work: task, next: now + ms };
      work.add(entry);
      return () => work.delete(entry);
    },
  };
  const pass = (ms: number) => {
    const end = now + ms;
    for (;;) {
      const due = [...work].filter(({ next }) => next <= end).sort((a, b) => a.next - b.next)[0];
      if (due === undefined) break;
      now = due.next;
      due.next += due.ms;
      due.work();
    }
    now = end;
  };
  return { clock, pass, tasks: () => work.size };
}

function heldElsewhere(): string {
  const path = freshPath(folder, "lock.json");
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, JSON.stringify({ process: 7, host: "elsewhere", since: "2026-11-30T10:00:00.000Z" }));
  utimesSync(path, start / 1000, start / 1000);
  return path;
}

describe("a file of another machine", () => {
  it("is respected while its time is not older than minutes, and taken over after", async () => {
    const path = heldElsewhere();
    const { clock, pass } = movedClock();
    pass(LONGEST_SILENCE_MS);
    expect(await holdFile(path, clock)).toMatchObject({ holder: { process: 7, host: "elsewhere" } });
    pass(1);
    const found = await holdFile(path, clock);
    expect(JSON.parse(readFileSync(path, "utf8"))).toMatchObject({ process: process.pid });
    if ("release" in found) found.release();
    expect(readdirSync(dirname(path))).toEqual([]);
  });
});

describe("a holder", () => {
  it("sets its file's time at every heartbeat, so that it is never silent for as long, and stops when it ends", async () => {
    const path = join(dirname(heldElsewhere()), "own.json");
    const { clock, pass, tasks } = movedClock();
    const found = await holdFile(path, clock);
    for (let beats = 1; beats <= 3; beats++) {
      pass(HEARTBEAT_MS);
      expect(statSync(path).mtimeMs).toBe(start + beats * HEARTBEAT_MS);
    }
    expect(HEARTBEAT_MS).toBeLessThan(LONGEST_SILENCE_MS / 10);
    if ("release" in found) found.release();
    expect(tasks()).toBe(0);
  });

  it("leaves a file that was taken from it as it is", async () => {
    const path = heldElsewhere();
    const { clock, pass } = movedClock();
    pass(LONGEST_SILENCE_MS + 1);
    const found = await holdFile(path, clock);
    writeFileSync(path, "another's");
    utimesSync(path, 1, 1);
    pass(HEARTBEAT_MS);
    expect(statSync(path).mtimeMs).toBe(1000);
    if ("release" in found) found.release();
    expect(readFileSync(path, "utf8")).toBe("another's");
  });
});
