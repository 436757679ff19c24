import { describe, expect, test } from "vitest";
import { linkOf, type RankWork, scaledUpdate } from "../../../src/kto/report/scaling.ts";

const work: RankWork = {
  secondsPerUpdate: 1,
  gradientBytes: 4e8,
  microbatches: 1,
  ranksPerMachine: 1,
  hostBytesPerSecond: 1e12,
  isSoftware: false,
};

/** Seconds of the three small calls of an update. */
const SMALL = 0.009;

describe("a link", () => {
  test.each([
    ["10Gb", 1.125e9],
    ["1 Gbit/s", 1.125e8],
    ["100Mbps", 1.125e7],
    ["12.5GB/s", 1.125e10],
  ])("of %s carries %f bytes a second of content", (text, bytes) => {
    expect(linkOf(text)?.bytesPerSecond).toBeCloseTo(bytes, -2);
  });

  test.each(["", "10", "fast", "0Gb", "10Tb", "-1Gb"])("is not %j", (text) => {
    expect(linkOf(text)).toBeUndefined();
  });
});

describe("an update", () => {
  const slow = { bytesPerSecond: 1e8, latency: 0 };

  test("of one rank is the one that was measured", () => {
    expect(scaledUpdate(1, work, slow)).toEqual({
      ranks: 1,
      secondsPerUpdate: 1,
      waiting: 0,
      efficiency: 1,
      bytesSent: 0,
    });
  });

  test("sends 2 (N - 1) / N of the gradients' bytes", () => {
    for (const ranks of [2, 3, 4, 1024])
      expect(scaledUpdate(ranks, work, slow).bytesSent).toBeCloseTo((2 * (ranks - 1) * 4e8) / ranks, 0);
  });

  test("waits on a slow link for what the backward pass does not hide", () => {
    // Two ranks: 4e8 bytes over 1e8 bytes a second, a third of a second of them beside the backward pass.
    expect(scaledUpdate(2, work, slow).waiting).toBeCloseTo(4 - 1 / 3 + SMALL, 2);
    // Of two microbatches only the last one's backward pass runs beside.
    expect(scaledUpdate(2, { ...work, microbatches: 2 }, slow).waiting).toBeCloseTo(4 - 1 / 6 + SMALL, 2);
  });

  test("waits for the last piece alone where the link is fast", () => {
    const pieces = Math.ceil(4e8 / 2 ** 24);
    const { waiting, efficiency } = scaledUpdate(2, work, { bytesPerSecond: 4e9, latency: 0 });
    expect(waiting).toBeCloseTo(0.1 / pieces + SMALL, 3);
    // Small calls take 1% of such an update.
    expect(efficiency).toBeGreaterThan(0.985);
  });

  test("takes longer on more ranks, and hardly with the ranks of one machine", () => {
    const times = [2, 4, 8, 64, 1024].map((ranks) => scaledUpdate(ranks, work, slow).secondsPerUpdate);
    expect(times.toSorted((a, b) => a - b)).toEqual(times);
    const box = scaledUpdate(8, { ...work, ranksPerMachine: 8 }, slow);
    expect(box.efficiency).toBeGreaterThan(0.98);
  });

  test("of several machines with one link each shares it among the machine's ranks", () => {
    const apart = scaledUpdate(8, work, slow).waiting;
    const together = scaledUpdate(8, { ...work, ranksPerMachine: 4 }, slow).waiting;
    expect(together).toBeGreaterThan(apart);
  });

  test("hides nothing of the host's work where the adapter computes on the same cores", () => {
    const fast = { bytesPerSecond: 1e15, latency: 0 };
    const own = { ...work, hostBytesPerSecond: 4e9 };
    expect(scaledUpdate(2, own, fast).waiting).toBeCloseTo(0.1 / Math.ceil(4e8 / 2 ** 24) + SMALL, 3);
    expect(scaledUpdate(2, { ...own, isSoftware: true }, fast).waiting).toBeCloseTo(0.1 + SMALL, 3);
    // What goes over the link is hidden all the same.
    const slower = scaledUpdate(2, { ...own, isSoftware: true }, { bytesPerSecond: 2e9, latency: 0 });
    expect(slower.waiting).toBeCloseTo(0.1 + SMALL, 3);
  });

  test("with sharded optimizer state has weights to move beside gradients", () => {
    const fast = { bytesPerSecond: 1e15, latency: 0 };
    const own = { ...work, hostBytesPerSecond: 4e9, isSoftware: true };
    const extra = scaledUpdate(4, { ...own, shardsOptimizer: true }, fast).waiting - scaledUpdate(4, own, fast).waiting;
    expect(extra).toBeCloseTo(0.1 / 4, 3);
  });

  test.each([
    ["a GPU", false],
    ["a software adapter", true],
  ])(
    "with sharded state hides the sums of the gradients alone, not the weights after the step, on %s",
    (_, isSoftware) => {
      // A sixth of a second on this link: less than the backward pass, which hides all of it but the last piece.
      const link = { bytesPerSecond: 2.4e9, latency: 0 };
      const half = 4e8 / 2.4e9 / 2;
      const pieces = Math.ceil(4e8 / 2 ** 24);
      const own = { ...work, isSoftware };
      expect(scaledUpdate(2, own, link).waiting).toBeCloseTo((2 * half) / pieces + SMALL, 2);
      const sharded = scaledUpdate(2, { ...own, shardsOptimizer: true }, link);
      expect(sharded.waiting).toBeCloseTo(half + half / pieces + SMALL, 2);
      // On a slow link, where either has more than the backward pass hides, both wait alike.
      const waits = [true, false].map((shardsOptimizer) => scaledUpdate(2, { ...own, shardsOptimizer }, slow).waiting);
      expect(waits[0]).toBeCloseTo(waits[1] ?? Number.NaN, 2);
    },
  );

  test("of ranks that update by themselves shares the exchange among the updates up to the next", () => {
    const local = scaledUpdate(4, { ...work, syncEvery: 100 }, slow);
    const every = scaledUpdate(4, work, slow);
    expect(local.bytesSent).toBeCloseTo(every.bytesSent / 100, 0);
    expect(local.waiting).toBeCloseTo((1.5 * 4e8) / 1e8 / 100 + SMALL, 2);
    expect(local.efficiency).toBeGreaterThan(0.9);
  });
});
