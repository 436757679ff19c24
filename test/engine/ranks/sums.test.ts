/** Sums and messages over several ranks: the order of every sum, any lengths, what rank 0 does for all. */
import { describe, expect, test } from "vitest";
import { Random } from "../../../src/engine/random.ts";
import { ALONE } from "../../../src/engine/ranks/communicator.ts";
import {
  byFirst,
  bytesFromFirst,
  gatherBytes,
  gatherJson,
  sumInPlace,
  sumOverRanks,
} from "../../../src/engine/ranks/sums.ts";
import { FileError, RankError } from "../../../src/errors.ts";
import { type LocalRank, localRanks } from "../../helpers/local-ranks.ts";

const everywhere = <T>(size: number, work: (ranks: LocalRank) => Promise<T>): Promise<T[]> =>
  Promise.all(localRanks(size).map(work));

describe("sums", () => {
  test.each([
    [2, 1],
    [2, 1000],
    [3, 7],
    [4, 2],
    [5, 1001],
  ])("of %d ranks over %d numbers are those of float64 in the order of ranks, rounded once", async (size, count) => {
    const own = Array.from({ length: size }, (_, rank) => {
      const random = new Random(rank + 1);
      // Of unequal sizes, so that another order would round otherwise.
      return Float32Array.from({ length: count }, () => (random.float() - 0.5) * 10 ** (random.below(12) - 6));
    });
    const wanted = Float32Array.from({ length: count }, (_, i) =>
      own.reduce((sum, numbers) => sum + (numbers[i] ?? 0), 0),
    );
    const sums = await everywhere(size, async (ranks) => {
      const numbers = Float32Array.from(own[ranks.rank] ?? []);
      await sumInPlace(ranks, numbers);
      return numbers;
    });
    for (const found of sums) expect(found).toEqual(wanted);
    const few = await everywhere(size, (ranks) => sumOverRanks(ranks, Float64Array.from(own[ranks.rank] ?? [])));
    for (const found of few) expect(Float32Array.from(found)).toEqual(wanted);
  });

  test("of one rank are its numbers, and nothing is moved", async () => {
    const numbers = Float32Array.of(0.1, Number.NaN, -0);
    await sumInPlace(ALONE, numbers);
    expect(numbers).toEqual(Float32Array.of(0.1, Number.NaN, -0));
  });

  test("hold what is not finite on any rank", async () => {
    const sums = await everywhere(2, async (ranks) => {
      const numbers = Float32Array.of(ranks.rank === 1 ? Number.NaN : 1, 3e38);
      await sumInPlace(ranks, numbers);
      return [...numbers];
    });
    expect(sums).toEqual([
      [Number.NaN, Number.POSITIVE_INFINITY],
      [Number.NaN, Number.POSITIVE_INFINITY],
    ]);
  });
});

describe("messages", () => {
  test("of any lengths are gathered in the order of ranks", async () => {
    const own = [new Uint8Array(), Uint8Array.of(1, 2, 3), Uint8Array.of(4)];
    for (const all of await everywhere(3, (ranks) => gatherBytes(ranks, own[ranks.rank] ?? new Uint8Array()))) {
      expect(all).toEqual(own);
    }
    expect(await everywhere(2, (ranks) => gatherBytes(ranks, new Uint8Array()))).toEqual([
      [new Uint8Array(), new Uint8Array()],
      [new Uint8Array(), new Uint8Array()],
    ]);
    for (const all of await everywhere(2, ({ rank, ...rest }) => gatherJson({ rank, ...rest }, { rank, name: "ü" }))) {
      expect(all).toEqual([
        { rank: 0, name: "ü" },
        { rank: 1, name: "ü" },
      ]);
    }
  });

  test("of rank 0 reach all", async () => {
    const bytes = Uint8Array.from({ length: 1000 }, (_, i) => i % 251);
    const found = await everywhere(3, (ranks) => bytesFromFirst(ranks, ranks.rank === 0 ? bytes : undefined));
    for (const one of found) expect(one).toEqual(bytes);
  });
});

describe("work that rank 0 does for all", () => {
  test("is done once, and all get its result", async () => {
    let times = 0;
    const found = await everywhere(3, (ranks) => byFirst(ranks, async () => ({ times: ++times })));
    expect(found).toEqual([{ times: 1 }, { times: 1 }, { times: 1 }]);
    expect(await everywhere(2, (ranks) => byFirst(ranks, async () => undefined))).toEqual([undefined, undefined]);
  });

  test("fails on all of them, with its sentence and exit code", async () => {
    const failing = await everywhere(2, (ranks) =>
      byFirst(ranks, async () => {
        throw new FileError("The disk is full.");
      }).catch((error: unknown) => error),
    );
    expect(failing[0]).toEqual(new FileError("The disk is full."));
    expect(failing[1]).toEqual(new RankError("Rank 0: The disk is full.", { exitCode: 7 }));
  });
});
