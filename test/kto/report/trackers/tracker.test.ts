/** The delivery to a tracker that is slow or fails: what waits, what is lost, what is told. */
import { expect, test } from "vitest";
import { Delivery, type TrackedLine, type Tracker, TrackerFault } from "../../../../src/kto/report/trackers/tracker.ts";

const line = (step: number): TrackedLine => ({ time: step, step, values: { loss: step } });

/** A tracker that keeps what it takes, unless `fault` says otherwise. */
function keeping(fault: () => Error | undefined) {
  const taken: number[] = [];
  const ends: string[] = [];
  const tracker: Tracker = {
    name: "Mine",
    start: async () => undefined,
    write: async (lines) => {
      const error = fault();
      if (error) throw error;
      taken.push(...lines.map(({ step }) => step));
    },
    end: async (end) => void ends.push(end),
  };
  const warnings: string[] = [];
  return { taken, ends, warnings, sent: new Delivery(tracker, (sentence) => warnings.push(sentence)) };
}

test("of very many lines that wait the oldest are lost and counted; the others come in their order", async () => {
  let away = true;
  const { sent, taken, ends, warnings } = keeping(() => (away ? new Error("away") : undefined));
  for (let step = 1; step <= 20_010; step++) {
    sent.add(line(step));
    if (step === 1) await new Promise(setImmediate); // the first attempt fails
  }
  away = false;
  await sent.end("finished");
  expect(taken).toEqual(Array.from({ length: 20_000 }, (_, i) => i + 11));
  expect(ends).toEqual(["finished"]);
  expect(warnings).toEqual([
    "Mine does not take the metrics: away. The training goes on and tries again.",
    "Mine lacks 10 of 20010 lines of metrics: away.",
  ]);
});

test("a fault that cannot pass ends the attempts; what comes later is counted", async () => {
  let asked = 0;
  const { sent, ends, warnings } = keeping(() => {
    asked++;
    return new TrackerFault("no such run", false);
  });
  for (let step = 1; step <= 3; step++) {
    sent.add(line(step));
    await new Promise(setImmediate);
  }
  await sent.end("finished");
  expect(asked).toBe(1);
  expect(ends).toEqual([]);
  expect(warnings).toEqual([
    "Mine does not take the metrics: no such run. The training goes on without it.",
    "Mine lacks 3 of 3 lines of metrics: no such run.",
  ]);
});
