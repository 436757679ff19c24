/** A held file of another machine: its holder's heartbeat keeps it, and after minutes without one it is taken over. */
import { type ChildProcess, fork, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { dirname, join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import {
  type Clock,
  HEARTBEAT_MS,
  holdFile,
  LONGEST_SILENCE_MS,
} from "../../../src/engine/platform/node-held-files.ts";
import { builtModule } from "../../helpers/built.ts";
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

describe("a file of this process", () => {
  const made = () => {
    const path = join(freshPath(folder, "runs"), "lock.json");
    mkdirSync(dirname(path), { recursive: true });
    return path;
  };
  const own = { process: process.pid, host: hostname() };

  it("is released by its holder alone: a second release leaves the next one's", async () => {
    const path = made();
    const first = await holdFile(path);
    if ("release" in first) first.release();
    const second = await holdFile(path);
    if ("release" in first) first.release();
    expect(readdirSync(dirname(path))).toEqual(["lock.json"]);
    expect(await holdFile(path)).toMatchObject({ holder: own });
    if ("release" in second) second.release();
    expect(readdirSync(dirname(path))).toEqual([]);
  });

  it("is not taken through a link to its folder", async () => {
    const path = made();
    const link = freshPath(folder, "link");
    symlinkSync(dirname(path), link);
    const first = await holdFile(path);
    expect(await holdFile(join(link, "lock.json"))).toMatchObject({ holder: own });
    if ("release" in first) first.release();
  });

  it("is not taken by a second copy of the code, as in a worker, and is after the process has ended", async () => {
    const path = made();
    const first = await holdFile(path);
    vi.resetModules();
    const copy: typeof import("../../../src/engine/platform/node-held-files.ts") = await import(
      "../../../src/engine/platform/node-held-files.ts"
    );
    expect(copy.holdFile).not.toBe(holdFile);
    expect(await copy.holdFile(path)).toMatchObject({ holder: own });
    if ("release" in first) first.release();
    const second = await copy.holdFile(path);
    expect(second).toHaveProperty("release");
    if ("release" in second) second.release();
  });

  it.runIf(process.platform === "linux")("is taken over where its number is another process's by now", async () => {
    const path = made();
    const since = new Date().toISOString();
    writeFileSync(path, JSON.stringify({ ...own, process: process.ppid, since, started: "an earlier boot.12" }));
    const found = await holdFile(path);
    expect(found).toHaveProperty("release");
    if ("release" in found) found.release();
  });
});

it("of several processes that want a file that was left at the same moment, one has it, in every round", async () => {
  const output = freshPath(folder, "run");
  mkdirSync(output);
  const path = join(output, "lock.json");
  const ended = spawnSync(process.execPath, ["-e", ""]).pid;
  const left = JSON.stringify({ process: ended, host: hostname(), since: "2026-11-30T10:00:00.000Z" });
  const module = builtModule("platform-node");
  const processes = Array.from({ length: 4 }, () =>
    fork("test/helpers/holder.mjs", [module], { execArgv: [], stdio: ["ignore", "inherit", "inherit", "ipc"] }),
  );
  const answer = async (child: ChildProcess) => (await once(child, "message"))[0] as unknown;
  const tell = (child: ChildProcess, message: string) => {
    const answered = answer(child);
    child.send(message);
    return answered;
  };
  try {
    await Promise.all(processes.map(answer)); // ready
    for (let round = 0; round < 100; round++) {
      writeFileSync(path, left);
      const verdicts = await Promise.all(processes.map((child) => tell(child, path)));
      expect({ round, held: verdicts.filter((verdict) => verdict === "held").length }).toEqual({ round, held: 1 });
      const winner = processes[verdicts.indexOf("held")];
      expect(JSON.parse(readFileSync(path, "utf8")).process).toBe(winner?.pid);
      await Promise.all(processes.map((child) => tell(child, "release")));
      expect(readdirSync(output)).toEqual([]);
    }
  } finally {
    for (const child of processes) child.disconnect();
  }
});

it("a takeover that was broken off is gone on with by the next process", async () => {
  const path = freshPath(folder, "lock.json");
  mkdirSync(dirname(path), { recursive: true });
  const ended = spawnSync(process.execPath, ["-e", ""]).pid;
  const left = JSON.stringify({ process: ended, host: hostname(), since: "2026-11-30T10:00:00.000Z" });
  writeFileSync(path, left);
  const turn = `${path}.${createHash("sha256").update(left).digest("hex").slice(0, 16)}.tmp`;
  writeFileSync(turn, `${left} `);
  const found = await holdFile(path);
  expect(JSON.parse(readFileSync(path, "utf8"))).toMatchObject({ process: process.pid });
  if ("release" in found) found.release();
  expect(readdirSync(dirname(path)).filter((name) => name.startsWith("lock"))).toEqual([]);
});
