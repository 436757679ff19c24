/** Signals that come once, twice, and twice at once as through mpirun and npx. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { screenSignals, withSignals } from "../../../src/cli/terminal/signals.ts";

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["performance"] });
});
afterEach(() => {
  screenSignals(undefined);
  vi.useRealTimers();
  vi.restoreAllMocks();
});

/** What becomes of SIGINTs after these pauses, in milliseconds: "first", and "end" for each end of the process. */
async function after(...pauses: readonly number[]): Promise<string[]> {
  const happened: string[] = [];
  let isOver = false;
  vi.spyOn(process, "exit").mockImplementation((code) => {
    happened.push(`end ${code}`);
    isOver = true;
    return undefined as never;
  });
  await withSignals(
    (signal) => {
      // The mocked end of the process returns, which the real one does not.
      if (!isOver) happened.push(`first ${signal}`);
    },
    async () => {
      for (const pause of pauses) {
        vi.advanceTimersByTime(pause);
        process.emit("SIGINT", "SIGINT");
        await new Promise((resolve) => setImmediate(resolve));
      }
    },
  );
  return happened;
}

test("a process alone comes to an end at the first signal, and ends at the second", async () => {
  expect(await after(0)).toEqual(["first SIGINT"]);
  expect(await after(0, 1)).toEqual(["first SIGINT", "end 130"]);
});

test("a rank takes a signal that comes again within two seconds for the same one", async () => {
  screenSignals(async () => false);
  expect(await after(0, 0, 1, 1900)).toEqual(["first SIGINT"]);
  expect(await after(0, 1, 2000)).toEqual(["first SIGINT", "end 130"]);
});

test("a rank does not end itself for a signal that another rank's fault explains", async () => {
  screenSignals(async () => true);
  expect(await after(0, 3000, 3000)).toEqual([]);
});
