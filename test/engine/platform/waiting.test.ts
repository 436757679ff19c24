/** Waiting for the GPU, against a clock that the test moves: by each turn of the event loop, and by each sleep. */
import { beforeEach, describe, expect, it, vi } from "vitest";
import { platform } from "../../../src/engine/platform/index.ts";

/** What Dawn's question to the driver takes in each turn. */
const TURN_MS = 0.01;

let now = 0;
let sleeps: number[] = [];

beforeEach(() => {
  [now, sleeps] = [0, []];
  vi.spyOn(performance, "now").mockImplementation(() => now);
  vi.spyOn(Atomics, "wait").mockImplementation((_array, _index, _value, ms = 0) => {
    sleeps.push(ms);
    now += ms;
    return "timed-out";
  });
  return () => vi.restoreAllMocks();
});

/** Turns of the event loop while `wait` lasts, with somebody who keeps it turning as Dawn does. */
async function turnsDuring(wait: () => Promise<unknown>): Promise<number> {
  let turns = 0;
  let over = false;
  const turn = () => {
    turns++;
    now += TURN_MS;
    if (!over) setImmediate(turn);
  };
  turn();
  await wait().finally(() => {
    over = true;
  });
  return turns;
}

/** Its value is there so many milliseconds later, which is noticed when the loop turns. */
function later<T>(ms: number, value: T): Promise<T> {
  const end = now + ms;
  return new Promise((resolve) => {
    const turn = () => (now < end ? void setImmediate(turn) : resolve(value));
    turn();
  });
}

describe("waiting without spinning", () => {
  it("lets the event loop turn seldom, and not more seldom for several who wait", async () => {
    const alone = await turnsDuring(() => later(200, undefined));
    expect(alone).toBeCloseTo(200 / TURN_MS, -1);
    const one = await turnsDuring(() => platform.withoutSpinning(later(200, undefined)));
    const many = await turnsDuring(() =>
      Promise.all(Array.from({ length: 20 }, () => platform.withoutSpinning(later(200, undefined)))),
    );
    expect(alone).toBeGreaterThan(5 * one);
    expect(one).toBeGreaterThan(200); // a sleep takes a millisecond at most
    expect(many).toBeGreaterThan(200);
  });

  it("gives the outcome", async () => {
    expect(await platform.withoutSpinning(later(0, "value"))).toBe("value");
    await expect(platform.withoutSpinning(Promise.reject(new Error("reason")))).rejects.toThrow("reason");
  });

  it("does not take many short waits for a long one", async () => {
    await turnsDuring(async () => {
      for (let i = 0; i < 400; i++) await platform.withoutSpinning(later(0.1, undefined));
    });
    expect(now).toBeGreaterThan(40);
    expect(sleeps).toEqual([]);
  });

  it("sleeps no more when nobody waits", async () => {
    await turnsDuring(() => platform.withoutSpinning(later(100, undefined)));
    expect(sleeps.length).toBeGreaterThan(0);
    sleeps = [];
    await turnsDuring(() => later(100, undefined));
    expect(sleeps).toEqual([]);
  });
});
