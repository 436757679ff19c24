/** Several ranks in one process, which exchange bytes in memory: what the tests of ranks run on instead of MPI. */
import type { Communicator } from "../../src/engine/ranks/communicator.ts";

/** What the ranks of one call gave, until all have called. */
interface Meeting {
  readonly name: string;
  readonly given: Uint8Array[];
  readonly done: Promise<void>;
  readonly open: () => void;
  arrived: number;
}

/** One of them, with a way to end all their calls where this rank has failed. */
export interface LocalRank extends Communicator {
  readonly fail: (error: unknown) => void;
}

/** `size` communicators that belong together. A call that differs from that of another rank rejects. */
export function localRanks(size: number): LocalRank[] {
  const meetings: Meeting[] = [];
  const failed = deferred<never>();
  failed.promise.catch(() => undefined);
  const meet = async (name: string, rank: number, call: number, bytes: Uint8Array): Promise<Uint8Array[]> => {
    let meeting = meetings[call];
    if (meeting === undefined) {
      const { promise, resolve } = deferred<void>();
      meeting = { name, given: [], done: promise, open: resolve, arrived: 0 };
      meetings[call] = meeting;
    }
    if (meeting.name !== name) throw new Error(`rank ${rank} calls ${name} where another calls ${meeting.name}`);
    // A copy, so that a caller who reuses its memory too early is found out by wrong numbers of its own alone.
    meeting.given[rank] = bytes.slice();
    if (++meeting.arrived === size) {
      meeting.open();
      meetings[call] = { ...meeting, given: [] };
    }
    await Promise.race([meeting.done, failed.promise]);
    return meeting.given;
  };
  return Array.from({ length: size }, (_, rank) => {
    let calls = 0;
    return {
      rank,
      size,
      async allGather(own, all) {
        const given = await meet(`allGather of ${own.byteLength}`, rank, calls++, own);
        given.forEach((bytes, from) => {
          all.set(bytes, from * own.byteLength);
        });
      },
      async allToAll(own, received) {
        const slice = own.byteLength / size;
        const given = await meet(`allToAll of ${own.byteLength}`, rank, calls++, own);
        given.forEach((bytes, from) => {
          received.set(bytes.subarray(rank * slice, (rank + 1) * slice), from * slice);
        });
      },
      async broadcast(bytes, root) {
        const given = await meet(`broadcast of ${bytes.byteLength} by ${root}`, rank, calls++, bytes);
        bytes.set(given[root] ?? bytes);
      },
      async barrier() {
        await meet("barrier", rank, calls++, new Uint8Array());
      },
      fail: failed.reject,
    };
  });
}

/** Node 20 has no Promise.withResolvers. */
function deferred<T>() {
  let resolve: (value: T) => void = () => undefined;
  let reject: (error: unknown) => void = () => undefined;
  const promise = new Promise<T>((...settle) => {
    [resolve, reject] = settle;
  });
  return { promise, resolve, reject };
}
