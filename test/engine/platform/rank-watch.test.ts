import { describe, expect, test } from "vitest";
import {
  deadSentence,
  nameOf,
  type RankMember,
  RankWatch,
  silentSentence,
  speakerOf,
  stuckSentence,
} from "../../../src/engine/platform/rank-watch.ts";

const member = (rank: number): RankMember => ({ rank, host: `h${rank}`, pid: 100 + rank, machine: "m", version: "1" });

describe("who watches whom", () => {
  test.each([
    [2, 0, [1], [1]],
    [3, 0, [2, 1], [1, 2]],
    [1024, 0, [1023, 1022], [1, 2]],
    [1024, 1023, [1022, 1021], [0, 1]],
  ])("%i ranks, rank %i", (size, rank, watched, watchers) => {
    const watch = new RankWatch(rank, size, 0);
    expect([watch.watched, watch.watchers]).toEqual([watched, watchers]);
  });

  test("every rank is watched by those to which it beats", () => {
    const all = Array.from({ length: 7 }, (_, rank) => new RankWatch(rank, 7, 0));
    for (const [rank, { watchers }] of all.entries()) {
      const watching = all.flatMap(({ watched }, other) => (watched.includes(rank) ? [other] : []));
      expect(watching.toSorted()).toEqual(watchers.toSorted());
    }
  });
});

function hearBoth(watch: RankWatch, nowMs: number): void {
  for (const rank of [0, 2]) watch.heard(rank, 0, nowMs);
}

/** A watch of rank 1 among three that is asked every 100 ms until `ms`, while `beats` tells what it hears. */
function watched(ms: number, beats: (nowMs: number, watch: RankWatch) => void): RankWatch {
  const watch = new RankWatch(1, 3, 0);
  for (let nowMs = 0; nowMs <= ms; nowMs += 100) {
    beats(nowMs, watch);
    watch.tick(nowMs);
  }
  return watch;
}

describe("a rank that", () => {
  test("beats is not overdue", () => {
    const watch = watched(20_000, (nowMs, one) => hearBoth(one, nowMs));
    expect(watch.overdue(1000, 20_000)).toEqual([]);
  });

  test("falls silent is overdue after the timeout and not before", () => {
    const watch = watched(5000, (nowMs, one) => {
      one.heard(2, 0, nowMs);
      if (nowMs <= 1000) one.heard(0, 0, nowMs);
    });
    expect(watch.overdue(4000, 5000)).toEqual([]);
    expect(watch.overdue(3900, 5000)).toEqual([{ rank: 0, forMs: 4000, kind: "silent" }]);
  });

  test("was never heard is overdue too", () => {
    const watch = watched(5000, () => undefined);
    expect(watch.overdue(4000, 5000).map(({ rank }) => rank)).toEqual([0, 2]);
  });

  test("beats but does not move is stuck", () => {
    const watch = watched(9000, (nowMs, one) => {
      one.heard(0, 0, nowMs);
      one.heard(2, nowMs, nowMs);
    });
    expect(watch.overdue(8000, 9000)).toEqual([{ rank: 2, forMs: 9000, kind: "stuck" }]);
  });

  test("was not heard while the watcher itself stood still gets its time anew", () => {
    const watch = watched(1000, (nowMs, one) => hearBoth(one, nowMs));
    watch.tick(60_000);
    expect(watch.overdue(4000, 61_000)).toEqual([]);
    for (let nowMs = 61_000; nowMs <= 65_000; nowMs += 1000) watch.tick(nowMs);
    expect(watch.overdue(4000, 65_000).map(({ rank }) => rank)).toEqual([0, 2]);
  });
});

describe("after a signal, a watched rank", () => {
  /** Rank 2 beats and moves; what a look from 9000 ms on finds, at its end. */
  const found = (rank0: (nowMs: number, watch: RankWatch) => void, isHere: boolean) => {
    const watch = watched(9000, (nowMs, one) => {
      one.heard(2, 0, nowMs);
      rank0(nowMs, one);
    });
    for (let forMs = 0; ; forMs += 10) {
      watch.heard(2, 0, 9000 + forMs);
      const silent = watch.lookAfterSignal(forMs, 9000 + forMs, (rank) => rank === 2 || isHere);
      if (silent !== undefined) return { forMs, ranks: silent.map(({ rank }) => rank) };
    }
  };
  const busy = (nowMs: number, watch: RankWatch) => watch.heard(0, 700, nowMs);
  const late = (nowMs: number, watch: RankWatch) => nowMs <= 8300 && watch.heard(0, 0, nowMs);

  test("of another machine that is busy ends no run", () => {
    // It beats on during the look.
    const watch = watched(11_000, (nowMs, one) => {
      one.heard(2, 0, nowMs);
      busy(nowMs, one);
    });
    expect(watch.lookAfterSignal(2000, 11_000, () => false)).toBe(undefined);
    expect(watch.lookAfterSignal(2260, 11_000, () => false)).toEqual([]);
  });

  test("of this machine that is busy, late or silent ends none: the system tells which have ended", () => {
    expect(found(busy, true)).toEqual({ forMs: 810, ranks: [] });
    expect(found(late, true)).toEqual({ forMs: 810, ranks: [] });
    expect(found(() => undefined, true)).toEqual({ forMs: 810, ranks: [] });
  });

  test("of another machine counts as dead after two seconds without a beat", () => {
    expect(found(late, false)).toEqual({ forMs: 1310, ranks: [0] });
    expect(found((nowMs, watch) => nowMs <= 5000 && watch.heard(0, 0, nowMs), false)).toEqual({
      forMs: 260,
      ranks: [0],
    });
  });
});

test("the lowest rank that can tells the user", () => {
  expect(speakerOf({ ranks: [1], gone: true })).toBe(0);
  expect(speakerOf({ ranks: [0], gone: true })).toBe(1);
  expect(speakerOf({ ranks: [0, 1], gone: true })).toBe(2);
  expect(speakerOf({ ranks: [0], gone: false })).toBe(0);
});

test("sentences name rank, host and process", () => {
  expect(nameOf(member(3))).toBe("rank 3 (h3, process 103)");
  expect(deadSentence([member(0)])).toBe("rank 0 (h0, process 100) ended without a word: killed, or crashed.");
  expect(silentSentence([member(0), member(1)], 5234)).toBe(
    "nothing was heard of rank 0 (h0, process 100) and rank 1 (h1, process 101) for 5.2 s: the process hangs, or its machine or the link to it is down.",
  );
  expect(stuckSentence([member(2)], 60_000)).toContain("rank 2 (h2, process 102) did not move for 60 s");
});
