import { describe, expect, it } from "vitest";
import { platform } from "../../../src/engine/platform/index.ts";

/** Turns of the event loop while `wait` lasts, with somebody who keeps it turning as Dawn does. */
async function turnsDuring(wait: () => Promise<unknown>): Promise<number> {
  let turns = 0;
  let over = false;
  const turn = () => {
    turns++;
    if (!over) setImmediate(turn);
  };
  turn();
  await wait().finally(() => {
    over = true;
  });
  return turns;
}

const later = <T>(ms: number, value: T) => new Promise<T>((resolve) => setTimeout(resolve, ms, value));

describe("waiting without spinning", () => {
  it("lets the event loop turn seldom, and not more seldom for several who wait", async () => {
    const alone = await turnsDuring(() => later(200, undefined));
    const one = await turnsDuring(() => platform.withoutSpinning(later(200, undefined)));
    const many = await turnsDuring(() =>
      Promise.all(Array.from({ length: 20 }, () => platform.withoutSpinning(later(200, undefined)))),
    );
    expect(alone).toBeGreaterThan(5 * one);
    expect(one).toBeGreaterThan(50);
    expect(many).toBeGreaterThan(50);
  });

  it("gives the outcome", async () => {
    expect(await platform.withoutSpinning(later(1, "value"))).toBe("value");
    await expect(platform.withoutSpinning(Promise.reject(new Error("reason")))).rejects.toThrow("reason");
  });

  it("does not take many short waits for a long one", async () => {
    // Each is over a tenth of a millisecond after it began, as the loop finds when it turns.
    const short = () =>
      new Promise<void>((resolve) => {
        const start = performance.now();
        const turn = () => (performance.now() - start < 0.1 ? void setImmediate(turn) : resolve());
        setImmediate(turn);
      });
    const start = performance.now();
    for (let i = 0; i < 400; i++) await platform.withoutSpinning(short());
    expect(performance.now() - start).toBeLessThan(200);
  });

  it("sleeps no more when nobody waits", async () => {
    await platform.withoutSpinning(later(100, undefined));
    const after = await turnsDuring(() => later(100, undefined));
    expect(after).toBeGreaterThan(1000);
  });
});
